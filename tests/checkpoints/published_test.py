"""What the publishers' files say of each model is what gin/models says.

Typed from the config.json files on Hugging Face's hub, and from the shapes in
Orbax's metadata as google-deepmind/gemma names them; no weights.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import orbax_models
from speccascade_jax.launch import model_names

_MODELS = pathlib.Path(__file__).parents[2] / 'gin/models'


def _t5(d_model, d_ff, num_heads, num_layers, d_kv=64, **more):
  return {
    'architectures': ['T5ForConditionalGeneration'],
    'd_ff': d_ff,
    'd_kv': d_kv,
    'd_model': d_model,
    'decoder_start_token_id': 0,
    'dropout_rate': 0.1,
    'eos_token_id': 1,
    'initializer_factor': 1.0,
    'is_encoder_decoder': True,
    'layer_norm_epsilon': 1e-06,
    'model_type': 't5',
    'num_heads': num_heads,
    'num_layers': num_layers,
    'output_past': True,
    'pad_token_id': 0,
    'relative_attention_num_buckets': 32,
    'vocab_size': 32128,
    **more,
  }


def _t5_1_1(*sizes):
  return _t5(
    *sizes,
    num_decoder_layers=sizes[-1],
    feed_forward_proj='gated-gelu',
    tie_word_embeddings=False,
  )


def _gemma_1(**sizes):
  return {
    'architectures': ['GemmaForCausalLM'],
    'attention_bias': False,
    'attention_dropout': 0.0,
    'bos_token_id': 2,
    'eos_token_id': 1,
    'head_dim': 256,
    'hidden_act': 'gelu',
    'initializer_range': 0.02,
    'max_position_embeddings': 8192,
    'model_type': 'gemma',
    'pad_token_id': 0,
    'rms_norm_eps': 1e-06,
    'rope_scaling': None,
    'rope_theta': 10000.0,
    'torch_dtype': 'bfloat16',
    'use_cache': True,
    'vocab_size': 256000,
    **sizes,
  }


def _gemma_2(**sizes):
  return {
    'architectures': ['Gemma2ForCausalLM'],
    'attention_bias': False,
    'attn_logit_softcapping': 50.0,
    'bos_token_id': 2,
    'cache_implementation': 'hybrid',
    'eos_token_id': 1,
    'final_logit_softcapping': 30.0,
    'head_dim': 256,
    'hidden_act': 'gelu_pytorch_tanh',
    'hidden_activation': 'gelu_pytorch_tanh',
    'max_position_embeddings': 8192,
    'model_type': 'gemma2',
    'pad_token_id': 0,
    'query_pre_attn_scalar': 256,
    'rms_norm_eps': 1e-06,
    'rope_theta': 10000.0,
    'sliding_window': 4096,
    'vocab_size': 256000,
    **sizes,
  }


def _gemma_3(**sizes):
  """Of those that see no images."""
  return {
    'architectures': ['Gemma3ForCausalLM'],
    'attention_bias': False,
    'attn_logit_softcapping': None,
    'bos_token_id': 2,
    'eos_token_id': [1, 106],
    'final_logit_softcapping': None,
    'head_dim': 256,
    'hidden_activation': 'gelu_pytorch_tanh',
    'max_position_embeddings': 32768,
    'model_type': 'gemma3_text',
    'num_attention_heads': 4,
    'num_key_value_heads': 1,
    'pad_token_id': 0,
    'query_pre_attn_scalar': 256,
    'rms_norm_eps': 1e-06,
    'rope_local_base_freq': 10000.0,
    'rope_scaling': None,
    'rope_theta': 1000000.0,
    'sliding_window': 512,
    'vocab_size': 262144,
    **sizes,
  }


def _gemma_3_with_images(**sizes):
  """Of those that do, which leave much of their text to its class."""
  return {
    'architectures': ['Gemma3ForConditionalGeneration'],
    'boi_token_index': 255999,
    'eoi_token_index': 256000,
    'eos_token_id': [1, 106],
    'image_token_index': 262144,
    'mm_tokens_per_image': 256,
    'model_type': 'gemma3',
    'text_config': {
      'model_type': 'gemma3_text',
      'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'},
      'sliding_window': 1024,
      **sizes,
    },
    'vision_config': {'hidden_size': 1152, 'model_type': 'siglip_vision_model'},
  }


_PUBLISHED = {
  # google-t5/t5-*, which leave out what v1.1 changed.
  't5_1_0_small': _t5(512, 2048, 8, 6),
  't5_1_0_base': _t5(768, 3072, 12, 12),
  't5_1_0_large': _t5(1024, 4096, 16, 24),
  't5_1_0_3b': _t5(1024, 16384, 32, 24, 128),
  't5_1_0_11b': _t5(1024, 65536, 128, 24, 128),
  # google/t5-v1_1-* and google/flan-t5-*.
  't5_1_1_small': _t5_1_1(512, 1024, 6, 8),
  't5_1_1_base': _t5_1_1(768, 2048, 12, 12),
  't5_1_1_large': _t5_1_1(1024, 2816, 16, 24),
  't5_1_1_xl': _t5_1_1(2048, 5120, 32, 24),
  't5_1_1_xxl': _t5_1_1(4096, 10240, 64, 24),
  'gemma_1_2b': _gemma_1(
    hidden_size=2048,
    intermediate_size=16384,
    num_attention_heads=8,
    num_hidden_layers=18,
    num_key_value_heads=1,
  ),
  'gemma_1_7b': _gemma_1(
    hidden_size=3072,
    intermediate_size=24576,
    num_attention_heads=16,
    num_hidden_layers=28,
    num_key_value_heads=16,
  ),
  'gemma_2_2b': _gemma_2(
    hidden_size=2304,
    intermediate_size=9216,
    num_attention_heads=8,
    num_hidden_layers=26,
    num_key_value_heads=4,
  ),
  'gemma_2_9b': _gemma_2(
    hidden_size=3584,
    intermediate_size=14336,
    num_attention_heads=16,
    num_hidden_layers=42,
    num_key_value_heads=8,
  ),
  'gemma_2_27b': _gemma_2(
    head_dim=128,
    hidden_size=4608,
    intermediate_size=36864,
    num_attention_heads=32,
    num_hidden_layers=46,
    num_key_value_heads=16,
    query_pre_attn_scalar=144,
  ),
  'gemma_3_270m': _gemma_3(
    hidden_size=640,
    intermediate_size=2048,
    num_hidden_layers=18,
    # The first that was published with its layers spelt out.
    _sliding_window_pattern=6,
    layer_types=(['sliding_attention'] * 5 + ['full_attention']) * 3,
    use_bidirectional_attention=False,
  ),
  'gemma_3_1b': _gemma_3(
    hidden_size=1152,
    intermediate_size=6912,
    num_hidden_layers=26,
    sliding_window_pattern=6,
  ),
  'gemma_3_4b': _gemma_3_with_images(
    hidden_size=2560, intermediate_size=10240, num_hidden_layers=34
  ),
  'gemma_3_12b': _gemma_3_with_images(
    hidden_size=3840,
    intermediate_size=15360,
    num_attention_heads=16,
    num_hidden_layers=48,
    num_key_value_heads=8,
  ),
  'gemma_3_27b': _gemma_3_with_images(
    head_dim=128,
    hidden_size=5376,
    intermediate_size=21504,
    num_attention_heads=32,
    num_hidden_layers=62,
    num_key_value_heads=16,
    query_pre_attn_scalar=168,
  ),
}


def test_every_published_shape_is_held_to_its_file():
  names = {path.stem for path in _MODELS.glob('*_[123]_*.gin')}
  assert names == set(_PUBLISHED)


@pytest.mark.parametrize('name', _PUBLISHED)
def test_a_published_config_is_that_of_its_fragment(name, tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(_PUBLISHED[name]))
  assert huggingface.read_config(tmp_path) == model_names.config(name)


# Layers, E, F, H, heads of keys, D; for files that do not have config.json.
GEMMAS = {
  'gemma_1_2b': (18, 2048, 16384, 8, 1, 256),
  'gemma_1_7b': (28, 3072, 24576, 16, 16, 256),
  'gemma_2_2b': (26, 2304, 9216, 8, 4, 256),
  'gemma_2_9b': (42, 3584, 14336, 16, 8, 256),
  'gemma_2_27b': (46, 4608, 36864, 32, 16, 128),
  'gemma_3_270m': (18, 640, 2048, 4, 1, 256),
  'gemma_3_1b': (26, 1152, 6912, 4, 1, 256),
  'gemma_3_4b': (34, 2560, 10240, 8, 4, 256),
  'gemma_3_12b': (48, 3840, 15360, 16, 8, 256),
  'gemma_3_27b': (62, 5376, 21504, 32, 16, 128),
}


@dataclasses.dataclass
class _Metadata:
  """Names and shapes, as a checkpoint of bfloat16 lists them."""

  shapes: dict[str, tuple[int, ...]]
  path: str = 'gemma'

  @property
  def dtypes(self):
    return dict.fromkeys(self.shapes, 'bfloat16')


def _orbax(generation, depth, emb_dim, mlp_dim, heads, kv_heads, head_dim):
  gating = (2, emb_dim, mlp_dim) if generation == 1 else (2, mlp_dim, emb_dim)
  layer = {
    'attn/attn_vec_einsum': (heads, head_dim, emb_dim),
    'mlp/gating_einsum': gating,
    'mlp/linear': (mlp_dim, emb_dim),
    'pre_attention_norm/scale': (emb_dim,),
    'pre_ffw_norm/scale': (emb_dim,),
  }
  if heads == kv_heads:
    layer['attn/qkv_einsum'] = (3, heads, emb_dim, head_dim)
  else:
    layer['attn/q_einsum'] = (heads, emb_dim, head_dim)
    layer['attn/kv_einsum'] = (2, kv_heads, emb_dim, head_dim)
  if generation > 1:
    layer['post_attention_norm/scale'] = (emb_dim,)
    layer['post_ffw_norm/scale'] = (emb_dim,)
  if generation > 2:
    layer['attn/_query_norm/scale'] = (head_dim,)
    layer['attn/_key_norm/scale'] = (head_dim,)
  rows = 262_144 if generation > 2 else 256_128
  return {
    'embedder/input_embedding': (rows, emb_dim),
    'final_norm/scale': (emb_dim,),
    **{
      f'layer_{i}/{name}': shape
      for i in range(depth)
      for name, shape in layer.items()
    },
  }


@pytest.mark.parametrize('name', GEMMAS)
def test_published_shapes_in_orbax_tell_the_rest_of_the_fragment(name):
  shapes = _orbax(int(name.split('_')[1]), *GEMMAS[name])
  found = orbax_models.gemma_config_of(_Metadata(shapes))
  # The one thing in which Orbax and Hugging Face differ: padding.
  assert found.vocab_size == shapes['embedder/input_embedding'][0]
  expected = model_names.config(name)
  assert dataclasses.replace(found, vocab_size=expected.vocab_size) == expected
  # And every tensor has its place.
  assert orbax_models.gemma_table(found, shapes).keys() == shapes.keys()
