"""Cascades without speculation: each token is one model's, decided in turn.

TokenCascade (Algorithm 2) decodes with the drafter; where a rule on `q` alone
defers, the verifier produces the token. OracleCascade (Algorithm 3) runs both
models at every step and lets any rule decide: nobody would deploy it, it is
the upper line of quality against deferral rate.

The verifier of a TokenCascade has not seen the tokens since its last call. It
catches up on all of them in the call that produces the next one. Two rows, `|`
behind what the verifier's cache holds, and a call of width 4::

  row 0   <bos> a | b c d      defers: feeds b c d _, reads the logits at d
  row 1   <bos> a b | c d      does not: is fed c d _ _, and nothing is kept

  row 0   <bos> a b c d | x    x ~ p(. | a b c d)
  row 1   <bos> a b | c d y    y ~ q(. | a b c d)

Widths are 1, 4, 16, .. up to T, and a call has the least of them that is enough
for all rows that defer. No call is made where none does.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax import scalars
from speccascade_jax import static
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
  max_length: int,
  oracle: bool = False,
  scaling: distributions.Scaling = distributions.Scaling(),
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
    keys: `[B]` PRNG keys, one a row; the loop folds in the step.
    alpha: the rule's trade-off; traced, so a sweep compiles once.
    temperature: above 0 (traced); not read when `scaling.greedy`.
    rule: what to emit, see `deferral` (static). Unless `oracle` it must decide
      by the drafter alone, see `deferral.check_drafter_decides`; of a rule
      that prescribes how drafted tokens are kept, the `pi` counts.
    max_length: T, the most tokens to emit, EOS included (static).
    oracle: run both models at every step (static).
    scaling: greedy or not, and the truncation, for both models (static).
    stops: what ends a row besides its EOS, see `stopping` (traced).
    confidence_temperatures: the drafter's and the verifier's (traced): the
      rule's confidences are those of logits divided by them, see
      `distributions.confidences`; None leaves them as they are.
    trace: also return both models' probabilities of every output token, the
      verifier's where it was called.

  Returns:
    Texts of up to T tokens, each by DRAFTER or VERIFIER. A token costs one
    `drafter_steps`, and one `verifier_calls` where the row itself defers, or
    always with the oracle; what is not deferred was `drafted`.
  """
  inputs = checks.check_inputs(inputs, keys)
  checks.check_pair(drafter, verifier)
  if oracle:
    deferral.check_defers(rule, drafter.vocab_size)
  else:
    deferral.check_drafter_decides(rule, drafter.vocab_size)
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
    rule=static.function(rule),
    max_length=static.positive_integer('max_length', max_length),
    oracle=oracle,
    scaling=scaling,
    trace=trace,
  )


@base.pytree_dataclass
class _Choice:
  """One token a row, and whose it is."""

  token: base.Array  # [B]
  deferral: base.Array  # [B] mass of q handed to the verifier.
  by_verifier: base.Array  # [B] bool
  p_logits: base.Array  # [B, V]; read where the verifier was called.
  called: base.Array  # [B] int32, calls of the verifier that the row needed.


