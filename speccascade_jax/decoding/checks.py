"""What a loop refuses, in one sentence, before anything is compiled."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax import distributions
from speccascade_jax import scalars
from speccascade_jax import verification
from speccascade_jax.models import protocol


def check_inputs(inputs: base.Array, keys: base.Array) -> base.Array:
  """`inputs [B, S]` as int32, with `keys [B]` to match."""
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
  return inputs.astype(jnp.int32)


def check_pair(
  drafter: protocol.StepModel, verifier: protocol.StepModel
) -> None:
  """Both models must speak the same tokens."""
  for name in ('vocab_size', 'end_ids'):
    ours, theirs = getattr(drafter, name), getattr(verifier, name)
    if ours != theirs:
      raise ValueError(
        f'drafter and verifier must share a vocabulary: {name} is {ours} in '
        f'the drafter and {theirs} in the verifier.'
      )


def check_judges_short_blocks(verify: base.Verify) -> None:
  """With a fallback every row of a batch ends its block where it likes."""
  if verify is not verification.verify_tokens:
    raise ValueError(
      'With a fallback the rows of a batch draft blocks of different lengths, '
      'which verify_tokens alone can judge; got '
      f'{getattr(verify, "__name__", verify)!r}.'
    )


def check_temperature(
  temperature: float | base.Array, scaling: distributions.Scaling
) -> base.Array:
  """A positive float32 scalar, unless decoding is greedy."""
  scalars.check_scalar('temperature', temperature)
  if scaling.greedy:
    return jnp.float32(1.0)
  if isinstance(temperature, jax.core.Tracer):
    return temperature.astype(jnp.float32)
  if not 0.0 < float(temperature) < math.inf:
    raise ValueError(
      f'temperature must be positive and finite, got {temperature!r}. For '
      'T = 0 use Scaling(greedy=True), or temperature 0 where there is none.'
    )
  return jnp.float32(temperature)
