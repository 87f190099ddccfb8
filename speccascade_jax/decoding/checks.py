"""What a loop refuses, in one sentence, before anything is compiled."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax import distributions
from speccascade_jax import verification
from speccascade_jax.models import protocol


def check_inputs(
  inputs: base.Array, keys: base.Array, max_length: int
) -> base.Array:
  """`inputs [B, S]` as int32, with `keys [B]` and a length limit to match."""
  inputs = jnp.asarray(inputs)
  if inputs.ndim != 2 or not jnp.issubdtype(inputs.dtype, jnp.integer):
    raise ValueError(
      'inputs must be token ids of shape [B, S], got '
      f'{inputs.dtype}{list(inputs.shape)}.'
    )
  if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
    raise ValueError(
      'keys must be typed PRNG keys, for instance jax.random.split('
      f'jax.random.key(0), {inputs.shape[0]}); got dtype {keys.dtype}.'
    )
  if keys.shape != inputs.shape[:1]:
    raise ValueError(
      f'one key a row is needed: inputs have {inputs.shape[0]} rows, keys '
      f'have shape {list(keys.shape)}.'
    )
  if not isinstance(max_length, int) or max_length < 1:
    raise ValueError(
      f'max_length must be a positive integer, got {max_length!r}.'
    )
  return inputs.astype(jnp.int32)


def check_pair(
  drafter: protocol.StepModel, verifier: protocol.StepModel, gamma: int
) -> None:
  """Both models must speak the same tokens; gamma must draft something."""
  for name in ('vocab_size', 'eos_id'):
    ours, theirs = getattr(drafter, name), getattr(verifier, name)
    if ours != theirs:
      raise ValueError(
        f'drafter and verifier must share a vocabulary: {name} is {ours} in '
        f'the drafter and {theirs} in the verifier.'
      )
  if not isinstance(gamma, int) or gamma < 1:
    raise ValueError(
      f'gamma must be a positive integer, got {gamma!r}. To decode without '
      'drafting, use autoregressive.decode.'
    )


def check_alpha(alpha: float | base.Array) -> base.Array:
  """A float32 scalar; infinities are ends of some rules' ranges, NaN is not."""
  if isinstance(alpha, jax.core.Tracer):
    return alpha
  if jnp.ndim(alpha) != 0 or math.isnan(float(alpha)):
    raise ValueError(f'alpha must be a number, got {alpha!r}.')
  return jnp.float32(alpha)


def check_fallback(
  fallback: float | base.Array | None, verify: base.Verify
) -> base.Array | None:
  """A float32 scalar, or None; blocks of any length are judged by tokens."""
  if fallback is None or isinstance(fallback, jax.core.Tracer):
    return fallback
  if jnp.ndim(fallback) != 0 or math.isnan(float(fallback)):
    raise ValueError(f'fallback must be a number, got {fallback!r}.')
  if verify is not verification.verify_tokens:
    raise ValueError(
      'With a fallback the rows of a batch draft blocks of different lengths, '
      'which verify_tokens alone can judge; got '
      f'{getattr(verify, "__name__", verify)!r}.'
    )
  return jnp.float32(fallback)


def check_quantile(quantile: float | None) -> float | None:
  """None, or a fraction."""
  if quantile is not None and not 0.0 <= quantile <= 1.0:
    raise ValueError(f'quantile must be in [0, 1] or None, got {quantile!r}.')
  return quantile


def check_temperature(
  temperature: float | base.Array, scaling: distributions.Scaling
) -> base.Array:
  """A positive float32 scalar, unless decoding is greedy."""
  if isinstance(temperature, jax.core.Tracer):
    return temperature
  if scaling.greedy:
    return jnp.float32(1.0)
  value = float(temperature)
  if not (0.0 < value < math.inf):
    raise ValueError(
      f'temperature must be positive and finite, got {temperature!r}. For '
      'T = 0 use Scaling(greedy=True).'
    )
  return jnp.float32(value)
