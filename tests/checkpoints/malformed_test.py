"""Valid small checkpoints with one thing wrong: one error that names it.

What chance would hardly come upon; for the rest see `mutation_test`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
import tensorstore as ts

from speccascade_jax import zoo
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import gguf_models
from speccascade_jax.checkpoints import load
from speccascade_jax.checkpoints import native
from tests.checkpoints import gguf_models_test
from tests.checkpoints import huggingface_test
from tests.checkpoints import mutation_test
from tests.checkpoints import t5x_test

GOLDENS = huggingface_test.GOLDENS
_SPIECE = zoo.paths('debian')[2]
_HUGE = 10**30


def _fails(path, *messages):
  """Loading ends in one error with the path and all of these."""
  with pytest.raises(errors.CheckpointError) as error:
    load.load(path)
  for message in (re.escape(str(path)), *messages):
    assert re.search(message, str(error.value)), str(error.value)


# Numbers of a config. Key in the file -> our field.
_T5_SIZES = {
  'vocab_size': 'vocab_size',
  'd_model': 'emb_dim',
  'd_kv': 'head_dim',
  'd_ff': 'mlp_dim',
  'num_layers': 'num_encoder_layers',
  'num_decoder_layers': 'num_decoder_layers',
  'num_heads': 'num_heads',
  'relative_attention_num_buckets': 'relative_attention_num_buckets',
  'relative_attention_max_distance': 'relative_attention_max_distance',
}
_GEMMA_SIZES = {
  'vocab_size': 'vocab_size',
  'hidden_size': 'emb_dim',
  'head_dim': 'head_dim',
  'intermediate_size': 'mlp_dim',
  'num_hidden_layers': 'num_layers',
  'num_attention_heads': 'num_heads',
  'num_key_value_heads': 'num_kv_heads',
  'sliding_window': 'sliding_window',
}
_NUMBERS = {
  't5': {'layer_norm_epsilon': 'layer_norm_epsilon'},
  'gemma3_text': {
    'rms_norm_eps': 'rms_norm_epsilon',
    'query_pre_attn_scalar': 'query_pre_attn_scalar',
    'attn_logit_softcapping': 'attn_logit_softcap',
    'final_logit_softcapping': 'final_logit_softcap',
    'rope_theta': 'rope_base',
    'rope_local_base_freq': 'local_rope_base',
  },
}
_NO_SIZES = (0, -1, 1.5, '32', True, [4], _HUGE)
_NO_NUMBERS = (-1, '1', True, [1.0], float('nan'), float('inf'), 10**400)


@pytest.mark.parametrize(
  ('name', 'key', 'ours', 'values'),
  [('hf_t5_v1_1', *item, _NO_SIZES) for item in _T5_SIZES.items()]
  + [('hf_gemma_3', *item, _NO_SIZES) for item in _GEMMA_SIZES.items()]
  # Only Hugging Face's, and no field of ours.
  + [('hf_gemma_3', *['sliding_window_pattern'] * 2, _NO_SIZES[:-1])]
  + [
    (name, *item, _NO_NUMBERS)
    for name, kind in (('hf_t5_v1_1', 't5'), ('hf_gemma_3', 'gemma3_text'))
    for item in _NUMBERS[kind].items()
  ],
)
def test_a_number_of_hugging_faces_that_cannot_be(
  name, key, ours, values, tmp_path
):
  folder = shutil.copytree(GOLDENS / name, tmp_path / 'm')
  path = folder / 'config.json'
  content = json.loads(path.read_text())
  # Only what is left out is looked for under the older name.
  for newer in ('layer_types', '_sliding_window_pattern', 'rope_parameters'):
    content.pop(newer, None)
  for value in values:
    path.write_text(json.dumps(content | {key: value}))
    got = re.escape(repr(value)[:20])
    _fails(folder, f'{key}|{ours}', got)


def test_absurd_depths_take_no_memory_where_layers_are_counted(tmp_path):
  folder = shutil.copytree(GOLDENS / 'hf_gemma_3', tmp_path / 'm')
  content = json.loads((folder / 'config.json').read_text())
  content.pop('layer_types')
  content['num_hidden_layers'] = 10**9
  (folder / 'config.json').write_text(json.dumps(content))
  _fails(folder, 'num_layers must be at most 1000, got 1000000000')


_NATIVE = {
  'hf_t5_v1_1': {
    **dict.fromkeys(_T5_SIZES.values(), _NO_SIZES),
    'layer_norm_epsilon': _NO_NUMBERS,
    'dropout_rate': (-1, '0', 1.0, [0.1], float('nan')),
    'logits_via_embedding': ('no', 1, None),
    'mlp_activations': ('relu', 3, [], ['relu', ['x']], None, ['tanh']),
    'dtype': ('float16', 32, ['float32'], None),
  },
  'hf_gemma_3': {
    **dict.fromkeys(_GEMMA_SIZES.values(), _NO_SIZES),
    **dict.fromkeys(_NUMBERS['gemma3_text'].values(), _NO_NUMBERS),
    'rope_scale_factor': _NO_NUMBERS,
    'attention_pattern': ('local', 3, [], ['local', ['x']], None, ['ring']),
    'use_qk_norm': ('no', 1, None),
  },
}


@pytest.fixture(scope='module')
def natives(tmp_path_factory):
  folder = tmp_path_factory.mktemp('native')
  for name in _NATIVE:
    config, params = load.huggingface.load(GOLDENS / name)
    native.save(folder / name, config, params)
  return folder


@pytest.mark.parametrize(
  ('name', 'field', 'values'),
  [
    (name, *item) for name, fields in _NATIVE.items() for item in fields.items()
  ],
)
def test_a_field_of_a_native_config_that_cannot_be(
  name, field, values, natives, tmp_path
):
  folder = shutil.copytree(natives / name, tmp_path / 'm')
  config = json.loads((folder / 'config.json').read_text())
  for value in values:
    (folder / 'config.json').write_text(json.dumps(config | {field: value}))
    _fails(folder, rf'\.{field} must be')


@pytest.mark.parametrize('kind', ['family', 'model_type'])
@pytest.mark.parametrize('value', [['t5'], {'a': 1}, 3, None, True])
def test_an_architecture_that_is_no_text(kind, value, tmp_path):
  folder = tmp_path / 'm'
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps({kind: value}))
  _fails(folder, f'{kind} {re.escape(repr(value))}')


@pytest.mark.parametrize(
  ('name', 'key', 'values'),
  [
    (
      'hf_gemma_3',
      'gemma3.attention.head_count',
      (0, -1, 'x', 1.5, [2]),
    ),
    ('hf_gemma_3', 'gemma3.attention.head_count_kv', (0, 'x', [2])),
    ('hf_gemma_3', 'gemma3.attention.key_length', (0, 'x', [2])),
    ('hf_gemma_3', 'gemma3.block_count', (0, 10**9, 'x', [2])),
    ('hf_gemma_3', 'gemma3.embedding_length', (0, 2**40, 'x', [2])),
    ('hf_gemma_3', 'gemma3.attention.sliding_window', (0, 'x', [2])),
    ('hf_gemma_3', 'gemma3.rope.freq_base', (0.0, 'x', [2])),
    ('hf_gemma_3', 'gemma3.rope.scaling.factor', (-1.0, 'x', [2])),
    ('hf_gemma_3', 'gemma3.final_logit_softcapping', (-1.0, 'x', [2])),
    (
      'hf_gemma_3',
      'gemma3.attention.layer_norm_rms_epsilon',
      (-1.0, float('nan'), 'x', [2]),
    ),
    ('hf_t5_v1_1', 't5.attention.relative_buckets_count', (0, 3, 'x', [2])),
    ('hf_t5_v1_1', 't5.decoder_block_count', (0, 10**9, 'x', [2])),
    ('hf_t5_v1_1', 't5.attention.layer_norm_epsilon', (-1.0, 'x', [2])),
    ('hf_t5_v1_1', 'general.architecture', (3, ['t5'])),
  ],
)
def test_a_number_in_ggufs_metadata_that_cannot_be(name, key, values, ggufs):
  for value in values:
    file = gguf_models.gguf_file.File(ggufs / f'{name}.gguf')
    file.metadata[key] = value
    with pytest.raises(errors.CheckpointError) as error:
      gguf_models.config_of(file)
    assert str(ggufs) in str(error.value)
    assert str(value) in str(error.value)


def test_no_heads_in_the_widest_gguf(ggufs):
  """The one whose scale is the width over the heads."""
  file = gguf_models.gguf_file.File(ggufs / 'hf_gemma_3.gguf')
  file.metadata |= {'gemma3.block_count': 62, 'gemma3.attention.head_count': 0}
  with pytest.raises(errors.CheckpointError, match='num_heads must be .*got 0'):
    gguf_models.config_of(file)


@pytest.fixture(scope='module')
def ggufs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('gguf')
  for name in ('hf_t5_v1_1', 'hf_gemma_3'):
    gguf_models_test.write(folder / f'{name}.gguf', name)
  return folder


# Tensors. Small models: what is refused is refused by its shape.


def _t5():
  return mutation_test.flat_params(mutation_test._T5)


_TWO = dataclasses.replace(
  mutation_test._T5, num_encoder_layers=2, num_decoder_layers=2
)


@pytest.mark.parametrize('write', [t5x_test.write, t5x_test.write_orbax])
def test_position_buckets_that_cannot_be(write, tmp_path):
  params = _t5()
  for name in ('encoder', 'decoder'):
    params[f'{name}/relpos_bias/rel_embedding'] = np.ones((2, 2), np.float32)
  _fails(write(tmp_path / 'x', params), 'num_buckets must be .*got 2')


@pytest.mark.parametrize('write', [t5x_test.write, t5x_test.write_orbax])
@pytest.mark.parametrize('layers', [1, 3])
@pytest.mark.parametrize(
  'name',
  [
    'encoder/encoder/mlp/wo/kernel',
    'encoder/encoder/pre_mlp_layer_norm/scale',
    'decoder/decoder/self_attention/out/kernel',
    'decoder/decoder/self_attention/value/kernel',
    'decoder/decoder/relpos_bias/rel_embedding',
  ],
)
def test_scanned_tensors_of_another_depth(name, layers, write, tmp_path):
  tensors = t5x_test.scanned(mutation_test.flat_params(_TWO))
  tensors[name] = np.repeat(tensors[name][:, :1], layers, axis=1)
  path = write(tmp_path / 'x', tensors)
  _fails(path, f'{name} is .*but has to be')


@pytest.mark.parametrize('count', [1, 3])
@pytest.mark.parametrize(
  'name', ['layer_1/attn/kv_einsum/w', 'layer_0/mlp/gating_einsum/w']
)
def test_stacks_of_too_many_or_too_few(name, count, tmp_path):
  tensors = t5x_test.gemma_tensors('hf_gemma_1', False)
  tensors[name] = np.repeat(tensors[name][:1], count, axis=0)
  path = t5x_test.write_gemma(tmp_path / 'x', tensors, 'nested')
  _fails(path, f'{name[:-2]} is .*but has to be')


def test_heads_whose_axes_are_exchanged(tmp_path):
  tensors = t5x_test.gemma_tensors('hf_gemma_1', False)
  name = 'layer_1/attn/q_einsum/w'
  tensors[name] = tensors[name].swapaxes(1, 2)
  path = t5x_test.write_gemma(tmp_path / 'x', tensors, 'nested')
  _fails(path, f'{name[:-2]} is .*but has to be')


_KERNEL = 'decoder/layers_0/mlp/wo/kernel'


def _integers(params):
  return params | {_KERNEL: np.ones(params[_KERNEL].shape, np.int32)}


def _huggingface_integers(folder):
  shutil.copytree(GOLDENS / 'hf_gemma_3', folder)
  path = folder / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  name = 'model.layers.0.mlp.down_proj.weight'
  tensors[name] = tensors[name].astype(np.int32)
  safetensors.numpy.save_file(tensors, path)
  return folder


def _native_integers(folder):
  folder = mutation_test.write_native(mutation_test._T5)(folder)
  path = folder / 'model.safetensors'
  safetensors.numpy.save_file(
    _integers(safetensors.numpy.load_file(path)), path
  )
  return folder


@pytest.mark.parametrize(
  'write',
  [
    lambda folder: t5x_test.write(folder, _integers(_t5())),
    lambda folder: t5x_test.write_orbax(folder, _integers(_t5())),
    _huggingface_integers,
    _native_integers,
  ],
  ids=['t5x', 'orbax', 'huggingface', 'native'],
)
def test_weights_that_are_no_fractions(write, tmp_path):
  _fails(write(tmp_path / 'x'), r'(wo/kernel|down_proj\.weight) is (int32|I32)')


@pytest.mark.parametrize('shape', [(4, 0), (0, 4), (0,), ()])
def test_a_copy_that_is_empty_is_left_aside(shape, tmp_path):
  folder = shutil.copytree(GOLDENS / 'hf_gemma_3', tmp_path / 'm')
  path = folder / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  tensors['lm_head.weight'] = np.zeros(shape, np.float16)
  safetensors.numpy.save_file(tensors, path)
  assert load.load(folder).format == 'huggingface'


# Chunks of zarr arrays.


_FILES = {
  'target.token_embedder.embedding',
  'target.encoder.encoder_norm.scale',
}


def _write_file_per_chunk(folder, params):
  tree = {'target': t5x_test.nested(params)}
  ocp.PyTreeCheckpointer(use_ocdbt=False).save(folder, tree)
  return folder


@pytest.mark.parametrize('file', sorted(_FILES))
@pytest.mark.parametrize('write', [t5x_test.write, _write_file_per_chunk])
def test_a_chunk_that_is_missing(write, file, tmp_path):
  path = write(tmp_path / 'x', _t5())
  chunk = min(p for p in (path / file).iterdir() if p.name[0] != '.')
  chunk.unlink()
  _fails(path, f'{file[7:].replace(".", "/")} cannot be read.*missing')


@pytest.mark.parametrize(
  'write', [t5x_test.write, _write_file_per_chunk, t5x_test.write_orbax]
)
def test_tensors_of_zeros_are_read(write, tmp_path):
  zeros = {k: np.zeros_like(v) for k, v in _t5().items()}
  params = load.load(write(tmp_path / 'x', zeros)).params
  assert all(not np.asarray(x).any() for x in jax.tree.leaves(params))


def test_chunks_that_a_fill_value_stands_for_are_read(tmp_path):
  """As zarr's own library writes: what is all zeros has no chunk."""
  path = t5x_test.write(tmp_path / 'x', _t5())
  array = path / 'target.encoder.encoder_norm.scale'
  metadata = json.loads((array / '.zarray').read_text())
  (array / '.zarray').write_text(json.dumps(metadata | {'fill_value': 0.0}))
  store = {'driver': 'file', 'path': f'{array}/'}
  written = ts.open({'driver': 'zarr', 'kvstore': store}).result()
  written.write(np.zeros(4, np.float32)).result()
  assert [p.name for p in array.iterdir()] == ['.zarray']
  scale = load.load(path).params['encoder']['encoder_norm']['scale']
  assert scale.tolist() == [0.0] * 4


