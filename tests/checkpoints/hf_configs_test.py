"""What a config.json of Hugging Face's says of a model, read and written."""

from __future__ import annotations

import pathlib

import pytest

from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import hf_configs
from tests.models import gemma_golden
from tests.models import t5_golden


@pytest.mark.parametrize('name', gemma_golden.CASES)
def test_configs_are_written_as_they_were_read(name):
  config = gemma_golden.load(name).config
  again = hf_configs.read(hf_configs.write(config), pathlib.Path(name))
  assert again == config


@pytest.mark.parametrize('name', t5_golden.CASES)
def test_t5_configs_are_written_as_they_were_read(name):
  config = t5_golden.load(name).config
  again = hf_configs.read(hf_configs.write(config), pathlib.Path(name))
  assert again == config


def test_a_gate_of_silu_is_read_and_written():
  config = _read({'model_type': 't5', 'feed_forward_proj': 'gated-silu'})
  assert config.mlp_activations == ('silu', 'linear')
  assert hf_configs.write(config)['feed_forward_proj'] == 'gated-silu'


# Published config.json files, whose classes' defaults fill the gaps.

_GEMMA_2_2B = {
  'model_type': 'gemma2',
  'hidden_activation': 'gelu_pytorch_tanh',
  'num_hidden_layers': 26,
  'cache_implementation': 'hybrid',
}
_GEMMA_3_4B = {
  'model_type': 'gemma3',
  'text_config': {
    'model_type': 'gemma3_text',
    'hidden_size': 2560,
    'intermediate_size': 10240,
    'num_hidden_layers': 34,
    'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'},
    'sliding_window': 1024,
  },
}


def _read(content):
  return hf_configs.read(content, pathlib.Path('config.json'))


def test_a_published_gemma_2_is_read():
  config = _read(_GEMMA_2_2B)
  assert config.attention_pattern == ('local', 'global')
  assert (config.emb_dim, config.mlp_dim) == (2304, 9216)
  assert (config.attn_logit_softcap, config.final_logit_softcap) == (50.0, 30.0)
  assert config.sliding_window == 4096 and config.use_post_norms


def test_what_the_first_gemma_calls_gelu_is_the_approximation():
  content = {'model_type': 'gemma', 'hidden_activation': None}
  named = {'model_type': 'gemma', 'hidden_act': 'gelu_pytorch_tanh'}
  assert _read({**content, 'hidden_act': 'gelu'}) == _read(named)


def test_a_published_gemma_3_that_sees_images_is_read():
  config = _read(_GEMMA_3_4B)
  assert config.attention_pattern == ('local',) * 5 + ('global',)
  assert (config.vocab_size, config.num_heads) == (262208, 8)
  assert (config.rope_base, config.local_rope_base) == (1e6, 1e4)
  assert config.rope_scale_factor == 8.0 and config.sliding_window == 1024


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ({'model_type': 'llama'}, "'llama' is not read; known are t5, gemma"),
    ({}, 'model_type None is not read'),
    ({'model_type': 'gemma3'}, 'gemma3 without a text_config'),
    (
      {'model_type': 't5', 'feed_forward_proj': 'gated-tanh'},
      "'gated-tanh' is not known",
    ),
    (
      {'model_type': 't5', 'decoder_start_token_id': 1},
      'decoder_start_token_id 1 is not known',
    ),
    ({**_GEMMA_2_2B, 'hidden_activation': 'silu'}, "'silu' is not computed"),
    # By the error function, and not by a tanh.
    ({**_GEMMA_2_2B, 'hidden_activation': 'gelu'}, "'gelu' is not computed"),
    ({'model_type': 'gemma', 'hidden_activation': 'gelu'}, "'gelu' is not"),
    ({'model_type': 'gemma', 'hidden_act': 'relu'}, "'relu' is not computed"),
    ({**_GEMMA_2_2B, 'attention_bias': True}, 'attention_bias=True'),
    ({**_GEMMA_2_2B, 'head_dim': 0}, 'head_dim must be a positive integer'),
    ({**_GEMMA_2_2B, 'layer_types': ['ring'] * 26}, "layer_types .*'ring'"),
    (
      {**_GEMMA_2_2B, 'rope_parameters': {'rope_type': 'yarn'}},
      "rope_type 'yarn' is not known",
    ),
    ({**_GEMMA_2_2B, 'tie_word_embeddings': False}, 'tie_word_embeddings'),
    ({**_GEMMA_3_4B, 'tie_word_embeddings': False}, 'tie_word_embeddings'),
  ],
  ids=lambda x: '' if isinstance(x, dict) else x[:20],
)
def test_an_architecture_that_is_not_read_is_named(content, message):
  with pytest.raises(errors.CheckpointError, match=message) as error:
    _read(content)
  assert 'config.json' in str(error.value)


