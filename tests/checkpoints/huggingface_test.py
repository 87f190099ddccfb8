"""Folders that transformers wrote, read and written again."""

from __future__ import annotations

import functools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import safetensors_source
from speccascade_jax.checkpoints import translate
from speccascade_jax.models import families

GOLDENS = pathlib.Path(__file__).parents[1] / 'goldens'
FOLDERS = sorted(path.name for path in GOLDENS.glob('hf_*'))


def logits(config, params, inputs, targets=None):
  """As transformers gives them: behind every token of a decoder-only text."""
  if targets is None:
    inputs, targets = inputs[:, :1], inputs
  with jax.default_matmul_precision('float32'):
    return np.asarray(_forward(config)({'params': params}, inputs, targets))


@functools.cache
def _forward(config):
  """One program for all checkpoints of a shape, whatever their format."""
  return jax.jit(families.family_of(config).network(config).apply)


def assert_computes_as_expected(config, params, folder):
  with np.load(folder / 'expected.npz') as arrays:
    arrays = dict(arrays)
  expected = arrays.pop('logits')
  actual = logits(config, params, **arrays)[..., ::64]
  np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


def test_there_are_folders_of_both_families_and_in_shards():
  assert len(FOLDERS) == 5
  assert (GOLDENS / 'hf_t5_v1_1' / safetensors_source.INDEX_FILE).is_file()


@pytest.mark.parametrize('name', FOLDERS)
def test_a_folder_of_transformers_computes_the_same(name):
  config, params = huggingface.load(GOLDENS / name, dtype='float32')
  assert_computes_as_expected(config, params, GOLDENS / name)


@pytest.mark.parametrize('name', FOLDERS)
def test_what_is_written_has_the_same_tensors_and_shape(name, tmp_path):
  config, params = huggingface.load(GOLDENS / name)
  huggingface.save(tmp_path, config, params)
  source = safetensors_source.open_folder(GOLDENS / name)
  again = safetensors_source.open_folder(tmp_path)
  assert again.shapes.keys() == source.shapes.keys()
  for tensor in source.shapes:
    theirs, ours = source.read(tensor), again.read(tensor)
    assert theirs.dtype == ours.dtype == np.float16
    np.testing.assert_array_equal(theirs, ours)
  theirs, ours = (
    json.loads((folder / 'config.json').read_text())
    for folder in (GOLDENS / name, tmp_path)
  )
  # Two generations of the library say differently what is tied and scaled.
  differing = {'dropout_rate', 'rope_parameters', 'tie_word_embeddings'}
  # What transformers cannot do for a decoder that is deeper than its encoder.
  deep = ours.get('num_decoder_layers', 0) > ours.get('num_layers', 0)
  assert ours.get('use_cache', True) is not deep
  differing.add('use_cache')
  for key in ours.keys() & theirs.keys() - differing:
    assert theirs[key] == ours[key], key
  assert huggingface.load(tmp_path)[0] == config


def test_a_folder_is_written_in_the_type_that_is_asked_for(tmp_path):
  config, params = huggingface.load(GOLDENS / 'hf_gemma_3', dtype='float32')
  huggingface.save(tmp_path, config, params, dtype='bfloat16')
  _, stored = huggingface.load(tmp_path)
  assert {str(x.dtype) for x in jax.tree.leaves(stored)} == {'bfloat16'}
  assert json.loads((tmp_path / 'config.json').read_text())['dtype'] == (
    'bfloat16'
  )


def test_parameters_of_another_shape_are_not_written(tmp_path):
  config, params = huggingface.load(GOLDENS / 'hf_gemma_3')
  del params['decoder']['final_norm']
  with pytest.raises(errors.CheckpointError, match='decoder/final_norm/scale'):
    huggingface.save(tmp_path, config, params)
  assert list(tmp_path.iterdir()) == []


# Names.


def _rewritten(folder, name, change, **said):
  """A golden folder with other tensors, and more in its config."""
  shutil.copytree(GOLDENS / name, folder)
  source = safetensors_source.open_folder(folder)
  tensors = {tensor: source.read(tensor) for tensor in source.shapes}
  change(tensors)
  (folder / safetensors_source.INDEX_FILE).unlink(missing_ok=True)
  safetensors_source.safetensors.numpy.save_file(
    tensors, folder / 'model.safetensors'
  )
  path = folder / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | said))
  return folder