@functools.partial(
  jax.jit,
  static_argnames=(
    'drafter',
    'verifier',
    'rule',
    'max_length',
    'oracle',
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
  rule,
  max_length,
  oracle,
  scaling,
  trace,
):
  # A call that catches up may be as wide as the text is long.
  begin = verifier.start(
    verifier_params, inputs, max_length, 1 if oracle else max_length
  )
  drafter_cache = drafter.start(drafter_params, inputs, max_length).cache
  state = text_state.init(begin, max_length, trace)
  extend = functools.partial(verifier.extend, verifier_params)
  scale = functools.partial(
    distributions.scale, scaling=scaling, temperature=temperature
  )

  def knowing_both(state, cache, seen, q_logits, u):
    p_logits, cache = extend(cache, state.pending[:, None], state.lengths)
    choice = _choose(
      *(rule, scale, q_logits, p_logits[:, 0], alpha, u),
      confidence_temperatures,
    )
    return choice, cache, seen

  def by_drafter(state, cache, seen, q_logits, u):
    q = scale(q_logits)
    # The rule decides without p, so that the part of pi that is left without
    # p is what is kept of q.
    nothing = jnp.zeros_like(q)
    q_conf_at, _ = confidence_temperatures or (None, None)
    q_conf = distributions.confidences(q_logits, q_conf_at)
    target = deferral.apply(rule, q, nothing, q_conf, nothing, alpha)
    # Strict: u < 1, so that r = 1 always defers and r = 0 never does.
    defers = u[:, 1] < target.deferral
    own = distributions.draw(target.pi, u[:, 0])
    needed = defers & ~state.finished
    p_logits, cache = _catch_up(
      extend, verifier.vocab_size, cache, state, begin, seen, needed
    )
    other = sampling.sample(p_logits, u[:, 2], scaling, temperature)
    choice = _Choice(
      token=jnp.where(defers, other, own),
      deferral=target.deferral,
      by_verifier=defers,
      p_logits=p_logits,
      called=defers.astype(jnp.int32),
    )
    return choice, cache, jnp.where(needed, state.lengths + 1, seen)

  choose = knowing_both if oracle else by_drafter

  def unfinished(carry):
    return ~carry[0].finished.all()

  def step(carry):
    state, drafter_cache, verifier_cache, seen, number = carry
    q_logits, drafter_cache = drafter.extend(
      drafter_params, drafter_cache, state.pending[:, None], state.lengths
    )
    q_logits = q_logits[:, 0]
    u = sampling.uniforms(keys, number, 3)
    choice, verifier_cache, seen = choose(
      state, verifier_cache, seen, q_logits, u
    )
    state = text_state.commit(
      state,
      _block(choice, q_logits, trace),
      verifier.end_ids,
      stops,
      drafter_steps=1,
      verifier_calls=choice.called,
      drafted=(~choice.by_verifier).astype(jnp.int32),
    )
    return state, drafter_cache, verifier_cache, seen, number + 1

  carry = (state, drafter_cache, begin.cache, begin.lengths, jnp.int32(0))
  return text_state.generation(jax.lax.while_loop(unfinished, step, carry)[0])


def _choose(
  rule, scale, q_logits, p_logits, alpha, u, confidence_temperatures
) -> _Choice:
  """A token from pi, knowing both models.

  Of the mass `pi(v)` of the token the verifier has contributed `r p(v)`, where
  r is the deferral: all of it or nothing where a position belongs to one
  model, a share where tokens are deferred.
  """
  q, p = scale(q_logits), scale(p_logits)
  q_conf_at, p_conf_at = confidence_temperatures or (None, None)
  target = deferral.apply(
    rule,
    q,
    p,
    distributions.confidences(q_logits, q_conf_at),
    distributions.confidences(p_logits, p_conf_at),
    alpha,
  )
  token = distributions.draw(target.pi, u[:, 0])
  mass, share = (
    jnp.take_along_axis(x, token[:, None], axis=1)[:, 0]
    for x in (target.pi, target.deferral[:, None] * p)
  )
  return _Choice(
    token=token,
    deferral=target.deferral,
    by_verifier=u[:, 1] * mass < share,
    p_logits=p_logits,
    called=jnp.ones_like(token),
  )


def _catch_up(extend, vocab_size, cache, state, begin, seen, needed):
  """The verifier's logits behind the text, for the rows that need them.

  Args:
    extend: the verifier's, `cache, tokens, lengths -> logits, cache`.
    vocab_size: V.
    cache: the verifier's; row b holds `seen[b]` tokens.
    state: the text.
    begin: the verifier's start, which had one token pending.
    seen: `[B]` int32.
    needed: `[B]` bool.

  Returns:
    Logits `[B, V]`, to be read where needed, and the cache. Those rows have
    `state.lengths + 1` tokens in it now; in the others the slots from `seen`
    on are as free as before.
  """
  # The text from the first pending token on; its first token is in slot
  # `begin.lengths`.
  text = jnp.concatenate([begin.token[:, None], state.tokens], axis=1)
  first = (seen - begin.lengths)[:, None]
  backlog = state.lengths - seen + 1  # The pending token is unseen, too.
  last = jnp.maximum(backlog - 1, 0)

  def call(width, cache):
    index = jnp.minimum(first + jnp.arange(width), text.shape[1] - 1)
    tokens = jnp.take_along_axis(text, index, axis=1)
    logits, cache = extend(cache, tokens, seen)
    # Rows that need nothing may lie further back than the call reaches.
    at = jnp.minimum(last, width - 1)[:, None, None]
    return jnp.take_along_axis(logits, at, axis=1)[:, 0], cache

  def skip(cache):
    return jnp.zeros((len(seen), vocab_size), jnp.float32), cache

  widths = _widths(state.tokens.shape[1])
  largest = jnp.where(needed, backlog, 0).max()
  # 0: nobody needs a call; 1: the least width will do; and so on.
  branch = jnp.searchsorted(jnp.array([0, *widths]), largest)
  return jax.lax.switch(
    branch, [skip, *(functools.partial(call, w) for w in widths)], cache
  )


def _widths(longest: int) -> list[int]:
  """1, 4, 16, .. below `longest`, and that itself: 20 gives 1 4 16 20."""
  widths = [1]
  while widths[-1] * 4 < longest:
    widths.append(widths[-1] * 4)
  return widths if longest == 1 else [*widths, longest]


def _block(choice: _Choice, q_logits: base.Array, trace: bool):
  """The choice as a block of one candidate `[B, 1]`."""
  provenance = jnp.where(
    choice.by_verifier, base.Provenance.VERIFIER, base.Provenance.DRAFTER
  )
  probs: dict[str, base.Array] = {}
  if trace:
    verifier_probs = sampling.probability(choice.p_logits, choice.token)
    verifier_probs = jnp.where(choice.called > 0, verifier_probs, jnp.nan)
    drafter_probs = sampling.probability(q_logits, choice.token)
    probs['drafter_probs'] = drafter_probs[:, None]
    probs['verifier_probs'] = verifier_probs[:, None]
  return text_state.Block(
    tokens=choice.token[:, None],
    count=jnp.ones_like(choice.token),
    provenance=provenance[:, None],
    deferral=choice.deferral[:, None],
    **probs,
  )