# Rotary positions.

_LINEAR = {'rope_type': 'linear', 'factor': 4.0}
_NO_SCALE = [
  None,
  {},
  {'rope_type': 'default'},
  {'type': 'default', 'factor': 4.0},
  {'factor': 1},
  {'rope_type': 'linear', 'factor': 1.0},
]


@pytest.mark.parametrize('key', ['rope_scaling', 'rope_parameters'])
@pytest.mark.parametrize('kind', ['gemma', 'gemma2', 'gemma3_text'])
def test_what_leaves_positions_as_they_are_is_accepted(kind, key):
  plain = _read({'model_type': kind})
  for value in _NO_SCALE:
    assert _read({'model_type': kind, key: value}) == plain


@pytest.mark.parametrize(
  ('content', 'factor'),
  [
    ({'model_type': 'gemma', 'rope_scaling': _LINEAR}, 4.0),
    (
      {'model_type': 'gemma', 'rope_scaling': {'type': 'linear', 'factor': 2}},
      2.0,
    ),
    ({'model_type': 'gemma', 'rope_parameters': _LINEAR}, 4.0),
    ({'model_type': 'gemma3_text', 'rope_scaling': _LINEAR}, 4.0),
    (
      {
        'model_type': 'gemma3_text',
        'rope_parameters': {'full_attention': _LINEAR},
      },
      4.0,
    ),
  ],
  ids=str,
)
def test_linear_scaling_is_that_of_global_layers(content, factor):
  config = _read(content)
  assert config.rope_scale_factor == factor
  assert _read(hf_configs.write(config)) == config


@pytest.mark.parametrize('key', ['rope_scaling', 'rope_parameters'])
@pytest.mark.parametrize(
  ('kind', 'value', 'message'),
  [
    ('gemma2', _LINEAR, "rope_scaling .*'linear'.* scales .* local"),
    ('gemma', {'type': 'yarn', 'factor': 4.0}, "rope_type 'yarn' is not known"),
    ('gemma2', {'rope_type': 'dynamic', 'factor': 4.0}, "'dynamic' is not"),
    ('gemma3_text', {'rope_type': 'llama3', 'factor': 4.0}, "'llama3' is not"),
    ('gemma', {'factor': 4.0}, 'rope_type None is not known'),
    ('gemma', {'rope_type': 'linear'}, 'rope_scale_factor must be .*got None'),
    ('gemma2', {'full_attention': _LINEAR}, 'full_attention.* is not known'),
    (
      'gemma3_text',
      {'rope_type': 'default', 'partial_rotary_factor': 0.5},
      'partial_rotary_factor',
    ),
    ('gemma3_text', [_LINEAR], 'must hold an object'),
  ],
  ids=str,
)
def test_positions_that_are_not_computed_here_are_refused(
  kind, value, message, key
):
  with pytest.raises(errors.CheckpointError, match=message):
    _read({'model_type': kind, key: value})


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    # transformers passes over all of them, and whoever wrote them did not.
    ('rope_scaling', {'full_attention': _LINEAR}, 'full_attention.* not known'),
    ('rope_parameters', _LINEAR, 'do not say of which layers.*full_attention'),
    ('rope_parameters', {'rope_theta': 5e5}, 'do not say of which layers'),
    (
      'rope_parameters',
      {'sliding_attention': _LINEAR},
      'scales positions in local layers',
    ),
  ],
)
def test_a_gemma_3_says_of_which_layers(key, value, message):
  with pytest.raises(errors.CheckpointError, match=message):
    _read({'model_type': 'gemma3_text', key: value})