@pytest.mark.parametrize(
  'prefix',
  [
    *('model.', 'language_model.model.', 'model.language_model.'),
    # Saved without a head.
    *('language_model.', ''),
  ],
)
def test_the_text_of_a_model_that_sees_images_is_found(prefix, tmp_path):
  folder = tmp_path / 'model'
  shutil.copytree(GOLDENS / 'hf_gemma_3', folder)
  source = safetensors_source.open_folder(folder)
  tensors = {
    prefix + name.removeprefix('model.'): source.read(name)
    for name in source.shapes
  }
  tensors['vision_tower.patch.weight'] = np.zeros((2, 2), np.float16)
  tensors['lm_head.weight'] = np.zeros((4096, 8), np.float16)
  safetensors_source.safetensors.numpy.save_file(
    tensors, folder / 'model.safetensors'
  )
  config, params = huggingface.load(folder, dtype='float32')
  assert_computes_as_expected(config, params, folder)


def test_t5s_copies_of_the_embedding_are_not_missed(tmp_path):
  odd = 'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight'

  def change(tensors):
    for name in ('encoder.embed_tokens.weight', 'lm_head.weight'):
      tensors[name] = tensors['shared.weight'].copy()
    tensors[odd] = np.zeros((32, 2), np.float16)

  folder = _rewritten(tmp_path / 'model', 'hf_t5_v1_0', change)
  config, params = huggingface.load(folder, dtype='float32')
  assert_computes_as_expected(config, params, folder)


@pytest.mark.parametrize(
  'names',
  [('decoder', 'encoder'), ('decoder',), ('encoder',)],
)
def test_a_t5s_embedding_may_go_by_its_users_names(names, tmp_path):
  """As in MADLAD-400, which also pads with 1."""

  def change(tensors):
    embedding = tensors.pop('shared.weight')
    for name in names:
      tensors[f'{name}.embed_tokens.weight'] = embedding.copy()

  folder = _rewritten(
    tmp_path / 'model', 'hf_t5_v1_1', change, pad_token_id=1, eos_token_id=2
  )
  config, params = huggingface.load(folder, dtype='float32')
  assert_computes_as_expected(config, params, folder)


@pytest.mark.parametrize(
  ('model', 'name', 'rows'),
  [
    ('hf_t5_v1_1', 'encoder.embed_tokens.weight', 4096),
    ('hf_t5_v1_1', 'decoder.embed_tokens.weight', 4000),
    # Nor may what is to be tied have a head of its own.
    ('hf_t5_v1_0', 'lm_head.weight', 4096),
  ],
)
def test_a_copy_of_the_embedding_that_differs_is_refused(
  model, name, rows, tmp_path, monkeypatch
):
  # So that it is read in parts, of which the last differs.
  monkeypatch.setattr(translate, '_PART_BYTES', 2**14)

  def change(tensors):
    tensors[name] = tensors['shared.weight'][:rows].copy()
    tensors[name][-1, -1] += 1

  folder = _rewritten(tmp_path / 'model', model, change)
  with pytest.raises(
    errors.CheckpointError, match=f'{name} differs from shared.weight'
  ):
    huggingface.load(folder)


@pytest.mark.parametrize(
  'said',
  [
    {},
    # Of a v1.1, by transformers 5.
    {'tie_word_embeddings': True, 'architectures': ['T5Model']},
  ],
)
def test_a_head_that_is_missing_is_not_taken_for_a_tied_one(said, tmp_path):
  folder = _rewritten(
    tmp_path / 'model', 'hf_t5_v1_1', lambda t: t.pop('lm_head.weight'), **said
  )
  with pytest.raises(
    errors.CheckpointError,
    match='missing lm_head.weight.*tie_word.* is false.*AutoModelForSeq2SeqLM',
  ):
    huggingface.load(folder)


