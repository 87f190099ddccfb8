"""One step: accumulation, donation, randomness, compilation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax.training import forward
from speccascade_jax.training import optimizer
from speccascade_jax.training import train_state
from speccascade_jax.training import train_step
from tests.training import tiny_run

_BIGRAM = train_step.teacher_forcing(tiny_run.bigram)
_SCHEDULE = optimizer.schedule(1e-2, 1, 'constant')


def _without_dropout(params, frozen, batch, key):
  del key
  return _BIGRAM(params, frozen, batch, None)


def _make(loss=_without_dropout, **options):
  return train_step.make(loss, optimizer.adamw(), _SCHEDULE, **options)


def _state(params=None, averaged=False):
  params = tiny_run.bigram_params() if params is None else params
  return train_state.create(params, optimizer.adamw(), 1000, averaged)


def _largest_difference(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return max(float(np.abs(x - y).max()) for x, y in pairs)


def test_accumulated_gradients_are_those_of_the_whole_batch():
  batch = tiny_run.batch(0, rows=8)
  # Padding is uneven, so that a mean of the parts' means would be wrong.
  lengths = batch['loss_weights'].reshape(4, 2, -1).sum(axis=(1, 2))
  assert len(set(lengths)) > 1
  whole, whole_sums = _make()(_state(), None, batch)
  parts, parts_sums = _make(microbatches=4)(_state(), None, batch)
  moments = (s.opt_state[0].mu for s in (whole, parts))
  assert _largest_difference(*moments) < 1e-7
  assert _largest_difference(whole.params, tiny_run.bigram_params()) > 1e-3
  for name, value in whole_sums.items():
    np.testing.assert_allclose(parts_sums[name], value, rtol=1e-5)


def test_microbatches_have_to_divide_the_batch():
  step = _make(microbatches=3)
  with pytest.raises(ValueError, match='4 rows.*microbatches=3'):
    step(_state(), None, tiny_run.batch(0))
  with pytest.raises(ValueError, match='at least 1, got 0'):
    _make(microbatches=0)


def test_each_microbatch_has_a_dropout_mask_of_its_own():
  batch = tiny_run.batch(0, rows=4)
  twice = jax.tree.map(lambda x: np.concatenate([x, x]), batch)
  _, one = _make(_BIGRAM)(_state(), None, batch)
  _, two = _make(_BIGRAM, microbatches=2)(_state(), None, twice)
  # With one mask for both halves, the mean would be that of either half.
  masks = [
    jax.random.fold_in(jax.random.fold_in(jax.random.key(0, impl='rbg'), 0), i)
    for i in range(2)
  ]
  halves = [
    float(_BIGRAM(tiny_run.bigram_params(), None, batch, m)['loss'])
    for m in masks
  ]
  assert halves[0] != pytest.approx(halves[1])
  assert float(two['loss']) == pytest.approx(sum(halves), rel=1e-5)
  assert float(one['loss']) != pytest.approx(halves[0])


def test_a_step_donates_its_state():
  state = _state(averaged=True)
  _make(average_decay=0.9)(state, None, tiny_run.batch(0))
  leaves = jax.tree.leaves((state.params, state.opt_state, state.average))
  assert all(leaf.is_deleted() for leaf in leaves)


def test_dropout_is_a_function_of_seed_and_step_and_nothing_recompiles():
  step, batch = _make(_BIGRAM), tiny_run.batch(0)

  def loss(number, step=step):
    state = _state()
    at = train_state.TrainState(
      step=jnp.int32(number),
      cooldown_start=state.cooldown_start,
      params=state.params,
      opt_state=state.opt_state,
      average=None,
    )
    return float(step(at, None, batch)[1]['loss'])

  assert loss(0) == loss(0)
  assert loss(0) != loss(5)
  assert step._cache_size() == 1
  assert loss(0, _make(_BIGRAM, seed=1)) != loss(0)


def test_a_batch_without_targets_changes_nothing():
  batch = tiny_run.batch(0)
  batch['loss_weights'] = np.zeros_like(batch['loss_weights'])
  state, sums = _make()(_state(), None, batch)
  assert float(sums['weight']) == 0.0
  assert _largest_difference(state.params, tiny_run.bigram_params()) == 0.0


def test_the_average_follows_the_parameters():
  step = _make(average_decay=0.99)
  state = _state(averaged=True)
  expected = np.asarray(state.params['table'])
  for i in range(3):
    state, _ = step(state, None, tiny_run.batch(i))
    decay = min(0.99, (1 + i) / (10 + i))
    expected = decay * expected + (1 - decay) * state.params['table']
  assert _largest_difference(state.average['table'], expected) < 1e-6
  assert _largest_difference(state.average, state.params) > 1e-4
  assert state.eval_params is state.average


def test_a_t5_learns_a_handful_of_sentences_by_heart():
  loss = tiny_run.loss()
  step = _make(lambda params, frozen, batch, _: loss(params, None, batch, None))
  state, batch = _state(tiny_run.params()), tiny_run.batch(0)
  losses = []
  for _ in range(300):
    state, sums = step(state, None, batch)
    losses.append(float(sums['loss'] / sums['weight']))
  assert losses[0] > 2.5
  assert losses[-1] < 0.02
  assert float(sums['correct']) == float(sums['weight'])


def test_bf16_computes_close_to_float32_and_keeps_float32_parameters():
  half = dataclasses.replace(tiny_run.CONFIG, dtype='bfloat16')
  batch = tiny_run.batch(0)
  loss = train_step.teacher_forcing(forward.teacher_forced(half))
  params = tiny_run.params()
  grads = jax.eval_shape(
    jax.grad(lambda p: loss(p, None, batch, None)['loss']), params
  )
  assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype('float32')}
  found = float(train_step.make_eval(loss)(params, None, batch)['nll'])
  exact = train_step.make_eval(tiny_run.loss())(params, None, batch)['nll']
  assert found != float(exact)
  assert found == pytest.approx(float(exact), rel=0.02)
