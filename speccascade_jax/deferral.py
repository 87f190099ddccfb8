"""Deferral rules: what should be emitted, given drafter and verifier.

A rule is a pure function with one signature, `base.Rule`::

  rule(q, p, q_conf, p_conf, alpha) -> Target (or the target law pi alone)

`q` and `p` are the scaled distributions of drafter and verifier, `[..., V]`:
they are mixed, sampled and measured with D_TV. `q_conf` and `p_conf` are the
unscaled ones and decide about confidence. `alpha` is a traced scalar; a larger
one trusts the drafter more. Comparisons are strict as the paper writes them.

Equations are those of Narasimhan et al., "Faster Cascades via Speculative
Decoding", ICLR 2025. A rule of your own is one more such function::

  def careful_diff(q, p, q_conf, p_conf, alpha):
    sure = q_conf.max(-1) > 0.5
    defer = ~sure | (q_conf.max(-1) < p_conf.max(-1) - alpha)
    return deferral.mix(q, p, defer)

Rules that say how a drafted token is kept, rather than how confident a model
must be, are written in `acceptance`; they are rules like all others.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
from jax.interpreters import partial_eval
import jax.numpy as jnp
import numpy as np

from speccascade_jax import acceptance
from speccascade_jax import base
from speccascade_jax import distributions


def verifier_only(q, p, q_conf, p_conf, alpha):
  """Lossless speculative decoding: the target is `p`. Ignores alpha."""
  del q_conf, p_conf, alpha
  return mix(q, p, jnp.ones(q.shape[:-1], bool))


def drafter_only(q, p, q_conf, p_conf, alpha):
  """The drafter at full speed: the target is `q`. Ignores alpha."""
  del q_conf, p_conf, alpha
  return mix(q, p, jnp.zeros(q.shape[:-1], bool))


def chow(q, p, q_conf, p_conf, alpha):
  """Defers where `max q < 1 - alpha` (eq. 2)."""
  del p_conf
  return mix(q, p, q_conf.max(-1) < 1.0 - alpha)


def chow_log(q, p, q_conf, p_conf, alpha):
  """Defers where `H(q) > alpha`, in nats (appendix D)."""
  del p_conf
  return mix(q, p, distributions.entropy(q_conf) > alpha)


def diff(q, p, q_conf, p_conf, alpha):
  """Defers where `max q < max p - alpha` (eq. 5)."""
  return mix(q, p, q_conf.max(-1) < p_conf.max(-1) - alpha)


def diff_log(q, p, q_conf, p_conf, alpha):
  """Defers where `H(q) > H(p) + alpha`, in nats (appendix D)."""
  h_q, h_p = distributions.entropy(q_conf), distributions.entropy(p_conf)
  return mix(q, p, h_q > h_p + alpha)


def opt(q, p, q_conf, p_conf, alpha):
  """Defers where `max q < max p - alpha D_TV(p, q)` (eq. 10).

  The plug-in estimate of the optimal rule (Lemma 4): a deferral costs a
  rejection with probability D_TV(p, q), of the scaled distributions.
  """
  cost = distributions.penalty(alpha, distributions.total_variation(p, q))
  return mix(q, p, q_conf.max(-1) < p_conf.max(-1) - cost)


def opt_log(q, p, q_conf, p_conf, alpha):
  """Defers where `H(q) > H(p) + alpha D_TV(p, q)` (appendix D)."""
  cost = distributions.penalty(alpha, distributions.total_variation(p, q))
  h_q, h_p = distributions.entropy(q_conf), distributions.entropy(p_conf)
  return mix(q, p, h_q > h_p + cost)


def token_v1(q, p, q_conf, p_conf, alpha):
  """Defers tokens with `q(v) < max p - alpha` (eq. 11, 13)."""
  return mix_tokens(q, p, q_conf < p_conf.max(-1, keepdims=True) - alpha)


def token_v2(q, p, q_conf, p_conf, alpha):
  """Defers tokens with `p(v) < max p - alpha` (eq. 14)."""
  del q_conf
  return mix_tokens(q, p, p_conf < p_conf.max(-1, keepdims=True) - alpha)


def token_v3(q, p, q_conf, p_conf, alpha):
  """Defers tokens with `p(v) < (1 - alpha) max p` (eq. 15)."""
  del q_conf
  limit = (1.0 - alpha) * p_conf.max(-1, keepdims=True)
  return mix_tokens(q, p, p_conf < limit)


def ensemble(q, p, q_conf, p_conf, alpha):
  """Static ensembling: `pi = alpha q + (1 - alpha) p`, lambda = 1 - alpha.

  alpha is clipped to [0, 1]. At temperature 0 the arg max of one model or of
  the other is emitted, with these odds: what is mixed are the scaled laws.
  """
  del q_conf, p_conf
  share = jnp.clip(jnp.asarray(alpha, jnp.float32), 0.0, 1.0)
  deferral = jnp.broadcast_to(1.0 - share, q.shape[:-1])
  return base.Target(pi=share * q + (1.0 - share) * p, deferral=deferral)


# Rules by how a drafted token is accepted go by these names as well.
lossy = acceptance.lossy
lossy_exact = acceptance.lossy_exact
typical = acceptance.typical
bild_fixed = acceptance.bild_fixed

# Every rule that ships, with the alphas (verifier end, drafter end) between
# which it runs from verifier-only to drafter-only; None where alpha is ignored.
# The comparisons are strict, so that at alpha = 0 `chow` still keeps a drafter
# of confidence 1, `chow_log` one of entropy 0, and `token_v3` the verifier's
# own arg max; any alpha below is verifier-only. Entropies are at most log V,
# which bounds `chow_log` and `diff_log` in practice; what `opt` and `opt_log`
# need depends on D_TV.
RULES: dict[base.Rule, tuple[float, float] | None] = {
  verifier_only: None,
  drafter_only: None,
  chow: (0.0, 1.0),
  chow_log: (0.0, math.inf),
  diff: (-1.0, 1.0),
  diff_log: (-math.inf, math.inf),
  opt: (-math.inf, math.inf),
  opt_log: (-math.inf, math.inf),
  token_v1: (-1.0, 1.0),
  token_v2: (-1.0, 1.0),
  token_v3: (0.0, 1.0),
  lossy: (0.0, 1.0),
  lossy_exact: (0.0, 1.0),
  typical: (-math.inf, 1.0),
  bild_fixed: (0.0, math.inf),
  ensemble: (0.0, 1.0),
}


def mix(q: base.Array, p: base.Array, defer: base.Array) -> base.Target:
  """`(1 - r) q + r p`: a position belongs to one model or the other (eq. 2).

  Args:
    q: `[..., V]` scaled drafter distribution.
    p: `[..., V]` scaled verifier distribution.
    defer: `[...]` bool, r.
  """
  pi = jnp.where(defer[..., None], p, q)
  return base.Target(pi=pi, deferral=defer.astype(jnp.float32))


def mix_tokens(q: base.Array, p: base.Array, defer: base.Array) -> base.Target:
  """`q(v) (1 - r(v)) + p(v) eta`, `eta = sum_v r(v) q(v)` (eq. 11).

  Args:
    q: `[..., V]` scaled drafter distribution.
    p: `[..., V]` scaled verifier distribution; it gets the deferred mass.
    defer: `[..., V]` bool, r.
  """
  eta = jnp.where(defer, q, 0.0).sum(-1)
  pi = jnp.where(defer, 0.0, q) + p * eta[..., None]
  return base.Target(pi=pi, deferral=eta)


def apply(
  rule: base.Rule,
  q: base.Array,
  p: base.Array,
  q_conf: base.Array,
  p_conf: base.Array,
  alpha: base.Array,
) -> base.Target:
  """Calls a rule and checks what it returns, see `as_target`."""
  return as_target(rule(q, p, q_conf, p_conf, alpha), q, _name(rule))


@functools.lru_cache(maxsize=64)  # It is asked at every call of a loop.
def check_defers(rule: base.Rule, vocab_size: int = 3) -> None:
  """Refuses a rule that does not say what it hands to the verifier.

  Such as `lossy`, or one that returns pi alone: a cascade has nothing to go by.

  Args:
    rule: tried on one pair of distributions.
    vocab_size: V of these; a rule may hold arrays `[V]` of its own.

  Raises:
    ValueError: the rule's deferral is not a number.
  """
  if not np.isfinite(example_target(rule, vocab_size).deferral).all():
    raise ValueError(
      f'{_name(rule)} does not say how much it defers, and a cascade that '
      'calls the verifier where the rule defers needs that. Return a Target '
      'with its deferral, as `mix` does.'
    )


def _examples(vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
  """Distributions `[V]` of a drafter and a verifier to try a rule on."""
  q = np.arange(1.0, vocab_size + 1)
  return q / q.sum(), q[::-1] / q.sum()


@functools.lru_cache(maxsize=64)  # As above.
def example_target(rule: base.Rule, vocab_size: int = 3) -> base.Target:
  """What a rule makes of one pair of distributions `[1, V]`, in NumPy."""
  return _tried(rule, *_examples(vocab_size))


def _tried(rule: base.Rule, q: Any, p: Any) -> base.Target:
  """What a rule says of `q [V]` and `p [V]` at alpha 0.3, in NumPy."""
  # Under an outer jit as well, these are numbers and no tracers.
  with jax.ensure_compile_time_eval():
    q, p = (jnp.asarray([x], jnp.float32) for x in (q, p))
    return jax.device_get(apply(rule, q, p, q, p, jnp.float32(0.3)))


@functools.lru_cache(maxsize=64)  # As above.
def check_drafter_decides(rule: base.Rule, vocab_size: int = 3) -> None:
  """Refuses a rule that needs the verifier to know whether to defer.

  The deferral may read neither p nor p_conf, and pi may mix p in, with the
  deferral for its weight, but not read p_conf. `chow` and `chow_log` are such
  rules, and so is `ensemble`.

  Args:
    rule: traced, and tried on one pair of distributions.
    vocab_size: as in `check_defers`.

  Raises:
    ValueError: otherwise, with the name of what is read.
  """
  jaxpr = _traced(rule, vocab_size)
  outputs, arguments = ('pi', 'deferral'), ('q', 'p', 'q_conf', 'p_conf')
  reads = [
    argument
    for output, forbidden in (
      ('deferral', ('p', 'p_conf')),
      ('pi', ('p_conf',)),
    )
    for argument, used in zip(
      arguments, _used(jaxpr, outputs.index(output)), strict=False
    )
    if used and argument in forbidden
  ]
  if reads:
    raise ValueError(
      'A token cascade asks the rule before it asks the verifier, but '
      f'{_name(rule)} reads {reads[0]} to decide. Use a rule on q alone, such '
      'as chow or chow_log, or the oracle cascade.'
    )
  check_defers(rule, vocab_size)
  q, p = _examples(vocab_size)
  whole, without = _tried(rule, q, p), _tried(rule, q, 0.0 * p)
  if not np.allclose(whole.pi, without.pi + whole.deferral * p, atol=1e-5):
    raise ValueError(
      f'A token cascade draws from p what a rule defers, but the pi of '
      f'{_name(rule)} is not some of q plus its deferral times p.'
    )


@functools.lru_cache(maxsize=64)
def reads_confidences(rule: base.Rule, vocab_size: int = 3) -> bool:
  """Whether anything that a rule returns hangs on q_conf or p_conf."""
  jaxpr = _traced(rule, vocab_size)
  outputs = range(len(jaxpr.outvars))
  return any(any(_used(jaxpr, output)[2:4]) for output in outputs)


def _traced(rule: base.Rule, vocab_size: int) -> Any:
  """The jaxpr from (q, p, q_conf, p_conf, alpha) to a Target's fields."""
  some = jax.ShapeDtypeStruct((1, vocab_size), jnp.float32)
  alpha = jax.ShapeDtypeStruct((), jnp.float32)
  return jax.make_jaxpr(functools.partial(apply, rule))(
    *[some] * 4, alpha
  ).jaxpr


