"""The numbers that a caller gives: what each one may be.

One place for `loops`, which checks a method when it is made, and for the loops
themselves, which may be called without one.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base


def check_alpha(alpha: float | base.Array) -> base.Array:
  """A float32 scalar; infinities are ends of some rules' ranges, NaN is not."""
  check_scalar('alpha', alpha)
  if not isinstance(alpha, jax.core.Tracer) and math.isnan(float(alpha)):
    raise ValueError(f'alpha must be a number, got {alpha!r}.')
  return jnp.asarray(alpha, jnp.float32)


def check_fallback(fallback: float | base.Array) -> float | base.Array:
  """A confidence; none at all is 0, below which nothing is."""
  check_scalar('fallback', fallback)
  if isinstance(fallback, jax.core.Tracer):
    return fallback
  if math.isnan(float(fallback)):
    raise ValueError(f'fallback must be a number, got {fallback!r}.')
  return float(fallback)


def check_quantile(quantile: float | None) -> float | None:
  """None, or a fraction."""
  if quantile is None:
    return None
  check_scalar('quantile', quantile)
  if not 0.0 <= float(quantile) <= 1.0:
    raise ValueError(f'quantile must be in [0, 1] or None, got {quantile!r}.')
  return float(quantile)


def check_confidence_temperatures(
  temperatures: Sequence[float | base.Array] | None,
) -> tuple[base.Array, base.Array] | None:
  """None, or the drafter's and the verifier's, each above 0 and finite."""
  if temperatures is None:
    return None
  name = 'confidence_temperatures'
  values = tuple(temperatures)
  if len(values) != 2:
    raise ValueError(
      f"{name} must be the drafter's and the verifier's, got {temperatures!r}."
    )
  for value in values:
    check_scalar(name, value)
    known = not isinstance(value, jax.core.Tracer)
    if known and not 0.0 < float(value) < math.inf:
      raise ValueError(
        f'{name} must be above 0 and finite, got {temperatures!r}.'
      )
  drafter, verifier = (jnp.asarray(value, jnp.float32) for value in values)
  return drafter, verifier


def check_scalar(name: str, value: Any) -> None:
  """A floating or integer number without dimensions, traced or not."""
  array = value if isinstance(value, jax.Array) else np.asarray(value)
  numeric = any(
    jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer)
  )
  if array.ndim or not numeric:
    raise ValueError(
      f'{name} must be a number, got {value!r}: one scalar of a floating or '
      'integer type.'
    )
