"""One model on its own: the drafter or the verifier, token by token."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax import distributions
from speccascade_jax import static
from speccascade_jax.decoding import checks
from speccascade_jax.decoding import sampling
from speccascade_jax.decoding import state as text_state
from speccascade_jax.decoding import stopping
from speccascade_jax.models import protocol


def decode(
  model: protocol.StepModel,
  params: base.Params,
  inputs: base.Array,
  keys: base.Array,
  temperature: float | base.Array = 1.0,
  *,
  max_length: int,
  scaling: distributions.Scaling = distributions.Scaling(),
  role: base.Provenance = base.Provenance.VERIFIER,
  stops: stopping.StopTable | None = None,
  trace: bool = False,
) -> base.Generation:
  """Decodes each row until its EOS or `max_length` tokens.

  Args:
    model: the step functions (static).
    params: the model's parameters.
    inputs: `[B, S]` int32 source texts or prompts, right-padded with 0.
    keys: `[B]` PRNG keys, one a row; the loop folds in the step.
    temperature: above 0 (traced); not read when `scaling.greedy`.
    max_length: T, the most tokens to emit, EOS included (static).
    scaling: greedy or not, and the truncation (static).
    role: under which name tokens and calls are counted, DRAFTER or VERIFIER.
    stops: what ends a row besides its EOS, see `stopping` (traced).
    trace: also return the probability of every output token.

  Returns:
    Texts of up to T tokens; one `drafter_steps` or `verifier_calls` a token.
  """
  inputs = checks.check_inputs(inputs, keys)
  if role not in (base.Provenance.DRAFTER, base.Provenance.VERIFIER):
    raise ValueError(f'role must be DRAFTER or VERIFIER, got {role!r}.')
  return _decode(
    model,
    params,
    inputs,
    keys,
    checks.check_temperature(temperature, scaling),
    stops,
    max_length=static.positive_integer('max_length', max_length),
    scaling=scaling,
    role=role,
    trace=trace,
  )


@functools.partial(
  jax.jit,
  static_argnames=('model', 'max_length', 'scaling', 'role', 'trace'),
)
def _decode(model, params, inputs, keys, temperature, stops, **settings):
  state = run(model, params, inputs, keys, temperature, stops, **settings)
  return text_state.generation(state)


def run(
  model: protocol.StepModel,
  params: base.Params,
  inputs: base.Array,
  keys: base.Array,
  temperature: base.Array,
  stops: stopping.StopTable | None,
  *,
  max_length: int,
  scaling: distributions.Scaling,
  role: base.Provenance,
  trace: bool,
  rows: base.Array | None = None,
  probs_temperature: base.Array | None = None,
) -> text_state.TextState:
  """The loop itself, to be traced; the arguments are those of `decode`.

  `rows [B]` bool are those that are decoded, by default all: the others stay
  empty, cost nothing, and keep nobody waiting. `probs_temperature` divides the
  logits that traced probabilities are of.
  """
  start = model.start(params, inputs, max_length)
  state = text_state.init(start, max_length, trace)
  if rows is not None:
    state = dataclasses.replace(state, finished=~rows)
  drafting = role == base.Provenance.DRAFTER
  ones = jnp.ones((inputs.shape[0],), jnp.int32)

  def unfinished(carry):
    return ~carry[0].finished.all()

  def step(carry):
    state, cache, number = carry
    logits, cache = model.extend(
      params, cache, state.pending[:, None], state.lengths
    )
    logits = logits[:, 0]
    u = sampling.uniforms(keys, number, 1)[:, 0]
    token = sampling.sample(logits, u, scaling, temperature)
    probs = None
    if trace:
      probs = sampling.probability(logits, token, probs_temperature)[:, None]
    block = text_state.Block(
      tokens=token[:, None],
      count=ones,
      provenance=jnp.full_like(token, role)[:, None],
      # Alone, the verifier decides everything and the drafter nothing.
      deferral=jnp.full(token.shape, 0.0 if drafting else 1.0)[:, None],
      drafter_probs=probs if drafting else None,
      verifier_probs=None if drafting else probs,
    )
    state = text_state.commit(
      state,
      block,
      model.end_ids,
      stops,
      drafter_steps=int(drafting),
      verifier_calls=int(not drafting),
      drafted=int(drafting),
    )
    return state, cache, number + 1

  carry = (state, start.cache, jnp.int32(0))
  return jax.lax.while_loop(unfinished, step, carry)[0]
