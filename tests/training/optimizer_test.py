"""Schedules by value, and that the optimizers optimise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from speccascade_jax.training import optimizer


@pytest.mark.parametrize(
  'decay, expected',
  [
    # Steps 0, 4, 9 (the end of warm-up), 39, 99 and 199.
    ('constant', [0.1, 0.5, 1.0, 1.0, 1.0, 1.0]),
    ('rsqrt', [0.1, 0.5, 1.0, 0.5, 0.1**0.5, 0.05**0.5]),
    ('linear', [0.1, 0.5, 1.0, 1 - 0.9 * 30 / 90, 0.1, 0.1]),
    (
      'cosine',
      [0.1, 0.5, 1.0, 0.1 + 0.45 * (1 + np.cos(np.pi / 3)), 0.1, 0.1],
    ),
  ],
)
def test_schedule_values(decay, expected):
  rate = optimizer.schedule(
    peak=1.0, warmup_steps=10, decay=decay, decay_steps=100, floor=0.1
  )
  steps = jnp.array([0, 4, 9, 39, 99, 199])
  np.testing.assert_allclose(rate(steps), expected, rtol=1e-5)


def test_a_schedule_scales_with_its_peak():
  small = optimizer.schedule(1e-3, 10)
  large = optimizer.schedule(1e-2, 10)
  steps = jnp.arange(50)
  np.testing.assert_allclose(10 * small(steps), large(steps), rtol=1e-5)


def test_cooldown_ends_with_the_last_step_that_learns():
  steps = jnp.arange(8)
  found = [float(optimizer.cooldown(s, jnp.int32(3), 4)) for s in steps]
  np.testing.assert_allclose(found, [1, 1, 1, 1, 0.75, 0.5, 0.25, 0])
  assert float(optimizer.cooldown(jnp.int32(9), jnp.int32(3), 0)) == 1.0


@pytest.mark.parametrize(
  'arguments, message',
  [
    (dict(decay='exponential'), "'exponential'"),
    (dict(warmup_steps=0), 'warmup_steps must be at least 1, got 0'),
    (dict(decay='linear'), 'decay_steps.*got None'),
    (dict(decay='cosine', decay_steps=5), 'got 5'),
  ],
)
def test_schedule_errors_name_the_value(arguments, message):
  with pytest.raises(ValueError, match=message):
    optimizer.schedule(**(dict(peak=1.0, warmup_steps=10) | arguments))


def test_clip_norm_has_to_be_positive():
  with pytest.raises(ValueError, match='got 0'):
    optimizer.adamw(clip_norm=0)


@pytest.mark.parametrize('make', [optimizer.adamw, optimizer.adafactor])
def test_an_optimizer_finds_the_minimum(make):
  target = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)
  params = {'w': jnp.full((3, 4), 0.5)}
  opt = make()
  state = opt.init(params)

  @jax.jit
  def step(params, state, rate):
    grads = jax.tree.map(lambda w: w - target, params)
    updates, state = opt.update(grads, state, params)
    params = jax.tree.map(lambda p, u: p + rate * u, params, updates)
    return params, state

  for i in range(400):
    params, state = step(params, state, 0.05 * (1 - i / 400))
  np.testing.assert_allclose(params['w'], target, atol=0.02)


def test_the_first_adamw_step_is_the_learning_rate_wide():
  params = {'w': jnp.zeros((2, 2))}
  opt = optimizer.adamw()
  updates, _ = opt.update(
    {'w': jnp.full((2, 2), 7.0)}, opt.init(params), params
  )
  # Adam's first step has size one whatever the gradient's size is.
  np.testing.assert_allclose(updates['w'], -np.ones((2, 2)), rtol=1e-5)


def test_clipping_bounds_the_gradient_and_spares_small_ones():
  params = {'w': jnp.zeros((2,))}
  opt = optimizer._clipped(1.0, optax.scale(-1.0))
  big, _ = opt.update({'w': jnp.array([3.0, 4.0])}, opt.init(params), params)
  np.testing.assert_allclose(big['w'], [-0.6, -0.8], rtol=1e-6)
  small, _ = opt.update({'w': jnp.array([0.3, 0.4])}, opt.init(params), params)
  np.testing.assert_allclose(small['w'], [-0.3, -0.4], rtol=1e-6)


def test_weight_decay_is_for_matrices_alone():
  params = {
    'kernel': jnp.ones((2, 2)),
    'scale': jnp.ones((2,)),
    'rel_embedding': jnp.ones((2, 2)),
  }
  opt = optimizer.adamw(weight_decay=0.1)
  zero = jax.tree.map(jnp.zeros_like, params)
  updates, _ = opt.update(zero, opt.init(params), params)
  np.testing.assert_allclose(updates['kernel'], -0.1, rtol=1e-6)
  assert not updates['scale'].any()
  assert not updates['rel_embedding'].any()
