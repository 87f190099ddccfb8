"""Verification: which drafted tokens are kept, and what follows them.

`verify_tokens` and `verify_block` are of type `base.Verify`; `verify_short`
serves blocks of different lengths. They know no model and draw no random
number: given the uniforms they are deterministic, so that their law is an
integral over the uniforms, which the tests take exactly. The emitted tokens
have exactly the law of sampling `pi` one token at a time.

A block as the verifier sees it, for G = 3; the drafter has drawn each token
from the q of its own column, and column G + 1 lies behind the whole block::

  column       0        1        2        3
  drafted      d_1      d_2      d_3
  q            q_1      q_2      q_3      q_4        [V] each
  target       pi_1     pi_2     pi_3     pi_4       [V] each

  accepted = 1, the second token is rejected:
  emitted      d_1      x                            x ~ max(0, pi_2 - q_2)
  provenance   DRAFTER  RESAMPLED NONE    NONE

  accepted = 3, one more token comes for free:
  emitted      d_1      d_2      d_3      x          x ~ pi_4
  provenance   DRAFTER  DRAFTER  DRAFTER  VERIFIER

A residual without mass means pi = q up to rounding: the rejection was rounding
noise, and the drafted token is kept after all, as `next_token` and under the
name DRAFTER.
"""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax import distributions


def verify_tokens(
  drafted: base.Array,
  q: base.Array,
  target: base.Target,
  u_accept: base.Array,
  u_next: base.Array,
) -> base.Verdict:
  """Keeps each drafted token with probability `min(1, pi(d) / q(d))`.

  Stops at the first rejection n, where the next token is drawn from
  `norm(max(0, pi_n - q_n))`; behind a fully kept block it is drawn from
  `pi_{G+1}` (Algorithms 1, 4 and 5). A target that prescribes `accept`,
  `residual` or `bonus` has its way instead.

  Args:
    drafted: `[B, G]` int32, drawn from q.
    q: `[B, G+1, V]` scaled drafter distributions.
    target: arrays of the same leading dimensions.
    u_accept: `[B, G]` uniforms in [0, 1).
    u_next: `[B]` uniforms in [0, 1).
  """
  _check(drafted, q, target, u_accept, u_next)
  gamma = drafted.shape[1]
  if target.accept is None:
    # u < pi / q, without the division.
    kept = u_accept * _at(q, drafted) < _at(target.pi, drafted)
  else:
    kept = u_accept < _at(target.accept, drafted)
  accepted = jnp.cumprod(kept.astype(jnp.int32), axis=1).sum(axis=1)

  if target.residual is None:
    rest = distributions.residual(
      _column(target.pi, accepted), _column(q, accepted)
    )
  else:
    rest = _column(target.residual, accepted)
  bonus = (target.pi if target.bonus is None else target.bonus)[:, gamma]
  return _verdict(drafted, target, accepted, rest, bonus, u_next)


def verify_short(
  drafted: base.Array,
  count: base.Array,
  q: base.Array,
  target: base.Target,
  u_accept: base.Array,
  u_next: base.Array,
) -> base.Verdict:
  """`verify_tokens` for rows that drafted fewer than G tokens.

  Row b has drafted `count[b]` tokens, and column `count[b]` lies behind its
  block. With count = 1 and everything kept::

    column       0        1        2        3
    drafted      d_1      -        -
    emitted      d_1      x                            x ~ bonus_2, or pi_2
    provenance   DRAFTER  VERIFIER NONE    NONE

  Whoever stopped drafting must have done so for what is known of the prefix
  alone; then the law is that of full blocks.

  Args:
    drafted: `[B, G]` int32; what lies behind `count` is not read.
    count: `[B]` int32, 0 .. G.
    q: `[B, G+1, V]`, as in `verify_tokens`, and so on; finite everywhere.
    target: see there.
    u_accept: see there.
    u_next: see there.
  """
  _check(drafted, q, target, u_accept, u_next)
  chex.assert_shape(count, drafted.shape[:1])
  position = jnp.arange(q.shape[1])
  # The end of a block is a rejection whose "residual" is the bonus.
  behind = (position >= count[:, None])[..., None]
  accept, residual, bonus = target.accept, target.residual, target.bonus
  if accept is None:
    accept = distributions.ratio(target.pi, q)
  if residual is None:
    residual = distributions.residual(target.pi, q)
  if bonus is None:
    bonus = target.pi
  short = dataclasses.replace(
    target,
    accept=jnp.where(behind, 0.0, accept),
    residual=jnp.where(behind, bonus, residual),
    bonus=bonus,
  )
  verdict = verify_tokens(drafted, q, short, u_accept, u_next)
  full = (position == count[:, None]) & (verdict.accepted == count)[:, None]
  provenance = jnp.where(full, base.Provenance.VERIFIER, verdict.provenance)
  return dataclasses.replace(verdict, provenance=provenance)


