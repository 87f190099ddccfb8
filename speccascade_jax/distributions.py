"""Distributions over the vocabulary: scaling, distances and drawing.

Every guard against what floating point does to probabilities lives in this
module, beside its reason, so that rules and verification read like their
equations. All functions take any leading dimensions and compute in float32.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base
from speccascade_jax import static

# Below the smallest normal float32, hardware may or may not flush to zero:
# `p > 0` can hold where `log(p)` is -inf, and 0 * -inf is NaN.
_TINY = float(jnp.finfo(jnp.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Scaling:
  """How logits become the distribution that is sampled; hashable, jit-static.

  Truncations apply in the order top-k, top-p, min-p, eta, each to the
  renormalised outcome of the one before. Tokens tied with the last one kept
  are kept too, so that a truncation depends on probabilities alone, not on
  token ids.

  Attributes:
    greedy: temperature 0, the one-hot arg max (lowest id among ties).
    top_k: keep the k most probable tokens.
    top_p: keep the most probable tokens that together reach this mass.
    min_p: keep tokens with at least this fraction of the largest probability.
    eta: keep tokens of at least `min(eta, sqrt(eta) exp(-H(p)))`, that is, of
      this probability, and below it those that are likely for a distribution
      of that entropy (Hewitt et al., 2022).
  """

  greedy: bool = False
  top_k: int | None = None
  top_p: float | None = None
  min_p: float | None = None
  eta: float | None = None

  def __post_init__(self):
    """Refuses settings that would keep nothing or mean nothing."""
    if not isinstance(self.greedy, (bool, np.bool_)):
      raise ValueError(f'greedy must be True or False, got {self.greedy!r}.')
    object.__setattr__(self, 'greedy', bool(self.greedy))
    if self.top_k is not None:
      top_k = static.positive_integer('top_k', self.top_k)
      object.__setattr__(self, 'top_k', top_k)
    for name in ('top_p', 'min_p', 'eta'):
      value = getattr(self, name)
      if value is not None and not 0.0 < value <= 1.0:
        raise ValueError(f'{name} must be in (0, 1] or None, got {value!r}.')


def softmax(logits: base.Array) -> base.Array:
  """Unscaled probabilities `[..., V]` of logits `[..., V]`, in float32."""
  return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)


def confidences(
  logits: base.Array, temperature: base.Array | None = None
) -> base.Array:
  """What rules take for confidences: `softmax`, of calibrated logits.

  Args:
    logits: `[..., V]`.
    temperature: that the model's probabilities are right at (Guo et al.,
      2017); None leaves them as they are. It has no part in `scale`: what is
      sampled, mixed and measured with D_TV has the temperature of sampling
      and the truncation, a confidence has neither.
  """
  if temperature is None:
    return softmax(logits)
  return jax.nn.softmax(logits.astype(jnp.float32) / temperature, axis=-1)


def argmax(logits: base.Array) -> base.Array:
  """The token `[...]` int32 of the largest of `logits [..., V]`.

  Ties go to the lowest token id, as with `jnp.argmax`. Two plain reductions,
  because a CPU does not vectorise the one that carries an index: one row takes
  5 us where `jnp.argmax` takes 19 (V = 4,096), and 0.25 ms against 1.2 ms
  (V = 262,144).
  """
  size = logits.shape[-1]
  is_largest = logits == logits.max(axis=-1, keepdims=True)
  ids = jnp.where(is_largest, jnp.arange(size, dtype=jnp.int32), size - 1)
  return ids.min(axis=-1)


def scale(
  logits: base.Array, scaling: Scaling, temperature: float | base.Array
) -> base.Array:
  """The distribution that is sampled: temperature first, then truncation.

  Args:
    logits: `[..., V]`, at least one of them finite.
    scaling: greedy or not, and the truncation (static).
    temperature: above 0 (may be traced); not read when `scaling.greedy`.

  Returns:
    Probabilities `[..., V]`, float32.
  """
  logits = logits.astype(jnp.float32)
  if scaling.greedy:
    return jax.nn.one_hot(argmax(logits), logits.shape[-1])
  # The maximum goes before the division: at small temperatures the quotient
  # overflows, and inf - inf is NaN; 0 / T is 0 and -inf is a zero weight.
  # A denormal temperature may be flushed to 0, and 0 / 0 is NaN again.
  centred = logits - logits.max(axis=-1, keepdims=True)
  temperature = jnp.maximum(temperature, _TINY)
  probs = jax.nn.softmax(centred / temperature, axis=-1)
  if scaling.top_k is not None:
    k = scaling.top_k
    probs = _keep_top(probs, lambda kept: (kept > 0.0).sum(axis=-1) >= k)
  if scaling.top_p is not None:
    mass = scaling.top_p
    probs = _keep_top(probs, lambda kept: kept.sum(axis=-1) >= mass)
  if scaling.min_p is not None:
    least = scaling.min_p * probs.max(axis=-1, keepdims=True)
    probs = _normalise(jnp.where(probs >= least, probs, 0.0))
  if scaling.eta is not None:
    typical = jnp.exp(-entropy(probs))[..., None]
    least = jnp.minimum(scaling.eta, math.sqrt(scaling.eta) * typical)
    # exp(-H) <= max p, but for rounding, which must not drop every token.
    least = jnp.minimum(least, probs.max(axis=-1, keepdims=True))
    probs = _normalise(jnp.where(probs >= least, probs, 0.0))
  return probs


def _keep_top(
  probs: base.Array, enough: Callable[[base.Array], base.Array]
) -> base.Array:
  """Keeps the largest probabilities that are `enough`, and all their ties.

  Finds the largest threshold t for which the tokens with `probs >= t` are
  enough by bisection over the bits of t (floats of one sign are ordered like
  the integers with the same bits): 30 sums over V instead of a sort of it. On
  2 CPU cores top-p of one row of 262,144 takes 8 ms, and with a sort 442 ms.
  Where nothing is enough (k > V, or a mass of 1 that rounding has made
  0.9999999) everything is kept.

  Args:
    probs: `[..., V]`, values in [0, 1].
    enough: of what is kept `[..., V]`, whether that suffices `[...]`.
  """

  def keep(bits: base.Array) -> base.Array:
    threshold = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return jnp.where(probs >= threshold[..., None], probs, 0.0)

  def halve(_, bounds):
    low, high = bounds
    middle = low + (high - low) // 2
    suffices = enough(keep(middle))
    return jnp.where(suffices, middle, low), jnp.where(suffices, high, middle)

  low = jnp.zeros(probs.shape[:-1], jnp.int32)
  high = jnp.full_like(
    low, jax.lax.bitcast_convert_type(jnp.float32(2.0), jnp.int32)
  )
  # The bits of 2.0 are 2^30.
  return _normalise(keep(jax.lax.fori_loop(0, 30, halve, (low, high))[0]))


def _normalise(weights: base.Array) -> base.Array:
  """Weights `[..., V]` over their sum; some weight must be positive."""
  return weights / weights.sum(axis=-1, keepdims=True)


def total_variation(p: base.Array, q: base.Array) -> base.Array:
  """`D_TV(p, q) = sum_v max(0, p(v) - q(v))`, shape `[...]`."""
  return residual(p, q).sum(axis=-1)


def surprisal(p: base.Array) -> base.Array:
  """`-log p(v)` in nats, `[..., V]`; infinite, never NaN, at zero."""
  return jnp.where(p < _TINY, jnp.inf, -jnp.log(jnp.maximum(p, _TINY)))


def entropy(p: base.Array) -> base.Array:
  """Shannon entropy of `p [..., V]` in nats, shape `[...]`; 0 log 0 = 0."""
  safe = jnp.where(p < _TINY, 1.0, p)  # 1 log 1 = 0, without a NaN on the way.
  return -(safe * jnp.log(safe)).sum(axis=-1)


def residual(pi: base.Array, q: base.Array) -> base.Array:
  """`max(0, pi - q)`, the unnormalised law after a rejection, `[..., V]`."""
  return jnp.maximum(pi - q, 0.0)


def lenient(p: base.Array, alpha: base.Array) -> base.Array:
  """`p / (1 - alpha)` for alpha clipped to [0, 1], infinite at alpha = 1.

  The limit of a zero probability at alpha = 1 is taken to be infinite too: the
  end of the range is "every drafted token is good enough", not "every drafted
  token that the verifier does not exclude". Outside of [0, 1] there is nothing
  beyond the ends of the range.
  """
  share = 1.0 - jnp.clip(alpha, 0.0, 1.0)
  safe = jnp.where(share > 0.0, share, 1.0)
  return jnp.where(share > 0.0, p / safe, jnp.inf)


def ratio(part: base.Array, whole: base.Array) -> base.Array:
  """`part / whole` with 0 / 0 = 0, and never infinite for parts up to 1.

  A token of weight zero is never drafted and a residual without mass is never
  drawn from: what matters is that no NaN (0 / 0, or later 0 * inf) gets out.
  """
  return part / jnp.maximum(whole, _TINY)


def penalty(alpha: base.Array, distance: base.Array) -> base.Array:
  """`alpha * distance`, and 0 at distance 0 for an infinite alpha as well."""
  return jnp.where(distance > 0.0, alpha * distance, 0.0)


# Tokens a block of `draw`; any of 64 .. 512 costs about the same.
_BLOCK = 256


def draw(weights: base.Array, u: base.Array) -> base.Array:
  """Draws tokens by inverse CDF in two levels, with one uniform each.

  The vocabulary is cut into blocks. The sums of the blocks choose one of them,
  and only that one is accumulated: no scan over the whole vocabulary (slow, and
  its rounding errors pile up), no noise for every token of it.

  Chosen by measurement. Microseconds a call (best of many, jitted, jax 0.10.2
  on 2 cores of an AMD EPYC with AVX-512, other work running beside it), by
  `experiments/benchmarks/sampling.py`::

          V  rows     draw   cumsum + searchsorted   Gumbel arg max
      4,096     1       24                      43              160
      4,096     8       66                     127              970
     32,128     1       47                     117            1,358
     32,128     8      257                   1,184            7,477
    262,144     1       83                   1,341           19,905
    262,144     8      501                  43,393          260,415

  A token of weight zero is never returned, whatever u and rounding are. The
  probability of a token is right to about 2^-23 absolutely, which is as fine
  as float32 uniforms are spaced.

  Beside a step of a drafter in the shape of T5 v1.1 small (batch 1, float32),
  all of sampling adds from nothing to 5 % (V = 32,128, 8.7 ms a step) and 2 to
  10 % (V = 262,144, 23 ms), top-k and top-p being the upper ends:
  `experiments/benchmarks/sampling_share.py`.

  Args:
    weights: `[..., V]`, nonnegative, some of them positive; they need not sum
      to one.
    u: `[...]` uniforms in [0, 1).

  Returns:
    Tokens `[...]`, int32.
  """
  chex.assert_shape(u, weights.shape[:-1])
  size = weights.shape[-1]
  width = min(_BLOCK, size)
  padding = [(0, 0)] * u.ndim + [(0, -size % width)]
  blocks = jnp.pad(weights, padding).reshape(*u.shape, -1, width)
  sums = blocks.sum(axis=-1)
  block, rest = _invert(sums, u * sums.sum(axis=-1))
  chosen = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)
  token, _ = _invert(chosen[..., 0, :], rest)
  return (block * width + token).astype(jnp.int32)


def _invert(
  weights: base.Array, mass: base.Array
) -> tuple[base.Array, base.Array]:
  """Where the cumulative weight first exceeds `mass`.

  Args:
    weights: `[..., N]`, some of them positive.
    mass: `[...]`.

  Returns:
    The index `[...]` and how much of `mass` is left behind the weights before
    it `[...]`.
  """
  cumulative = jnp.cumsum(weights, axis=-1)
  # A parallel cumsum adds its prefixes in different orders, so that it may
  # step over a weight of zero, and end below a total summed in another order:
  # only positive weights count, the last of them where the total is missed.
  positive = weights > 0.0
  hit = (cumulative > mass[..., None]) & positive
  last = weights.shape[-1] - 1 - jnp.argmax(positive[..., ::-1], axis=-1)
  index = jnp.where(hit.any(axis=-1), jnp.argmax(hit, axis=-1), last)
  before = jnp.take_along_axis(
    cumulative, jnp.maximum(index - 1, 0)[..., None], axis=-1
  )[..., 0]
  return index, mass - jnp.where(index > 0, before, 0.0)
