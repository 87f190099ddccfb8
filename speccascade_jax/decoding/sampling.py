"""One token from logits, and the uniforms that decide it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax import distributions


def uniforms(keys: base.Array, step: base.Array, count: int) -> base.Array:
  """`[B, count]` uniforms in [0, 1) for one step of a loop.

  Every row has a key of its own, `keys [B]`, folded with the number of the
  step: a row's randomness depends neither on its neighbours nor on the batch
  size, so a row alone decodes as it does in a batch.
  """

  def row(key: base.Array) -> base.Array:
    return jax.random.uniform(jax.random.fold_in(key, step), (count,))

  return jax.vmap(row)(keys)


def sample(
  logits: base.Array,
  u: base.Array,
  scaling: distributions.Scaling,
  temperature: base.Array,
) -> base.Array:
  """Draws a token `[B]` from `logits [B, V]` with the uniforms `u [B]`."""
  probs = distributions.scale(logits, scaling, temperature)
  return choose(logits, probs, u, scaling)


def choose(
  logits: base.Array,
  probs: base.Array,
  u: base.Array,
  scaling: distributions.Scaling,
) -> base.Array:
  """Draws `[B]` from `probs [B, V]`, which `logits [B, V]` were scaled to."""
  if scaling.greedy:
    return distributions.argmax(logits)
  return distributions.draw(probs, u)


def probability(
  logits: base.Array,
  tokens: base.Array,
  temperature: base.Array | None = None,
) -> base.Array:
  """Probability `[...]` of `tokens [...]` under `logits [..., V]`.

  Unscaled, or with `temperature` as in `distributions.confidences`.
  """
  if temperature is not None:
    logits = logits / temperature
  chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
  return jnp.exp(chosen - jax.nn.logsumexp(logits, axis=-1))
