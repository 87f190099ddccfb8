"""Parts of a model: named, frozen, and borrowed from a teacher."""

import dataclasses

from flax import traverse_util
import jax
import numpy as np
import pytest

from speccascade_jax.checkpoints import translate
from speccascade_jax.models import families
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.training import distillation
from speccascade_jax.training import forward
from speccascade_jax.training import optimizer
from speccascade_jax.training import parts
from speccascade_jax.training import train_state
from speccascade_jax.training import train_step
from tests.training import tiny_run

TEACHER = gemma_config.GemmaConfig(
  vocab_size=tiny_run.CONFIG.vocab_size,
  emb_dim=8,
  num_layers=4,
  num_heads=2,
  num_kv_heads=1,
  head_dim=4,
  mlp_dim=8,
)
STUDENT = dataclasses.replace(TEACHER, num_layers=2)
BORROWED = {
  'token_embedder': 'token_embedder',
  'decoder/final_norm': 'decoder/final_norm',
  'decoder/layers_1': 'decoder/layers_3',
}
FROZEN = ('token_embedder', 'decoder/layers_0/mlp')


def _flat(params):
  return traverse_util.flatten_dict(params, sep='/')


@pytest.fixture(scope='module')
def teacher():
  params = families.init(TEACHER, jax.random.key(1))
  # A fresh Gemma is close to uniform whatever it reads.
  return jax.tree.map(lambda x: 4.0 * x, params)


@pytest.fixture(scope='module')
def student(teacher):
  copied = parts.copies(
    BORROWED, translate.shapes(STUDENT), translate.shapes(TEACHER)
  )
  fresh = parts.init_except(STUDENT, jax.random.key(0), copied)
  return parts.borrow(fresh, copied, teacher)


def test_what_is_borrowed_is_the_teachers_own_array(student, teacher):
  found, theirs = _flat(student), _flat(teacher)
  assert set(found) == set(translate.shapes(STUDENT))
  own = _flat(families.init(STUDENT, jax.random.key(0)))
  for path, value in found.items():
    source = path.replace('layers_1', 'layers_3')
    if path.startswith(tuple(BORROWED)):
      assert value is theirs[source], path
    else:
      np.testing.assert_array_equal(value, own[path])
  assert found['token_embedder/embedding'] is theirs['token_embedder/embedding']


def test_fresh_parameters_that_are_not_wanted_are_not_computed():
  """Of a large vocabulary, they would be most of the time and memory."""
  shapes = translate.shapes(STUDENT)
  excepted = parts.paths(['token_embedder'], shapes, 'excepted')
  rows, width = shapes['token_embedder/embedding']
  whole, rest = (
    jax.jit(init).lower(jax.random.key(0)).as_text()
    for init in (
      lambda key: families.init(STUDENT, key),
      lambda key: parts.init_except(STUDENT, key, excepted),
    )
  )
  assert f'tensor<{rows}x{width}x' in whole
  assert f'tensor<{rows}x{width}x' not in rest


@pytest.fixture(scope='module')
def run(student, teacher):
  """Losses of a few steps, and the parameters behind them."""
  chosen = parts.paths(FROZEN, translate.shapes(STUDENT), 'train.frozen')
  trained, kept = parts.split(student, chosen)
  loss = parts.loss_of_trained(
    distillation.loss(
      forward.teacher_forced(STUDENT), forward.teacher_forced(TEACHER), 1.0
    )
  )
  adamw = optimizer.adamw()
  step = train_step.make(
    loss,
    adamw,
    optimizer.schedule(1e-2, 1, 'constant'),
    average_decay=0.9,
  )
  # Copies, for the step donates them.
  state = train_state.create(
    jax.tree.map(jax.numpy.copy, trained), adamw, 99, True
  )
  frozen = {parts.OWN: kept, parts.TEACHER: teacher}
  sums = []
  for _ in range(8):
    state, found = step(state, frozen, tiny_run.batch(0))
    sums.append(jax.device_get(found))
  return state, kept, sums, loss


def test_a_few_steps_lower_the_divergence(run):
  sums = run[2]
  assert sums[0]['kl'] > 0.1
  assert sums[-1]['kl'] < 0.8 * sums[0]['kl']


def test_frozen_parts_cost_no_state_and_do_not_move(run, student):
  state, kept, _, _ = run
  frozen = set(_flat(kept))
  assert frozen == {
    'token_embedder/embedding',
    *(f'decoder/layers_0/mlp/{name}/kernel' for name in ('wi_0', 'wi_1', 'wo')),
  }
  for tree in (state.params, state.average):
    assert not frozen & set(_flat(tree))
  sizes = {leaf.size for leaf in jax.tree.leaves(state.opt_state)}
  assert student['token_embedder']['embedding'].size not in sizes
  # Two moments of what is trained, and Adam's count.
  trained = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
  assert moments == 2 * trained + 1
  whole, before = _flat(parts.merge(state.params, kept)), _flat(student)
  assert set(whole) == set(before)
  for path, value in whole.items():
    same = np.array_equal(value, before[path])
    assert same == (path in frozen), path


def test_the_loss_is_that_of_the_whole_model(run, student, teacher):
  state, kept, sums, loss = run
  whole = distillation.loss(
    forward.teacher_forced(STUDENT), forward.teacher_forced(TEACHER), 1.0
  )(student, teacher, tiny_run.batch(0), None)
  np.testing.assert_allclose(sums[0]['loss'], whole['loss'], rtol=1e-5)
  abstract = jax.eval_shape(
    jax.grad(lambda *arguments: loss(*arguments)['loss']),
    state.params,
    {parts.OWN: kept, parts.TEACHER: teacher},
    tiny_run.batch(0),
    None,
  )
  assert not set(_flat(abstract)) & set(_flat(kept))


@pytest.mark.parametrize(
  'names, message',
  [
    (['embedder'], "names 'embedder', but .* has decoder/.*token_embedder/emb"),
    (['decoder/layers_2'], "names 'decoder/layers_2'"),
    (['decoder/layers'], "names 'decoder/layers',"),
  ],
)
def test_a_name_that_matches_nothing_is_refused(names, message):
  with pytest.raises(ValueError, match=f'train.frozen {message}'):
    parts.paths(names, translate.shapes(STUDENT), 'train.frozen')


@pytest.mark.parametrize(
  'changes, names, message',
  [
    (
      dict(emb_dim=12),
      {'token_embedder': 'token_embedder'},
      r"teacher's token_embedder/embedding is \(24, 8\) .* \(24, 12\)",
    ),
    (
      dict(use_qk_norm=True),
      {'decoder/layers_0': 'decoder/layers_1'},
      'built differently; decoder/layers_1/attention/key_norm/scale',
    ),
    ({}, {'decoder/layers_0': 'decoder/layers_4'}, "names 'decoder/layers_4'"),
    ({}, {'decoder/layers_2': 'decoder/layers_0'}, "names 'decoder/layers_2'"),
  ],
)
def test_what_cannot_be_borrowed_is_refused(changes, names, message):
  shapes = translate.shapes(dataclasses.replace(STUDENT, **changes))
  with pytest.raises(ValueError, match=message):
    parts.copies(names, shapes, translate.shapes(TEACHER))
