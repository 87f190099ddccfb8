"""Optimizers and learning-rate schedules, all functions of the step alone.

An optimizer here is an optax transformation that returns updates for a
learning rate of one; the train step multiplies them by the schedule's value.
That keeps the schedule a plain function that can be plotted and tested, and
lets a run bring its cool-down forward when its time is up.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from speccascade_jax import base

# schedule(step [] int32) -> [] float32, the learning rate of that step.
Schedule = Callable[[base.Array], base.Array]

_DECAYS = ('rsqrt', 'cosine', 'linear', 'constant')


def adafactor(
  decay_rate: float = 0.8,
  multiply_by_parameter_scale: bool = True,
  clip_norm: float | None = None,
) -> optax.GradientTransformation:
  """Adafactor as T5 is trained with (Shazeer & Stern, 2018), no momentum.

  Args:
    decay_rate: exponent of the second moment's decay, 1 - step^-decay_rate.
    multiply_by_parameter_scale: makes the learning rate relative to the root
      mean square of each parameter.
    clip_norm: bound of the gradient's global norm, besides Adafactor's own
      clipping of each update to a root mean square of one.
  """
  return _clipped(
    clip_norm,
    optax.adafactor(
      learning_rate=None,
      decay_rate=decay_rate,
      multiply_by_parameter_scale=multiply_by_parameter_scale,
      momentum=None,
    ),
  )


def adamw(
  beta1: float = 0.9,
  beta2: float = 0.98,
  epsilon: float = 1e-9,
  weight_decay: float = 0.0,
  clip_norm: float | None = None,
) -> optax.GradientTransformation:
  """Adam with decoupled weight decay on matrices alone.

  Scales of norms and position biases are not decayed.
  """

  def is_matrix(params: base.Params) -> base.Params:
    return jax.tree_util.tree_map_with_path(
      lambda path, leaf: leaf.ndim > 1 and 'rel_embedding' not in str(path),
      params,
    )

  return _clipped(
    clip_norm,
    optax.adamw(
      learning_rate=1.0,
      b1=beta1,
      b2=beta2,
      eps=epsilon,
      weight_decay=weight_decay,
      mask=is_matrix,
    ),
  )


def _clipped(
  clip_norm: float | None, optimizer: optax.GradientTransformation
) -> optax.GradientTransformation:
  if clip_norm is None:
    return optimizer
  if clip_norm <= 0:
    raise ValueError(f'clip_norm must be above 0 or None, got {clip_norm!r}.')
  return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)


def schedule(
  peak: float,
  warmup_steps: int,
  decay: str = 'rsqrt',
  decay_steps: int | None = None,
  floor: float = 0.0,
) -> Schedule:
  """Linear warm-up to `peak`, then a decay.

  Args:
    peak: the learning rate reached after `warmup_steps` steps.
    warmup_steps: at least 1; the first step already learns.
    decay: 'rsqrt' (peak * sqrt(warmup_steps / step), as T5), 'cosine' or
      'linear' (to `floor` at `decay_steps`), or 'constant'.
    decay_steps: the step at which 'cosine' and 'linear' end.
    floor: the least learning rate after warm-up, absolute.
  """
  if decay not in _DECAYS:
    raise ValueError(f'decay must be one of {_DECAYS}, got {decay!r}.')
  if warmup_steps < 1:
    raise ValueError(f'warmup_steps must be at least 1, got {warmup_steps!r}.')
  decay_length = (decay_steps or 0) - warmup_steps
  if decay in ('cosine', 'linear') and decay_length <= 0:
    raise ValueError(
      f'decay={decay!r} ends at decay_steps, which must lie behind '
      f'warmup_steps={warmup_steps}; got {decay_steps!r}.'
    )

  def rate(step: base.Array) -> base.Array:
    # The step about to be made, counted from 1: step 0 must not be lost.
    t = jnp.asarray(step, jnp.float32) + 1.0
    warm = peak * t / warmup_steps
    if decay == 'rsqrt':
      after = peak * jnp.sqrt(warmup_steps / t)
    elif decay == 'constant':
      after = jnp.full_like(t, peak)
    else:
      done = (t - warmup_steps) / decay_length
      left = 1.0 - jnp.clip(done, 0.0, 1.0)
      if decay == 'cosine':
        left = 0.5 * (1.0 - jnp.cos(jnp.pi * left))
      after = floor + (peak - floor) * left
    return jnp.where(t <= warmup_steps, warm, jnp.maximum(after, floor))

  return rate


def cooldown(step: base.Array, start: base.Array, length: int) -> base.Array:
  """The factor of a linear cool-down: 1 until `start`, towards 0 after it.

  The last of its `length` steps, `start + length - 1`, still learns (with
  1 / length); a length of 0 means no cool-down.
  """
  if not length:
    return jnp.ones((), jnp.float32)
  left = (start + length - step).astype(jnp.float32) / length
  return jnp.clip(left, 0.0, 1.0)