# Names and vocabularies.


_LONG = 'x' * 300


def test_names_that_no_file_can_have(tmp_path):
  _fails(tmp_path / _LONG)
  folder = shutil.copytree(GOLDENS / 'hf_t5_v1_1', tmp_path / 'm')
  index = folder / 'model.safetensors.index.json'
  content = json.loads(index.read_text())
  content['weight_map']['shared.weight'] = f'{_LONG}.safetensors'
  index.write_text(json.dumps(content))
  _fails(folder, _LONG)
  path = t5x_test.write(tmp_path / 'x', _t5())
  place = {'driver': 'zarr', 'kvstore': {'path': _LONG}}

  def change(content):
    content['optimizer']['target']['token_embedder']['embedding'] = place

  t5x_test._reindex(path, change)
  _fails(path, 'token_embedder/embedding cannot be opened')


def test_a_layer_of_a_number_with_thousands_of_digits(tmp_path):
  params = _t5() | {f'encoder/layers_{"9" * 5000}/x': np.ones(2, np.float32)}
  path = t5x_test.write(tmp_path / 'x', {k: params[k] for k in _t5()})

  def change(content):
    encoder = content['optimizer']['target']['encoder']
    encoder[f'layers_{"9" * 5000}'] = {'x': np.ones(2, np.float32)}

  t5x_test._reindex(path, change)
  _fails(path, 'of no use encoder/layers_9')