def test_a_tied_head_that_is_not_scaled_is_filled_from_the_embedding(tmp_path):
  folder = _rewritten(
    tmp_path / 'model',
    'hf_t5_v1_1',
    lambda tensors: tensors.pop('lm_head.weight'),
    # As transformers 5 says of every v1.1.
    tie_word_embeddings=True,
  )
  config, params = huggingface.load(folder)
  assert not config.logits_via_embedding
  np.testing.assert_array_equal(
    params['decoder']['logits_dense']['kernel'],
    params['token_embedder']['embedding'].T,
  )


# Broken folders.


def _cut(path, size):
  path.write_bytes(path.read_bytes()[:size])


def _change_index(folder, change):
  path = folder / safetensors_source.INDEX_FILE
  content = json.loads(path.read_text())
  change(content['weight_map'])
  path.write_text(json.dumps(content))


def _twice(folder, change):
  """Zeros in the place of the embedding, in the shard that is read last."""
  _change_index(folder, change)
  load_file = safetensors_source.safetensors.numpy.load_file
  tensors = load_file(folder / _OTHER)
  embedding = load_file(folder / _SHARD)['shared.weight']
  tensors['shared.weight'] = np.zeros_like(embedding)
  safetensors_source.safetensors.numpy.save_file(tensors, folder / _OTHER)


_SHARD = 'model-00001-of-00002.safetensors'
_OTHER = 'model-00002-of-00002.safetensors'
_BREAKS = {
  'no weights': (
    lambda f: [p.unlink() for p in f.glob('model*')],
    'neither model.safetensors nor .*pytorch_model.bin.*runs code.*'
    'AutoModelForSeq2SeqLM.*AutoModelForCausalLM.*GGUF .*hf download',
  ),
  'no index': (
    lambda f: (f / safetensors_source.INDEX_FILE).unlink(),
    rf'index.json is missing, .* in {_SHARD}, {_OTHER}\. Has',
  ),
  'no shard': (lambda f: (f / _SHARD).unlink(), f'{_SHARD} is missing'),
  'cut shard': (lambda f: _cut(f / _SHARD, 5000), f'{_SHARD} cannot be read'),
  'empty shard': (lambda f: _cut(f / _SHARD, 0), f'{_SHARD} cannot be read'),
  'no config': (lambda f: (f / 'config.json').unlink(), 'json is missing'),
  'cut config': (lambda f: _cut(f / 'config.json', 40), 'is not valid JSON'),
  'a list': (
    lambda f: (f / 'config.json').write_text('[]'),
    'must hold an object',
  ),
  'outside': (
    lambda f: _change_index(
      f, lambda m: m.update({'shared.weight': '../x.safetensors'})
    ),
    "names '../x.safetensors'",
  ),
  'no map': (
    lambda f: (f / safetensors_source.INDEX_FILE).write_text('{}'),
    'has no weight_map',
  ),
  'elsewhere': (
    lambda f: _change_index(f, lambda m: m.update({'shared.weight': _OTHER})),
    f'promises shared.weight, but {_OTHER} does not hold it',
  ),
  'twice': (
    lambda f: _twice(f, lambda m: m.pop('shared.weight')),
    'shared.weight, which another file .* the index does not say which',
  ),
  'promised': (
    lambda f: _change_index(f, lambda m: m.update({'more.weight': _SHARD})),
    'promises more.weight',
  ),
}


def test_of_two_shards_with_a_tensor_the_one_that_the_index_names_is_read(
  tmp_path,
):
  """The other's is what a run left that wrote other shards."""
  folder = shutil.copytree(GOLDENS / 'hf_t5_v1_1', tmp_path / 'model')
  _twice(folder, lambda where: None)
  config, params = huggingface.load(folder, dtype='float32')
  assert_computes_as_expected(config, params, folder)


@pytest.mark.parametrize('name', _BREAKS)
def test_a_broken_folder_ends_in_one_clear_error(name, tmp_path):
  folder = tmp_path / 'model'
  shutil.copytree(GOLDENS / 'hf_t5_v1_1', folder)
  do, message = _BREAKS[name]
  do(folder)
  with pytest.raises(errors.CheckpointError, match=message) as error:
    huggingface.load(folder)
  assert str(folder) in str(error.value)
