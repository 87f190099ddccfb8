"""Two checkpoints into one train state, the way T5X's programs ask for it."""

from __future__ import annotations

import dataclasses

from flax import traverse_util
import jax
import numpy as np
import pytest

import speccascade_jax as sc
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import native
from speccascade_jax.models import families
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config
from tests.t5x import importing

importing.require()

# ruff: noqa: E402
from t5x import train_state as train_state_lib
from t5x import utils

from speccascade_jax.data import vocabulary
from speccascade_jax.inside_t5x import model as model_lib
from speccascade_jax.inside_t5x import restoring
from tests.t5x import steps

DRAFTER = t5_config.T5Config(
  vocab_size=4096,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=1,
  num_decoder_layers=1,
)
VERIFIER = dataclasses.replace(DRAFTER, num_decoder_layers=2)


@pytest.fixture(scope='module')
def params():
  return {
    'drafter': families.init(DRAFTER, jax.random.key(1)),
    'verifier': families.init(VERIFIER, jax.random.key(2)),
  }


@pytest.fixture(scope='module')
def paths(params, tmp_path_factory):
  folder = tmp_path_factory.mktemp('pair')
  native.save(folder / 'native', DRAFTER, params['drafter'])
  return {
    'drafter': steps.save(folder / 'drafter', DRAFTER, params['drafter']),
    'orbax': steps.save(
      folder / 'orbax', DRAFTER, params['drafter'], orbax=True
    ),
    'native': folder / 'native',
    'verifier': steps.save(
      folder / 'verifier', VERIFIER, params['verifier'], step=1200
    ),
  }


def initializer(drafter=DRAFTER, verifier=VERIFIER, optimizer_def=None):
  model = model_lib.SpeculativeCascade(
    verifier=verifier,
    drafter=drafter,
    input_vocabulary=vocabulary.debian(),
    output_vocabulary=vocabulary.debian(),
    rule=sc.opt,
    alpha=0.2,
    gamma=2,
    temperature=0.0,
  )
  return utils.TrainStateInitializer(
    optimizer_def=optimizer_def,
    init_fn=model.get_initial_variables,
    input_shapes=steps.SHAPES,
    partitioner=steps.partitioner(),
  )


def restore(path, drafter_path, state=None, **settings):
  """What infer.py and eval.py do, and a config's bindings."""

  class Manager(restoring.PairCheckpointManager):  # As gin makes it.
    def __init__(self, **arguments):
      super().__init__(drafter_path=str(drafter_path), **arguments)

  restored, _ = utils.create_checkpoint_manager_and_restore(
    state or initializer(),
    steps.partitioner(),
    utils.RestoreCheckpointConfig(
      path=str(path), checkpoint_manager_cls=Manager, **settings
    ),
    str(path),
    settings.get('fallback_to_scratch') and jax.random.PRNGKey(0),
    use_orbax=True,
  )
  return restored


@pytest.mark.parametrize('kind', ['drafter', 'orbax', 'native'])
def test_both_models_are_as_they_were_written(kind, params, paths):
  restored = restore(paths['verifier'], paths[kind])
  assert isinstance(restored, train_state_lib.InferenceState)
  assert int(restored.step) == 1200
  jax.tree.map(
    np.testing.assert_array_equal, restored.params.unfreeze(), params
  )


def test_parameters_lie_where_the_partitioner_says(paths):
  state = initializer()
  restored = restore(
    paths['verifier'], paths['native'], state, dtype='bfloat16'
  )
  axes = traverse_util.flatten_dict(state.train_state_axes.params, sep='/')
  found = traverse_util.flatten_dict(restored.params, sep='/')
  assert {name: x.sharding.spec for name, x in found.items()} == axes
  split = jax.sharding.PartitionSpec('model', None)
  assert axes['drafter/token_embedder/embedding'] == split
  assert {x.dtype.name for x in found.values()} == {'bfloat16'}


def test_of_a_folder_of_steps_the_latest_is_taken(params, paths, tmp_path):
  for step, name in ((9, 'drafter'), (10, 'verifier')):
    config = {'drafter': DRAFTER, 'verifier': VERIFIER}[name]
    steps.save(tmp_path / name, config, params[name], step)
    (tmp_path / name / f'checkpoint_{step}').rename(
      tmp_path / f'checkpoint_{step}'
    )
  (tmp_path / 'checkpoint_11.tmp-123').mkdir()
  assert restoring.config_of(str(tmp_path)) == VERIFIER
  assert int(restore(tmp_path, paths['drafter']).step) == 10


def test_the_shape_is_read_off_a_checkpoint(paths):
  found = restoring.config_of(str(paths['orbax']), dtype='bfloat16')
  assert found == dataclasses.replace(DRAFTER, dtype='bfloat16')
  # As eval.py takes several.
  assert restoring.config_of([str(paths['verifier']), 'more']) == VERIFIER


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'assignment_map': [('a', 'b')]}, 'remove assignment_map'),
    (
      {'assignment_map': [('a', 'b')], 'fallback_to_scratch': True},
      'fallback_to_scratch',
    ),
  ],
)
def test_transformations_are_refused(settings, message, paths):
  with pytest.raises(ValueError, match=message):
    restore(paths['verifier'], paths['drafter'], **settings)


def test_a_model_of_another_shape_is_refused(paths):
  message = (
    'native holds another model than SpeculativeCascade.drafter: '
    r'decoder/decoder_norm/scale is \(16,\) instead of \(32,\)'
  )
  with pytest.raises(errors.CheckpointError, match=message):
    wide = dataclasses.replace(DRAFTER, emb_dim=32)
    restore(paths['verifier'], paths['native'], initializer(drafter=wide))
  with pytest.raises(errors.CheckpointError, match='verifier.*is missing'):
    deep = dataclasses.replace(VERIFIER, num_decoder_layers=3)
    restore(paths['verifier'], paths['native'], initializer(verifier=deep))


def test_no_checkpoint_is_refused(paths, tmp_path):
  with pytest.raises(
    errors.CheckpointError, match='no checkpoint at .*nowhere'
  ):
    restore(paths['verifier'], tmp_path / 'nowhere')


def test_a_gemma_is_refused(tmp_path):
  gemma = gemma_config.GemmaConfig(
    vocab_size=64,
    emb_dim=8,
    num_layers=1,
    num_heads=1,
    num_kv_heads=1,
    head_dim=8,
    mlp_dim=8,
  )
  native.save(tmp_path, gemma, families.init(gemma, jax.random.key(0)))
  with pytest.raises(errors.CheckpointError, match='GemmaConfig; a Speculat'):
    restoring.config_of(str(tmp_path))


def test_a_checkpoint_of_tensorflow_is_refused(paths, tmp_path):
  (tmp_path / 'model.ckpt-1.index').write_bytes(b'')
  with pytest.raises(errors.CheckpointError, match='Convert it'):
    restore(tmp_path / 'model.ckpt-1', paths['drafter'])


def test_other_models_and_training_are_refused(params, paths):
  state = steps.train_state(DRAFTER, params['drafter'], 1)
  with pytest.raises(
    ValueError, match='infer.py and eval.py alone.*OptimTrain'
  ):
    restoring.PairCheckpointManager('', state, steps.partitioner(), '')
  alone = train_state_lib.InferenceState(
    step=0, params=state.params, params_axes=state.params_axes
  )
  with pytest.raises(ValueError, match="are .'decoder', 'encoder', 'token"):
    restoring.PairCheckpointManager('', alone, steps.partitioner(), '')
