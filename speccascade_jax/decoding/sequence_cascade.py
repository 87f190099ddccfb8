"""SeqCascade: the drafter writes the whole text, or the verifier does.

The drafter decodes first. Where it was not confident of its text, the text is
thrown away and the verifier decodes that row from the start, with randomness of
its own: whether the drafter's text was bad must say nothing about what the
verifier draws.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base
from speccascade_jax import distributions
from speccascade_jax import scalars
from speccascade_jax import static
from speccascade_jax.decoding import autoregressive
from speccascade_jax.decoding import checks
from speccascade_jax.decoding import state as text_state
from speccascade_jax.decoding import stopping
from speccascade_jax.models import protocol

# Folded into the keys of the verifier; any number would do.
_VERIFIER_STREAM = 0x5EC


def decode(
  drafter: protocol.StepModel,
  verifier: protocol.StepModel,
  drafter_params: base.Params,
  verifier_params: base.Params,
  inputs: base.Array,
  keys: base.Array,
  alpha: float | base.Array,
  temperature: float | base.Array = 1.0,
  *,
  max_length: int,
  quantile: float | None = None,
  scaling: distributions.Scaling = distributions.Scaling(),
  stops: stopping.StopTable | None = None,
  confidence_temperatures: Sequence[float | base.Array] | None = None,
  trace: bool = False,
) -> base.Generation:
  """Decodes each row until its EOS or `max_length` tokens.

  A row defers iff `exp(confidence) < 1 - alpha`, as `chow` does for a token.

  Args:
    drafter: step functions of the small model (static).
    verifier: step functions of the large model, same vocabulary (static).
    drafter_params: the drafter's parameters.
    verifier_params: the verifier's parameters.
    inputs: `[B, S]` int32 source texts or prompts, right-padded with 0.
    keys: `[B]` PRNG keys, one a row.
    alpha: in [0, 1]; traced, so a sweep compiles once. At 1 the verifier is
      never called; at 0 it writes every text of which the drafter was not
      certain, and below 0 all of them.
    temperature: above 0 (traced); not read when `scaling.greedy`.
    max_length: T, the most tokens to emit, EOS included (static).
    quantile: which confidence, see `confidence` (static).
    scaling: greedy or not, and the truncation, for both models (static).
    stops: what ends a row besides its EOS, see `stopping` (traced).
    confidence_temperatures: the drafter's and the verifier's (traced): the
      confidence, and what `trace` shows of the drafter, is that of logits
      divided by the first; None leaves them as they are.
    trace: also return the probability of every output token under the model
      that wrote it.

  Returns:
    Texts of up to T tokens. What the drafter's text cost is counted in any
    case, its tokens are where it was kept.
  """
  inputs = checks.check_inputs(inputs, keys)
  checks.check_pair(drafter, verifier)
  return _decode(
    drafter,
    verifier,
    drafter_params,
    verifier_params,
    inputs,
    keys,
    scalars.check_alpha(alpha),
    checks.check_temperature(temperature, scaling),
    stops,
    scalars.check_confidence_temperatures(confidence_temperatures),
    max_length=static.positive_integer('max_length', max_length),
    quantile=scalars.check_quantile(quantile),
    scaling=scaling,
    trace=trace,
  )


def confidence(
  probs: base.Array, lengths: base.Array, quantile: float | None = None
) -> base.Array:
  """How sure a model was of its texts: a mean or a quantile of `log q(x_t)`.

  Args:
    probs: `[B, T]` unscaled probabilities of the tokens; what lies behind a
      text is not read.
    lengths: `[B]` int32, tokens of the texts, EOS included; at least 1.
    quantile: None for the mean; else in [0, 1], 0 for the least sure token,
      interpolated linearly between two.

  Returns:
    `[B]`, in nats, at most 0.
  """
  position = jnp.arange(probs.shape[1])
  inside = position < lengths[:, None]
  log_probs = -jnp.minimum(
    distributions.surprisal(jnp.where(inside, probs, 1.0)),
    # Finite, since what is interpolated may have the weight 0.
    np.finfo(np.float32).max,
  )
  if quantile is None:
    return log_probs.sum(axis=1) / lengths
  ascending = jnp.sort(jnp.where(inside, log_probs, jnp.inf), axis=1)
  rank = quantile * (lengths - 1).astype(jnp.float32)
  below = jnp.floor(rank).astype(jnp.int32)
  above = jnp.minimum(below + 1, lengths - 1)
  low, high = (
    jnp.take_along_axis(ascending, i[:, None], axis=1)[:, 0]
    for i in (below, above)
  )
  weight = rank - below
  return (1.0 - weight) * low + weight * high


@functools.partial(
  jax.jit,
  static_argnames=(
    'drafter',
    'verifier',
    'max_length',
    'quantile',
    'scaling',
    'trace',
  ),
)
def _decode(
  drafter,
  verifier,
  drafter_params,
  verifier_params,
  inputs,
  keys,
  alpha,
  temperature,
  stops,
  confidence_temperatures,
  *,
  max_length,
  quantile,
  scaling,
  trace,
):
  common = {'max_length': max_length, 'scaling': scaling}
  draft = autoregressive.run(
    drafter,
    drafter_params,
    inputs,
    keys,
    temperature,
    stops,
    role=base.Provenance.DRAFTER,
    trace=True,
    probs_temperature=confidence_temperatures and confidence_temperatures[0],
    **common,
  )
  sure = confidence(draft.drafter_probs, draft.emitted, quantile)
  defers = jnp.exp(sure) < 1.0 - alpha

  def rewrite():
    text = autoregressive.run(
      verifier,
      verifier_params,
      inputs,
      _own_keys(keys),
      temperature,
      stops,
      role=base.Provenance.VERIFIER,
      trace=trace,
      rows=defers,
      **common,
    )
    return text_state.generation(text)

  kept = text_state.generation(draft)
  if not trace:
    kept = dataclasses.replace(kept, drafter_probs=None, verifier_probs=None)
  # Neither the verifier's encoder nor its loop runs where no row defers.
  written = jax.lax.cond(defers.any(), rewrite, lambda: kept)
  return _select(defers, written, kept)


def _own_keys(keys: base.Array) -> base.Array:
  """Keys `[B]` of the verifier, whose draws owe nothing to the drafter's."""
  return jax.vmap(jax.random.fold_in, (0, None))(keys, _VERIFIER_STREAM)


def _select(defers, written, kept) -> base.Generation:
  """The verifier's text where a row defers; both models' work in any case."""

  def choose(new, old):
    return jnp.where(defers.reshape(-1, *[1] * (new.ndim - 1)), new, old)

  chosen = jax.tree.map(choose, written, kept)
  counters = dataclasses.replace(
    chosen.counters,
    drafter_steps=kept.counters.drafter_steps,
    drafted=kept.counters.drafted,
  )
  return dataclasses.replace(chosen, counters=counters)
