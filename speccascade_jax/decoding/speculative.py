"""Speculative execution of any deferral rule: draft, score, verify, commit.

Algorithms 1, 4, 5 and 6 of the paper are this one loop with different rules.
In each round the drafter runs gamma + 1 steps: the last one gives its
distribution behind a fully kept block, which the target there needs, and
completes its cache. With that the law of the output is exactly that of
sampling `x_t ~ pi_t(. | x_<t)` one token at a time.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax import static
from speccascade_jax import verification
from speccascade_jax.decoding import checks
from speccascade_jax.decoding import sampling
from speccascade_jax.decoding import state as text_state
from speccascade_jax.models import protocol


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
  rule: base.Rule,
  gamma: int,
  max_length: int,
  verify: base.Verify = verification.verify_tokens,
  scaling: distributions.Scaling = distributions.Scaling(),
  trace: bool = False,
) -> base.Generation:
  """Decodes each row until its EOS or `max_length` tokens.

  Args:
    drafter: step functions of the small model (static).
    verifier: step functions of the large model, same vocabulary (static).
    drafter_params: the drafter's parameters.
    verifier_params: the verifier's parameters.
    inputs: `[B, S]` int32 source texts or prompts, right-padded with 0.
    keys: `[B]` PRNG keys, one a row; the loop folds in the round.
    alpha: the rule's trade-off; traced, so a sweep compiles once.
    temperature: above 0 (traced); not read when `scaling.greedy`.
    rule: what to emit, see `deferral` (static).
    gamma: G, tokens drafted a round (static).
    max_length: T, the most tokens to emit, EOS included (static).
    verify: how a block is accepted: `verify_tokens` or `verify_block`.
    scaling: greedy or not, and the truncation, for both models (static).
    trace: also return both models' probabilities of every output token.

  Returns:
    Texts of up to T tokens; a round costs G + 1 `drafter_steps` and one
    `verifier_calls`.
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
    checks.check_alpha(alpha),
    checks.check_temperature(temperature, scaling),
    rule=static.function(rule),
    gamma=static.positive_integer('gamma', gamma),
    max_length=static.positive_integer('max_length', max_length),
    verify=static.function(verify),
    scaling=scaling,
    trace=trace,
  )


def _draft(drafter, params, cache, state, u, scaling, temperature):
  """G + 1 drafter steps; the token of the last one is not used.

  Args:
    drafter: step functions.
    params: its parameters.
    cache: its cache, holding `state.lengths` tokens.
    state: the text; drafting starts from its pending token.
    u: `[B, G+1]` uniforms, one a step.
    scaling: static part of the sampling.
    temperature: traced part of it.

  Returns:
    Drafted tokens `[B, G]`, logits and scaled distributions `[B, G+1, V]`,
    cache.
  """

  def step(carry, u_step):
    cache, token, lengths = carry
    logits, cache = drafter.extend(params, cache, token[:, None], lengths)
    logits = logits[:, 0]
    q = distributions.scale(logits, scaling, temperature)
    token = sampling.choose(logits, q, u_step, scaling)
    return (cache, token, lengths + 1), (token, logits, q)

  carry = (cache, state.pending, state.lengths)
  (cache, _, _), (tokens, logits, q) = jax.lax.scan(step, carry, u.T)
  # Verification needs the very q that was sampled: computed once more, it
  # could differ by rounding at the edge of a truncation.
  return tokens[:-1].T, logits.swapaxes(0, 1), q.swapaxes(0, 1), cache


@functools.partial(
  jax.jit,
  static_argnames=(
    'drafter',
    'verifier',
    'rule',
    'gamma',
    'max_length',
    'verify',
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
  *,
  rule,
  gamma,
  max_length,
  verify,
  scaling,
  trace,
):
  # The last block may reach gamma tokens past the limit before it is cut.
  slots = max_length + gamma
  start = verifier.start(verifier_params, inputs, slots)
  drafter_cache = drafter.start(drafter_params, inputs, slots).cache
  state = text_state.init(start, max_length, trace)

  def unfinished(carry):
    return ~carry[0].finished.all()

  def round_(carry):
    state, drafter_cache, verifier_cache, number = carry
    u = sampling.uniforms(keys, number, 2 * gamma + 2)
    drafted, q_logits, q, drafter_cache = _draft(
      drafter,
      drafter_params,
      drafter_cache,
      state,
      u[:, : gamma + 1],
      scaling,
      temperature,
    )
    p_logits, verifier_cache = verifier.extend(
      verifier_params,
      verifier_cache,
      jnp.concatenate([state.pending[:, None], drafted], axis=1),
      state.lengths,
    )

    target = deferral.apply(
      rule,
      q,
      distributions.scale(p_logits, scaling, temperature),
      distributions.softmax(q_logits),
      distributions.softmax(p_logits),
      alpha,
    )
    verdict = verify(drafted, q, target, u[:, gamma + 1 : -1], u[:, -1])
    block = _block(drafted, verdict, q_logits, p_logits, trace)
    state = text_state.commit(
      state,
      block,
      verifier.eos_id,
      drafter_steps=gamma + 1,
      verifier_calls=1,
      drafted=gamma,
    )
    return state, drafter_cache, verifier_cache, number + 1

  carry = (state, drafter_cache, start.cache, jnp.int32(0))
  return text_state.generation(jax.lax.while_loop(unfinished, round_, carry)[0])


def _block(drafted, verdict, q_logits, p_logits, trace):
  """Kept tokens and the one behind them, as candidates `[B, G+1]`."""
  position = jnp.arange(drafted.shape[1] + 1)
  tokens = jnp.where(
    position == verdict.accepted[:, None],
    verdict.next_token[:, None],
    jnp.pad(drafted, ((0, 0), (0, 1))),
  )
  return text_state.Block(
    tokens=tokens,
    count=verdict.accepted + 1,
    provenance=verdict.provenance,
    deferral=verdict.deferral,
    drafter_probs=sampling.probability(q_logits, tokens) if trace else None,
    verifier_probs=sampling.probability(p_logits, tokens) if trace else None,
  )