def _vocabularies():
  model = _SPIECE.read_bytes()
  at = model.index('\u2581'.encode())
  return {
    'tokenizer.json': (
      *(b'', b'{', b'{}', b'[]', b'\xff', b'{"model": 3}'),
      _PANIC.encode(),
    ),
    'spiece.model': (
      *(b'', model[:30_000], b'garbage', b'\x0a' + model),
      model[:at] + b'\xff' + model[at + 1 :],  # A piece that is no UTF-8.
    ),
  }


# A prefix longer than the pieces, at which the library's Rust code panics.
_PANIC = json.dumps(
  {
    'version': '1.0',
    'added_tokens': [],
    'model': {
      'type': 'BPE',
      'continuing_subword_prefix': 'xxx',
      'vocab': {'a': 0, 'b': 1, 'ab': 2, '</s>': 3},
      'merges': [['a', 'b']],
    },
  }
)


@pytest.mark.parametrize('file', _vocabularies())
def test_a_vocabulary_that_is_broken(file, tmp_path):
  folder = shutil.copytree(GOLDENS / 'hf_gemma_3', tmp_path / 'm')
  for content in _vocabularies()[file]:
    (folder / file).write_bytes(content)
    _fails(folder, re.escape(file))


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('model', ['t5']),
    ('model', 'bpe'),
    ('tokens', 3),
    ('tokens', [1, 2]),
    ('tokens', []),
    ('scores', ['a'] * 4096),
    ('token_type', [99] * 4096),
    ('token_type', [1.5] * 4096),
    ('unknown_token_id', 'x'),
    ('unknown_token_id', -7),
    ('unknown_token_id', 10**6),
    ('eos_token_id', 2**40),
    ('eos_token_id', 4096),
    ('bos_token_id', -2),
    ('eos_token_id', [1]),
    ('precompiled_charsmap', ['a']),
    ('precompiled_charsmap', 5),
    ('precompiled_charsmap', [1, 2, 3]),
  ],
)
def test_a_vocabulary_in_gguf_that_is_broken(key, value, ggufs):
  file = gguf_models.gguf_file.File(ggufs / 'hf_t5_v1_1.gguf')
  file.metadata[f'tokenizer.ggml.{key}'] = value
  with pytest.raises(errors.CheckpointError, match=re.escape(str(ggufs))):
    gguf_models.vocabulary_of(file)