def _used(jaxpr: Any, output: int) -> list[bool]:
  """Which arguments of a jaxpr one of its outputs is computed from.

  Dead code elimination knows, inside nested jits and loops as well.
  """
  wanted = [i == output for i in range(len(jaxpr.outvars))]
  _, used = partial_eval.dce_jaxpr(jaxpr, wanted)
  return used


def as_target(out: Any, q: base.Array, name: str = 'the rule') -> base.Target:
  """A rule's result as a `Target` of checked shapes.

  A bare pi is promoted. It does not say what was handed to the verifier, and
  from the law alone that cannot be told: a pi other than q may be q reshaped.
  So its deferral is NaN, and rates of it are left out of summaries.

  Args:
    out: what the rule returned for the drafter distributions `q`.
    q: `[..., V]`.
    name: of the rule, for the error.

  Raises:
    ValueError: a field has another shape than q asks for, or is not floating
      (a deferral may be boolean).
    TypeError: out is neither a Target nor an array.
  """
  if isinstance(out, jax.Array):
    _check(name, 'pi', out, q.shape)
    return base.Target(pi=out, deferral=acceptance.undefined(q))
  if not isinstance(out, base.Target):
    raise TypeError(
      f'Deferral rule {name} must return a Target or the array pi, got '
      f'{type(out).__name__}.'
    )
  for field in ('pi', 'accept', 'residual', 'bonus'):
    value = getattr(out, field)
    if value is not None or field == 'pi':
      _check(name, field, value, q.shape)
  _check(name, 'deferral', out.deferral, q.shape[:-1])
  return dataclasses.replace(out, deferral=out.deferral.astype(jnp.float32))


def _check(name: str, field: str, value: Any, shape: tuple[int, ...]) -> None:
  """One error that names the rule, the field and both shapes."""
  if isinstance(value, jax.Array):
    kinds = [jnp.floating] + [jnp.bool_] * (field == 'deferral')
    fits = any(jnp.issubdtype(value.dtype, kind) for kind in kinds)
    if fits and value.shape == shape:
      return
    got = f'{value.dtype}{list(value.shape)}'
  else:
    got = repr(value)
  raise ValueError(
    f'Deferral rule {name} must return {field} as a floating array of shape '
    f'{list(shape)}, got {got}. Rules see arrays [..., V] and keep their '
    'leading dimensions.'
  )


def _name(rule: base.Rule) -> str:
  """What a user calls the rule; partials have no name of their own."""
  if isinstance(rule, functools.partial):
    return _name(rule.func)
  return getattr(rule, '__name__', repr(rule))
