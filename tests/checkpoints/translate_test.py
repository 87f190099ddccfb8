"""The engine behind all formats: nothing left over, nothing left out."""

from __future__ import annotations

import jax
import ml_dtypes
import numpy as np
import pytest

from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import translate
from speccascade_jax.models.gemma import config as gemma_config
from tests.checkpoints import sources

CONFIG = gemma_config.GemmaConfig(
  vocab_size=7,
  emb_dim=6,
  num_layers=1,
  num_heads=2,
  num_kv_heads=1,
  head_dim=2,
  mlp_dim=4,
)


def _model():
  """A source that keeps matrices transposed, and what it stands for."""
  rng = np.random.default_rng(0)
  table, arrays, params = {}, {}, {}
  for name, shape in translate.shapes(CONFIG).items():
    value = rng.normal(size=shape).astype(np.float32)
    params[name] = value
    there = name.replace('/', '.')
    if name.endswith('kernel'):
      table[there], arrays[there] = translate.transposed(name), value.T
    else:
      table[there], arrays[there] = translate.as_is(name), value
  return sources.Arrays(arrays), table, params


def _flat(params):
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {'/'.join(k.key for k in path): value for path, value in leaves}


def test_every_parameter_is_filled():
  source, table, params = _model()
  loaded = _flat(translate.load(source, table, CONFIG))
  assert loaded.keys() == params.keys()
  for name, value in params.items():
    np.testing.assert_array_equal(loaded[name], value)


def test_values_are_cast_on_the_way():
  source, table, params = _model()
  loaded = _flat(translate.load(source, table, CONFIG, dtype='bfloat16'))
  for name, value in params.items():
    np.testing.assert_array_equal(
      np.asarray(loaded[name]), value.astype(ml_dtypes.bfloat16)
    )


def test_large_tensors_are_read_in_parts(monkeypatch):
  monkeypatch.setattr(translate, '_PART_BYTES', 50)
  source, table, params = _model()
  loaded = _flat(translate.load(source, table, CONFIG))
  for name, value in params.items():
    np.testing.assert_array_equal(loaded[name], value)
  embedding = [n for name, n in source.noted if 'embedding' in name]
  assert embedding == [2, 2, 2, 1]  # Rows of 24 bytes.


def test_one_tensor_may_fill_several_parameters():
  source, table, params = _model()
  fused = 'decoder.layers_0.mlp.wi'
  halves = [source.arrays.pop(f'{fused}_{i}.kernel') for i in (0, 1)]
  names = [table.pop(f'{fused}_{i}.kernel')[0].target for i in (0, 1)]
  source = sources.Arrays({**source.arrays, 'wi': np.stack(halves)})
  table['wi'] = tuple(
    translate.converted(name, lambda x, i=i: x[i].T)[0]
    for i, name in enumerate(names)
  )
  loaded = _flat(translate.load(source, table, CONFIG))
  for name, value in params.items():
    np.testing.assert_array_equal(loaded[name], value)


def test_parameters_are_placed_by_name():
  source, table, params = _model()
  placed = {}

  def place(name, value):
    placed[name] = value.shape
    return jax.device_put(value)

  translate.load(source, table, CONFIG, place=place)
  assert placed == {name: value.shape for name, value in params.items()}


def test_what_is_ignored_is_not_read():
  source, table, _ = _model()
  source = sources.Arrays({**source.arrays, 'copy': np.zeros(3)})
  with pytest.raises(errors.CheckpointError, match='of no use copy'):
    translate.load(source, table, CONFIG)
  translate.load(source, table, CONFIG, ignored=['copy'])
  assert 'copy' not in dict(source.noted)


def _broken(change):
  source, table, _ = _model()
  change(source.arrays, table)
  return sources.Arrays(source.arrays, 'some.file'), table


_NORM = 'decoder.final_norm.scale'


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda a, t: a.pop(_NORM), f'missing {_NORM}'),
    (lambda a, t: t.pop(_NORM), f'of no use {_NORM}'),
    (
      lambda a, t: (a.pop(_NORM), t.pop(_NORM)),
      'nothing fills decoder/final_norm/scale',
    ),
    (
      lambda a, t: a.update({_NORM: np.zeros((5,))}),
      r'final_norm.scale is \(5,\), but .* has to be \(6,\)',
    ),
    (
      lambda a, t: a.update({_NORM: np.zeros((6, 1))}),
      r'final_norm.scale is \(6, 1\)',
    ),
    (
      lambda a, t: a.update({'token_embedder.embedding': np.zeros(())}),
      r'token_embedder.embedding is \(\)',
    ),
  ],
  ids=['missing', 'of no use', 'unfilled', 'shape', 'rank', 'scalar'],
)
def test_what_does_not_fit_is_named_before_anything_is_read(change, message):
  source, table = _broken(change)
  with pytest.raises(errors.CheckpointError, match=message) as error:
    translate.load(source, table, CONFIG)
  assert 'some.file does not hold the tensors of this GemmaConfig' in str(
    error.value
  )
  assert source.noted == []


def test_a_tensor_that_cannot_be_read_is_named():
  source, table, _ = _model()

  def read(name, first=0, end=None):
    raise OSError('the disk is gone')

  source.read = read
  with pytest.raises(errors.CheckpointError, match='cannot be read: the disk'):
    translate.load(source, table, CONFIG)
