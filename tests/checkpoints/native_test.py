"""Native checkpoints: the round trip, and every way in which one is broken."""

import dataclasses
import json
import os
import stat

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from speccascade_jax.checkpoints import native
from speccascade_jax.checkpoints import translate
from speccascade_jax.models.t5 import config as t5_config

_CONFIG = t5_config.T5Config(
  vocab_size=12,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  mlp_dim=6,
  num_encoder_layers=1,
  num_decoder_layers=2,
)
_KERNEL = 'decoder/layers_1/self_attention/query/kernel'


@pytest.fixture(scope='module')
def params():
  rng = np.random.default_rng(0)
  flat = {
    name: jnp.asarray(rng.normal(size=shape), jnp.float32)
    for name, shape in translate.shapes(_CONFIG).items()
  }
  return traverse_util.unflatten_dict(flat, sep='/')


@pytest.fixture
def saved(params, tmp_path):
  native.save(tmp_path / 'model', _CONFIG, params)
  return tmp_path / 'model'


def _edit_config(folder, **changes):
  path = folder / 'config.json'
  content = json.loads(path.read_text()) | changes
  content = {k: v for k, v in content.items() if v is not None}
  path.write_text(json.dumps(content))


def _edit_tensors(folder, **changes):
  path = folder / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path) | changes
  tensors = {k: v for k, v in tensors.items() if v is not None}
  safetensors.numpy.save_file(tensors, path)


def _same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_what_was_saved_is_loaded(params, saved):
  config, loaded = native.load(saved)
  assert config == _CONFIG
  _same(loaded, params)
  assert jax.tree.structure(loaded) == jax.tree.structure(params)
  assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {
    np.dtype('float32')
  }


def test_names_on_disk_are_paths_in_the_model(saved):
  tensors = safetensors.numpy.load_file(saved / 'model.safetensors')
  assert tensors[_KERNEL].shape == (8, 8)
  assert set(tensors) == set(translate.shapes(_CONFIG))
  content = json.loads((saved / 'config.json').read_text())
  assert content['family'] == 't5' and content['num_decoder_layers'] == 2


def test_bfloat16_is_stored_rounded_and_half_as_large(params, saved, tmp_path):
  native.save(tmp_path / 'half', _CONFIG, params, dtype='bfloat16')
  _, stored = native.load(tmp_path / 'half')
  rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  _same(stored, rounded)
  _, widened = native.load(tmp_path / 'half', dtype='float32')
  _same(widened, jax.tree.map(lambda x: x.astype(jnp.float32), rounded))
  sizes = [
    (folder / 'model.safetensors').stat().st_size
    for folder in (tmp_path / 'half', saved)
  ]
  assert sizes[0] < 0.7 * sizes[1]


def test_the_same_parameters_give_the_same_bytes(params, saved, tmp_path):
  native.save(tmp_path / 'again', _CONFIG, params)
  for name in ('model.safetensors', 'config.json'):
    first = (saved / name).read_bytes()
    assert (tmp_path / 'again' / name).read_bytes() == first


def test_saving_over_a_checkpoint_leaves_other_files_alone(params, saved):
  (saved / 'spiece.model').write_bytes(b'vocabulary')
  doubled = jax.tree.map(lambda x: 2 * x, params)
  native.save(saved, _CONFIG, doubled)
  _same(native.load(saved)[1], doubled)
  assert sorted(p.name for p in saved.iterdir()) == [
    'config.json',
    'model.safetensors',
    'spiece.model',
  ]
  # Whoever may read the one may read the other.
  modes = [stat.S_IMODE(p.stat().st_mode) for p in saved.glob('*o*.*s*')]
  assert len(modes) > 1 and len(set(modes)) == 1


def test_a_save_that_fails_leaves_the_old_checkpoint(
  params, saved, monkeypatch
):
  def broken(tensors, path):
    path.write_bytes(b'half of it')
    raise OSError('No space left on device')

  monkeypatch.setattr(safetensors.numpy, 'save_file', broken)
  with pytest.raises(OSError, match='No space'):
    native.save(saved, _CONFIG, jax.tree.map(lambda x: 2 * x, params))
  _same(native.load(saved)[1], params)
  assert len(os.listdir(saved)) == 2


def test_parameters_of_another_model_are_not_saved(params, tmp_path):
  other = dataclasses.replace(_CONFIG, num_decoder_layers=3)
  with pytest.raises(native.CheckpointError, match='missing.*layers_2'):
    native.save(tmp_path, other, params)
  assert not list(tmp_path.iterdir())


def _no_config(folder):
  (folder / 'config.json').unlink()


def _no_weights(folder):
  (folder / 'model.safetensors').unlink()


def _cut_weights(folder):
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-100])


def _cut_header(folder):
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:5])


def _cut_config(folder):
  path = folder / 'config.json'
  path.write_text(path.read_text()[:20])


_KEEP = np.zeros((8, 8), np.float32)


@pytest.mark.parametrize(
  'break_it, message',
  [
    (_no_config, r'config\.json is missing'),
    (_no_weights, r'model\.safetensors is missing'),
    (_cut_weights, r'model\.safetensors cannot be read \(\d+ bytes\)'),
    (_cut_header, r'model\.safetensors cannot be read \(5 bytes\)'),
    (_cut_config, r'config\.json is not valid JSON'),
    (
      lambda folder: (folder / 'config.json').write_text('[1]'),
      r"must hold an object, got '\[1\]'",
    ),
    (
      lambda folder: _edit_config(folder, family='gpt'),
      r"unknown family 'gpt'; known are 't5'",
    ),
    (lambda folder: _edit_config(folder, family=None), 'unknown family None'),
    (
      lambda folder: _edit_config(folder, num_layers=3),
      r"T5Config has no field 'num_layers'",
    ),
    (
      lambda folder: _edit_config(folder, emb_dim=None),
      r'config\.json: emb_dim must be given',
    ),
    (
      lambda folder: _edit_config(folder, emb_dim='wide'),
      r"config\.json: .*emb_dim.*'wide'",
    ),
    (
      lambda folder: _edit_tensors(folder, **{_KERNEL: None}),
      rf'model\.safetensors .*missing {_KERNEL}',
    ),
    (
      lambda folder: _edit_tensors(folder, head=_KEEP),
      r'model\.safetensors .*of no use head',
    ),
    (
      lambda folder: _edit_tensors(folder, **{_KERNEL: _KEEP[:, :3]}),
      rf'wrong shape: {_KERNEL} is \(8, 3\), but .* has to be \(8, 8\)',
    ),
    (
      lambda folder: _edit_config(folder, num_decoder_layers=1),
      r'of no use decoder/layers_1.* and \d+ more',
    ),
    (
      lambda folder: _edit_config(folder, vocab_size=13),
      r'embedding is \(12, 8\), but .* has to be \(13, 8\)',
    ),
  ],
)
def test_a_broken_checkpoint_says_what_is_wrong(saved, break_it, message):
  break_it(saved)
  with pytest.raises(native.CheckpointError, match=message) as error:
    native.load(saved)
  assert str(saved) in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
  with pytest.raises(native.CheckpointError, match='nowhere is not a dir'):
    native.load(tmp_path / 'nowhere')