def verify_block(
  drafted: base.Array,
  q: base.Array,
  target: base.Target,
  u_accept: base.Array,
  u_next: base.Array,
) -> base.Verdict:
  """Keeps the longest prefix that passes a test of its own (Sun et al., 2024).

  With `w_0 = 1` and `w_i = min(1, w_{i-1} pi_i(d_i) / q_i(d_i))`, the prefix of
  length i passes with probability h_i, independently:

    s_i = sum_v max(0, w_i pi_{i+1}(v) - q_{i+1}(v))
    h_i = s_i / (s_i + 1 - w_i) for i < G,  h_G = w_G

  and the next token is drawn from `norm(max(0, w_i pi_{i+1} - q_{i+1}))`, or
  from `pi_{G+1}` behind a fully kept block. Keeps at least as many tokens as
  `verify_tokens` in expectation (arXiv 2403.10444).

  Args:
    drafted: `[B, G]` int32, drawn from q.
    q: `[B, G+1, V]` scaled drafter distributions.
    target: arrays of the same leading dimensions; `pi` and `deferral` alone.
    u_accept: `[B, G]` uniforms in [0, 1).
    u_next: `[B]` uniforms in [0, 1).

  Raises:
    ValueError: the target prescribes `accept`, `residual` or `bonus`: a block
      is exact for the law pi and for nothing else.
  """
  _check(drafted, q, target, u_accept, u_next)
  check_law_alone(target)
  gamma = drafted.shape[1]
  w = _prefix_weights(
    distributions.ratio(_at(target.pi, drafted), _at(q, drafted))
  )
  # s_i for 1 <= i < G; column i holds the distributions behind i tokens.
  s = distributions.residual(
    w[:, 1:gamma, None] * target.pi[:, 1:gamma], q[:, 1:gamma]
  ).sum(axis=-1)
  short = 1.0 - w[:, 1:gamma]
  # Turned around, a prefix with w = 1 passes also where s = 0.
  h = 1.0 - distributions.ratio(short, s + short)
  h = jnp.concatenate([h, w[:, gamma:]], axis=1)  # [B, G]
  # Strict, since u may be 0 and a prefix with h = 0 must never pass.
  passed = (u_accept < h) * jnp.arange(1, gamma + 1)
  accepted = passed.max(axis=1)

  rest = distributions.residual(
    _at(w, accepted)[:, None] * _column(target.pi, accepted),
    _column(q, accepted),
  )
  return _verdict(drafted, target, accepted, rest, target.pi[:, gamma], u_next)


def check_law_alone(target: base.Target) -> None:
  """Refuses, for `verify_block`, a target that prescribes more than its law.

  Raises:
    ValueError: naming what it prescribes.
  """
  wider = [
    name
    for name in ('accept', 'residual', 'bonus')
    if getattr(target, name) is not None
  ]
  if wider:
    raise ValueError(
      'verify_block emits the law pi at every position, but the rule '
      f'prescribes {" and ".join(wider)} as well. Use verify_tokens.'
    )


def _prefix_weights(ratios: base.Array) -> base.Array:
  """`w_0 .. w_G` as `[B, G+1]` from `pi(d) / q(d)`, `[B, G]`."""

  def step(w, ratio):
    w = jnp.minimum(1.0, w * ratio)
    return w, w

  first = jnp.ones_like(ratios[:, 0])
  _, w = jax.lax.scan(step, first, ratios.T)
  return jnp.concatenate([first[:, None], w.T], axis=1)


def _verdict(drafted, target, accepted, rest, bonus, u_next) -> base.Verdict:
  """Draws the token behind the kept ones and says where all came from.

  Args:
    drafted: `[B, G]`.
    target: its `deferral [B, G+1]` is passed on.
    accepted: `[B]`, 0 .. G.
    rest: `[B, V]` weights after a rejection; not read in fully kept rows.
    bonus: `[B, V]` weights behind a fully kept block.
    u_next: `[B]`.
  """
  gamma = drafted.shape[1]
  full = accepted == gamma
  weights = jnp.where(full[:, None], bonus, rest)
  drawable = (weights > 0.0).any(axis=-1)
  rejected = _at(drafted, jnp.minimum(accepted, gamma - 1))
  next_token = jnp.where(
    drawable, distributions.draw(weights, u_next), rejected
  )
  origin = jnp.where(
    full,
    base.Provenance.VERIFIER,
    jnp.where(drawable, base.Provenance.RESAMPLED, base.Provenance.DRAFTER),
  )
  position = jnp.arange(gamma + 1)
  provenance = jnp.where(
    position < accepted[:, None],
    base.Provenance.DRAFTER,
    jnp.where(
      position == accepted[:, None], origin[:, None], base.Provenance.NONE
    ),
  )
  return base.Verdict(
    accepted=accepted.astype(jnp.int32),
    next_token=next_token.astype(jnp.int32),
    provenance=provenance.astype(jnp.int32),
    deferral=target.deferral,
  )


def _at(values: base.Array, index: base.Array) -> base.Array:
  """Entry `index` of the last axis: `[B, G+1, V]` at `[B, G]` is `[B, G]`."""
  if index.ndim == 2:
    values = values[:, : index.shape[1]]  # Without the column behind the block.
  return jnp.take_along_axis(values, index[..., None], axis=-1)[..., 0]


def _column(values: base.Array, index: base.Array) -> base.Array:
  """Column `index [B]` of `values [B, G+1, V]`, as `[B, V]`."""
  return jnp.take_along_axis(values, index[:, None, None], axis=1)[:, 0]


def _check(drafted, q, target, u_accept, u_next) -> None:
  """Static shapes, once for both functions."""
  batch, gamma = drafted.shape
  columns = (batch, gamma + 1, q.shape[-1])
  chex.assert_shape([q, target.pi], columns)
  chex.assert_shape(target.deferral, columns[:2])
  chex.assert_shape(u_accept, (batch, gamma))
  chex.assert_shape(u_next, (batch,))
