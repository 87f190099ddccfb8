"""Speculative execution of any deferral rule: draft, score, verify, commit.

Algorithms 1, 4, 5 and 6 of the paper are this one loop with different rules.
In each round the drafter runs gamma + 1 steps: the last one gives its
distribution behind a fully kept block, which the target there needs, and
completes its cache. With that the law of the output is exactly that of
sampling `x_t ~ pi_t(. | x_<t)` one token at a time.

With a `fallback` the drafter stops early, where it is unsure of what comes
next: with the rule `bild_fixed` that is BiLD (Kim et al., 2023). For G = 3, two
rows that draft 1 and 3 tokens, `!` where `max q_conf < fallback`::

  drafter step   1      2      3      4
  row 0 feeds    c      d_1                     2 steps; q_2 is !, d_2 is not
  row 1 feeds    c      d_1    d_2    d_3       drafted; the verifier's token
  verifier       c      d_1    d_2    d_3       follows d_1
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax import scalars
from speccascade_jax import static
from speccascade_jax import verification
from speccascade_jax.decoding import checks
from speccascade_jax.decoding import sampling
from speccascade_jax.decoding import state as text_state
from speccascade_jax.decoding import stopping
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
  fallback: float | base.Array | None = None,
  stops: stopping.StopTable | None = None,
  confidence_temperatures: Sequence[float | base.Array] | None = None,
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
    gamma: G, tokens drafted a round, at most if there is a fallback (static).
    max_length: T, the most tokens to emit, EOS included (static).
    verify: how a block is accepted: `verify_tokens` or `verify_block`.
    scaling: greedy or not, and the truncation, for both models (static).
    fallback: a row stops drafting where `max q_conf` is below this (traced);
      None drafts full blocks. Needs `verify_tokens`.
    stops: what ends a row besides its EOS, see `stopping` (traced).
    confidence_temperatures: the drafter's and the verifier's (traced): the
      rule's confidences are those of logits divided by them, see
      `distributions.confidences`; None leaves them as they are.
    trace: also return both models' probabilities of every output token.

  Returns:
    Texts of up to T tokens; a round in which a row drafts n tokens, G without
    a fallback, costs it n + 1 `drafter_steps` and one `verifier_calls`.
  """
  inputs = checks.check_inputs(inputs, keys)
  checks.check_pair(drafter, verifier)
  if fallback is not None:
    fallback = jnp.asarray(scalars.check_fallback(fallback), jnp.float32)
    checks.check_judges_short_blocks(verify)
  return _decode(
    drafter,
    verifier,
    drafter_params,
    verifier_params,
    inputs,
    keys,
    scalars.check_alpha(alpha),
    checks.check_temperature(temperature, scaling),
    fallback,
    stops,
    scalars.check_confidence_temperatures(confidence_temperatures),
    rule=static.function(rule),
    gamma=static.positive_integer('gamma', gamma),
    max_length=static.positive_integer('max_length', max_length),
    verify=static.function(verify),
    scaling=scaling,
    trace=trace,
  )


@base.pytree_dataclass
class _Draft:
  """What the drafter has to say in a round."""

  tokens: base.Array  # [B, G]; what lies behind `count` is not read.
  count: base.Array  # [B] tokens that are proposed.
  logits: base.Array  # [B, G+1, V]
  q: base.Array  # [B, G+1, V] scaled: the very one that was sampled.


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
    The draft and the cache.
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
  full = jnp.full_like(state.lengths, len(tokens) - 1)
  draft = _Draft(tokens[:-1].T, full, logits.swapaxes(0, 1), q.swapaxes(0, 1))
  return draft, cache


def _draft_until(
  drafter, params, cache, state, u, scaling, temperature, fallback, conf_at
):
  """As `_draft`, but no step is taken once every row has stopped.

  A row stops at the first column where `max q_conf < fallback`, at column G at
  the latest, with as many tokens as there are columns before. Until its
  neighbours have stopped too it drafts on into slots behind its block, which
  are free. Columns that no row has reached hold the uniform distribution,
  which no rule can choke on.
  """
  batch, columns = u.shape
  logits = jnp.zeros((batch, columns, drafter.vocab_size))
  tokens = jnp.zeros((batch, columns), jnp.int32)

  def drafting(carry):
    return ~carry[2].all()

  def step(carry):
    draft, cache, stopped, token, i = carry
    logits, cache = drafter.extend(
      params, cache, token[:, None], state.lengths + i
    )
    logits = logits[:, 0]
    q = distributions.scale(logits, scaling, temperature)
    token = sampling.choose(logits, q, u[:, i], scaling)
    q_conf = distributions.confidences(logits, conf_at)
    unsure = q_conf.max(axis=-1) < fallback
    count = jnp.where(stopped, draft.count, i)
    stopped = stopped | unsure | (i == columns - 1)
    draft = _Draft(
      draft.tokens.at[:, i].set(token),
      count,
      draft.logits.at[:, i].set(logits),
      draft.q.at[:, i].set(q),
    )
    return draft, cache, stopped, token, i + 1

  begin = _Draft(
    tokens, jnp.zeros_like(state.lengths), logits, distributions.softmax(logits)
  )
  # Finished rows keep nobody waiting.
  carry = (begin, cache, state.finished, state.pending, jnp.int32(0))
  draft, cache, *_ = jax.lax.while_loop(drafting, step, carry)
  return dataclasses.replace(draft, tokens=draft.tokens[:, :-1]), cache


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
  fallback,
  stops,
  confidence_temperatures,
  *,
  rule,
  gamma,
  max_length,
  verify,
  scaling,
  trace,
):
  # The last block may reach gamma tokens past the limit before it is cut.
  room = (max_length + gamma, gamma + 1)
  start = verifier.start(verifier_params, inputs, *room)
  drafter_cache = drafter.start(drafter_params, inputs, *room).cache
  state = text_state.init(start, max_length, trace)
  q_conf_at, p_conf_at = confidence_temperatures or (None, None)

  def unfinished(carry):
    return ~carry[0].finished.all()

  def round_(carry):
    state, drafter_cache, verifier_cache, number = carry
    u = sampling.uniforms(keys, number, 2 * gamma + 2)
    known = (drafter, drafter_params, drafter_cache, state)
    sampled = (u[:, : gamma + 1], scaling, temperature)
    if fallback is None:
      draft, drafter_cache = _draft(*known, *sampled)
    else:
      draft, drafter_cache = _draft_until(*known, *sampled, fallback, q_conf_at)
    p_logits, verifier_cache = verifier.extend(
      verifier_params,
      verifier_cache,
      jnp.concatenate([state.pending[:, None], draft.tokens], axis=1),
      state.lengths,
    )

    target = deferral.apply(
      rule,
      draft.q,
      distributions.scale(p_logits, scaling, temperature),
      distributions.confidences(draft.logits, q_conf_at),
      distributions.confidences(p_logits, p_conf_at),
      alpha,
    )
    judged = (draft.q, target, u[:, gamma + 1 : -1], u[:, -1])
    if fallback is None:
      verdict = verify(draft.tokens, *judged)
    else:
      verdict = verification.verify_short(draft.tokens, draft.count, *judged)
    block = _block(draft.tokens, verdict, draft.logits, p_logits, trace)
    state = text_state.commit(
      state,
      block,
      verifier.end_ids,
      stops,
      drafter_steps=draft.count + 1,
      verifier_calls=1,
      drafted=draft.count,
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
