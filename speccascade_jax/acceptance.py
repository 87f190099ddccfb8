"""Rules that say how a drafted token is accepted: lossy, typical, BiLD*.

They have the one signature of all rules, `base.Rule`, and may prescribe more
than a law: with what probability a drafted token is kept (`accept`), what
replaces it (`residual`), and what follows a fully kept block (`bonus`). Their
`pi` is the law of a position that is reached by keeping all before it.

Because nothing but `p` follows a fully kept block, the law of a text depends
on gamma, and `verification.verify_block`, which emits `pi` at every position,
refuses all of them but `lossy_exact`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax import distributions


def lossy(q, p, q_conf, p_conf, alpha):
  """Lossy speculative decoding with beta = 1, the variant in common use.

  Keeps a drafted token with probability `min(1, p / ((1 - alpha) q))` and
  draws from `norm(max(0, p - q))` after a rejection. What one position emits
  has the law, with `kept = min(q, p / (1 - alpha))` of mass M,

    pi = kept + (1 - M) norm(max(0, p - q)),

  and exact speculative sampling of this pi is the very same procedure. Where
  `p > q`, also `kept = q` and hence `pi >= q`: always kept, and `pi - q` is
  proportional to `p - q`. Elsewhere `pi = kept <= q`: kept with probability
  `pi / q = min(1, p / ((1 - alpha) q))`, and no residual. So the wider
  interface is needed for one thing only: behind a fully kept block the next
  token comes from `p`. That makes the law depend on gamma, and
  `verify_block`, which emits pi at every position, refuses this rule.

  Nothing is handed to the verifier here: the deferral is NaN.

  alpha is clipped to [0, 1]; at 1 every drafted token is kept.
  """
  del q_conf, p_conf
  kept = jnp.minimum(q, distributions.lenient(p, alpha))
  rest = distributions.residual(p, q)
  rejected = distributions.total_variation(q, kept)[..., None]
  pi = kept + rejected * distributions.ratio(rest, rest.sum(-1, keepdims=True))
  return base.Target(pi=pi, deferral=undefined(q), bonus=p)


def lossy_exact(q, p, q_conf, p_conf, alpha):
  """Lossy speculative decoding with the beta that makes it exact (Lemma 2).

    pi = max(min(q, p / (1 - alpha)), p / beta),  sum pi = 1.

  With `c = 1 / beta` the sum grows from at most 1 at c = 0 to at least
  `sum p = 1` at c = 1, with a slope of at most 1: 30 halvings give c to
  float32 precision, and 1 >= c implies `beta >= 1 - alpha`. The deferral is
  NaN, as in `lossy`.

  alpha is clipped to [0, 1]; at 1 every drafted token is kept.
  """
  del q_conf, p_conf
  kept = jnp.minimum(q, distributions.lenient(p, alpha))

  def at(c: base.Array) -> base.Array:
    return jnp.maximum(kept, c[..., None] * p)

  def halve(_, bounds):
    low, high = bounds
    middle = 0.5 * (low + high)
    below = at(middle).sum(-1) < 1.0
    return jnp.where(below, middle, low), jnp.where(below, high, middle)

  zeros = jnp.zeros(q.shape[:-1], q.dtype)
  low, _ = jax.lax.fori_loop(0, 30, halve, (zeros, zeros + 1.0))
  return at(low)


def typical(q, p, q_conf, p_conf, alpha, *, delta=None):
  """Typical acceptance (Cai et al., "Medusa", 2024); epsilon = 1 - alpha.

  Keeps a drafted token v iff

    p(v) > min(epsilon, delta exp(-H(p))),

  of the unscaled verifier: a token is good enough if it is likely, or if the
  verifier is so uncertain that hardly any token is. What replaces a token, and
  what follows a block, is drawn from p. Medusa's own epsilon of 0.09 is
  alpha = 0.91; at alpha = 1 every drafted token is kept. At alpha = 0 those
  are replaced that are less likely than a typical one, and only below 0 the
  rule tends to the verifier alone.

  Args:
    q: `[..., V]` scaled drafter distribution, and so on as for any rule.
    p: see there.
    q_conf: not read.
    p_conf: see there.
    alpha: see above.
    delta: of the entropy's part of the threshold; Medusa's `sqrt(epsilon)` by
      default. Any other leaves tokens that no alpha rejects.
  """
  del q_conf
  epsilon = jnp.maximum(1.0 - jnp.asarray(alpha, jnp.float32), 0.0)
  delta = jnp.sqrt(epsilon) if delta is None else delta
  uncertain = delta * jnp.exp(-distributions.entropy(p_conf))[..., None]
  # As with `lossy`, the end of the range keeps what p excludes, too.
  keep = (p_conf > jnp.minimum(epsilon, uncertain)) | (epsilon == 0.0)
  return keep_or_redraw(q, p, keep)


def bild_fixed(q, p, q_conf, p_conf, alpha):
  """BiLD*: keeps a drafted token v iff `-log p(v) <= alpha`, in nats.

  The rollback test of BiLD (Kim et al., 2023) on blocks of a fixed gamma, of
  the unscaled verifier. What replaces a token, and what follows a block, is
  drawn from p. alpha >= 0; below 0 nothing is kept.
  """
  del q_conf
  return keep_or_redraw(q, p, distributions.surprisal(p_conf) <= alpha)


def undefined(q: base.Array) -> base.Array:
  """The deferral `[...]` of a rule that defers nothing, for `q [..., V]`."""
  return jnp.full(q.shape[:-1], jnp.nan, jnp.float32)


def keep_or_redraw(
  q: base.Array, p: base.Array, keep: base.Array
) -> base.Target:
  """Keeps drafted tokens where `keep`, and draws from `p` otherwise.

  With m the mass of q that is not kept, a position emits

    pi(v) = q(v) keep(v) + m p(v).

  That is no exact speculative sampling of pi: here all of p follows a
  rejection, there only what pi has more of than q. Behind a fully kept block
  p has the word.

  Args:
    q: `[..., V]` scaled drafter distribution.
    p: `[..., V]` scaled verifier distribution.
    keep: `[..., V]` bool.
  """
  rejected = jnp.where(keep, 0.0, q).sum(-1)
  pi = jnp.where(keep, q, 0.0) + rejected[..., None] * p
  return base.Target(
    pi=pi,
    deferral=rejected,
    accept=keep.astype(jnp.float32),
    residual=p,
    bonus=p,
  )
