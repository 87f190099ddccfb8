"""What llama.cpp's converter writes of published models, and our reading.

The names are those of its own library. The numbers are typed here from the
models' cards and configs; what the files do not say has to follow from them.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

import gguf
import numpy as np
import pytest

from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import gguf_file
from speccascade_jax.checkpoints import gguf_models
from speccascade_jax.launch import model_names
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config
from tests.checkpoints import published_test

_ROOT = pathlib.Path(__file__).parents[2]

_GEMMAS = published_test.GEMMAS
# Of Gemma 3, those that see images have more.
_ROWS = {1: 256_000, 2: 256_000, 3: 262_208}
_FEWER_ROWS = {'gemma_3_270m': 262_144, 'gemma_3_1b': 262_144}
_WINDOWS = {'gemma_3_270m': 512, 'gemma_3_1b': 512}


def _write(path, name, early=False):
  """All metadata of a model, and its largest tensor as a hole in the file."""
  depth, width, mlp, heads, kv_heads, head_dim = _GEMMAS[name]
  generation = int(name.split('_')[1])
  vocabulary = _FEWER_ROWS.get(name, _ROWS[generation])
  kind = f'gemma{generation}' if generation > 1 else 'gemma'
  writer = gguf.GGUFWriter(str(path), kind)
  writer.add_context_length(8192)
  writer.add_embedding_length(width)
  writer.add_block_count(depth)
  writer.add_feed_forward_length(mlp)
  writer.add_head_count(heads)
  writer.add_head_count_kv(kv_heads)
  writer.add_layer_norm_rms_eps(1e-6)
  writer.add_key_length(head_dim)
  writer.add_value_length(head_dim)
  writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
  if generation == 2 and not early:
    writer.add_attn_logit_softcapping(50.0)
    writer.add_final_logit_softcapping(30.0)
    writer.add_sliding_window(4096)
  if generation == 3:
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_sliding_window(_WINDOWS.get(name, 1024))
    if name not in _WINDOWS:
      writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
      writer.add_rope_scaling_factor(8.0)
  size = 2 * vocabulary * width
  writer.add_tensor_info(
    'token_embd.weight', (vocabulary, width), np.dtype(np.float16), size
  )
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_ti_data_to_file()
  writer.close()
  os.truncate(path, path.stat().st_size + writer.data_alignment + size)
  return path


def test_there_are_numbers_for_every_published_gemma():
  files = (_ROOT / 'gin' / 'models').glob('gemma_[0-9]*.gin')
  assert {path.stem for path in files} == set(_GEMMAS)


@pytest.mark.parametrize('name', _GEMMAS)
def test_a_published_gemma_is_read_as_its_fragment(name, tmp_path):
  path = _write(tmp_path / 'x.gguf', name)
  assert gguf_models.read_config(path) == model_names.config(name)


@pytest.mark.parametrize('name', [n for n in _GEMMAS if 'gemma_2' in n])
def test_an_early_gemma_2_has_the_defaults_of_llama_cpp(name, tmp_path):
  path = _write(tmp_path / 'x.gguf', name, early=True)
  metadata = gguf_file.File(path).metadata
  assert not [key for key in metadata if 'sliding' in key or 'softcap' in key]
  assert gguf_models.read_config(path) == model_names.config(name)


def _scaled(path, name, **scaling):
  file = gguf_file.File(_write(path, name))
  kind = file.metadata['general.architecture']
  for key, value in scaling.items():
    file.metadata[f'{kind}.rope.scaling.{key}'] = value
  return gguf_models.config_of(file)


def test_positions_of_a_gemma_1_are_scaled_as_its_file_says(tmp_path):
  path, name = tmp_path / 'x.gguf', 'gemma_1_2b'
  wanted = dataclasses.replace(model_names.config(name), rope_scale_factor=4.0)
  assert _scaled(path, name, type='linear', factor=4.0) == wanted
  assert _scaled(path, name, factor=4.0) == wanted


@pytest.mark.parametrize('name', ['gemma_1_2b', 'gemma_2_2b', 'gemma_3_1b'])
def test_a_scaling_that_is_none_scales_nothing(name, tmp_path):
  path = tmp_path / 'x.gguf'
  assert _scaled(path, name, type='none', factor=8.0) == model_names.config(
    name
  )
  assert _scaled(path, name, type='linear', factor=1.0) == model_names.config(
    name
  )
  assert _scaled(path, name, factor=0.0) == model_names.config(name)


@pytest.mark.parametrize(
  ('name', 'scaling', 'message'),
  [
    ('gemma_1_2b', {'type': 'yarn'}, "gemma.rope.scaling.type 'yarn'"),
    ('gemma_2_2b', {'type': 'yarn'}, "gemma2.rope.scaling.type 'yarn'"),
    ('gemma_3_1b', {'type': 'yarn'}, "gemma3.rope.scaling.type 'yarn'"),
    ('gemma_2_2b', {'factor': 4.0}, 'gemma2.rope.scaling.factor is 4.0'),
  ],
)
def test_a_scaling_that_no_config_has_is_refused(
  name, scaling, message, tmp_path
):
  with pytest.raises(errors.CheckpointError, match=message) as error:
    _scaled(tmp_path / 'x.gguf', name, **scaling)
  assert str(tmp_path / 'x.gguf') in str(error.value)


# Names of tensors.


_DEPTH = 3
_T5_SIZES = {
  'vocab_size': 8,
  'emb_dim': 4,
  'num_heads': 2,
  'head_dim': 2,
  'mlp_dim': 4,
  'num_encoder_layers': _DEPTH,
  'num_decoder_layers': _DEPTH,
}


def _theirs(kind, without=()):
  """What the library says that an architecture has, without some of it."""
  names = (
    gguf.TENSOR_NAMES[tensor]
    for tensor in gguf.MODEL_TENSORS[gguf.MODEL_ARCH[kind]]
  )
  return {
    f'{name.format(bid=i)}.weight'
    for name in names
    if name not in without
    # Positions have a bias in the first layer of a stack, for all of it.
    for i in range(1 if name.endswith('rel_b') else _DEPTH)
  }


@pytest.mark.parametrize(
  ('kind', 'name'),
  [
    ('GEMMA', 'gemma_1_2b'),
    ('GEMMA2', 'gemma_2_2b'),
    ('GEMMA3', 'gemma_3_1b'),
  ],
)
def test_a_gemmas_tensors_are_called_as_llama_cpp_does(kind, name):
  config = dataclasses.replace(model_names.config(name), num_layers=_DEPTH)
  assert isinstance(config, gemma_config.GemmaConfig)
  # The head of a Gemma is its embedding.
  assert set(gguf_models.table_of(config)) == _theirs(kind, {'output'})
  assert gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[kind]] in gguf_models._GEMMA


@pytest.mark.parametrize(
  ('of_config', 'without'),
  [
    (
      {
        'mlp_activations': ('gelu', 'linear'),
        'logits_via_embedding': False,
      },
      (),
    ),
    (
      {'mlp_activations': ('relu',), 'logits_via_embedding': True},
      ('output', 'enc.blk.{bid}.ffn_gate', 'dec.blk.{bid}.ffn_gate'),
    ),
  ],
)
def test_a_t5s_tensors_are_called_as_llama_cpp_does(of_config, without):
  config = t5_config.T5Config(**_T5_SIZES, **of_config)
  unread = 'dec.blk.{bid}.cross_attn_rel_b'
  names = _theirs('T5', {*without, unread})
  assert set(gguf_models.table_of(config)) == names
  assert f'{unread.format(bid=0)}.weight' in gguf_models._IGNORED
