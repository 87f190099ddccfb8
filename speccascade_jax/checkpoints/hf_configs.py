"""Hugging Face's config.json of a T5 or a Gemma, read and written.

Published files leave out what is the class's default, and say the same things
in the terms of several generations of the library; both are understood. What
would change the numbers and is not understood is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from speccascade_jax.checkpoints import errors
from speccascade_jax.models import config_checks
from speccascade_jax.models import families
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config

# What config.json need not say, by model type: the library's defaults.
_DEFAULTS: dict[str, dict[str, Any]] = {
  't5': {
    'vocab_size': 32128,
    'd_model': 512,
    'd_kv': 64,
    'd_ff': 2048,
    'num_layers': 6,
    'num_heads': 8,
    'relative_attention_num_buckets': 32,
    'relative_attention_max_distance': 128,
    'layer_norm_epsilon': 1e-6,
    'feed_forward_proj': 'relu',
    'tie_word_embeddings': True,
  },
  'gemma': {
    'vocab_size': 256000,
    'hidden_size': 3072,
    'intermediate_size': 24576,
    'num_hidden_layers': 28,
    'num_attention_heads': 16,
    'num_key_value_heads': 16,
    'head_dim': 256,
    'rms_norm_eps': 1e-6,
    'rope_theta': 10_000.0,
    'tie_word_embeddings': True,
  },
  'gemma2': {
    'vocab_size': 256000,
    'hidden_size': 2304,
    'intermediate_size': 9216,
    'num_hidden_layers': 26,
    'num_attention_heads': 8,
    'num_key_value_heads': 4,
    'head_dim': 256,
    'rms_norm_eps': 1e-6,
    'rope_theta': 10_000.0,
    'query_pre_attn_scalar': 256,
    'sliding_window': 4096,
    'attn_logit_softcapping': 50.0,
    'final_logit_softcapping': 30.0,
    'sliding_window_pattern': 2,
    'tie_word_embeddings': True,
  },
  'gemma3_text': {
    'vocab_size': 262208,
    'hidden_size': 2304,
    'intermediate_size': 9216,
    'num_hidden_layers': 26,
    'num_attention_heads': 8,
    'num_key_value_heads': 4,
    'head_dim': 256,
    'rms_norm_eps': 1e-6,
    'rope_theta': 1_000_000.0,
    'rope_local_base_freq': 10_000.0,
    'query_pre_attn_scalar': 256,
    'sliding_window': 4096,
    'attn_logit_softcapping': None,
    'final_logit_softcapping': None,
    'sliding_window_pattern': 6,
    'tie_word_embeddings': True,
  },
}
# The published images-and-text models leave more to their class.
_TEXT_OF = {'gemma3': 'gemma3_text'}
_FEED_FORWARD = {
  'relu': ('relu',),
  'gated-gelu': ('gelu', 'linear'),
  'gated-relu': ('relu', 'linear'),
  'gated-silu': ('silu', 'linear'),
}
# What is known of rotary positions, in either generation's words.
_ROPE = ('rope_type', 'type', 'rope_theta', 'factor')
# The approximation by a tanh, which is what is computed here.
_GELU = ('gelu_pytorch_tanh', 'gelu_new')
_LAYERS = {
  'sliding_attention': gemma_config.LOCAL,
  'full_attention': gemma_config.GLOBAL,
}


def read(content: Mapping[str, Any], path: pathlib.Path) -> families.Config:
  """The model's shape; `path` is for messages.

  Raises:
    CheckpointError: if it is of another architecture, or of a variant that
      would not compute the same here.
  """
  kind = content.get('model_type')
  if isinstance(kind, str) and kind in _TEXT_OF:
    text = content.get('text_config')
    if not isinstance(text, Mapping):
      raise errors.CheckpointError(f'{path}: a {kind} without a text_config.')
    if not content.get('tie_word_embeddings', True):
      # The whole model's word counts, whatever its text says of itself.
      text = {**text, 'tie_word_embeddings': False}
    content, kind = text, _TEXT_OF[kind]
  if not isinstance(kind, str) or kind not in _DEFAULTS:
    raise errors.CheckpointError(
      f'{path}: model_type {kind!r:.80} is not read; known are '
      f'{", ".join([*_DEFAULTS, *_TEXT_OF])}.'
    )
  content = {**_DEFAULTS[kind], **content}
  try:
    return _t5(content) if kind == 't5' else _gemma(kind, content)
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise errors.CheckpointError(f'{path}: {error}') from error


def is_tied(content: Mapping[str, Any]) -> bool:
  """Whether a T5's head, if it is missing, is its embedding.

  As it is where nothing is said. transformers 5 calls tied what it saves
  without a head, whatever the model was.
  """
  classes = content.get('architectures')
  headless = isinstance(classes, list) and 'T5Model' in classes
  return content.get('tie_word_embeddings', True) is True and not headless


def _t5(content: Mapping[str, Any]) -> t5_config.T5Config:
  feed_forward = content['feed_forward_proj']
  if not isinstance(feed_forward, str) or feed_forward not in _FEED_FORWARD:
    raise ValueError(
      f'feed_forward_proj {feed_forward!r:.80} is not known; known are '
      f'{", ".join(_FEED_FORWARD)}.'
    )
  # The decoding loops begin every text with 0. What a model was padded with is
  # of no account (MADLAD-400: 1): inputs are padded with 0 here, which the
  # encoder's mask hides, and what stands behind a text is never attended to.
  # Where 0 is a piece (there: the unknown one), it is hidden in a source, too.
  start = content.get('decoder_start_token_id')
  if start not in (None, 0):
    raise ValueError(
      f'decoder_start_token_id {start!r:.80} is not known: decoders start from '
      '0 here.'
    )
  # transformers 5 says of every T5 that it is tied, and of v1.0, which is, that
  # its outputs are scaled; before, one word stood for both.
  tied = content.get('scale_decoder_outputs', content['tie_word_embeddings'])
  layers = content['num_layers']
  decoder_layers = content.get('num_decoder_layers')
  return t5_config.T5Config(
    vocab_size=content['vocab_size'],
    emb_dim=content['d_model'],
    num_heads=content['num_heads'],
    head_dim=content['d_kv'],
    mlp_dim=content['d_ff'],
    num_encoder_layers=layers,
    num_decoder_layers=layers if decoder_layers is None else decoder_layers,
    mlp_activations=_FEED_FORWARD[feed_forward],
    logits_via_embedding=tied,
    relative_attention_num_buckets=content['relative_attention_num_buckets'],
    relative_attention_max_distance=content['relative_attention_max_distance'],
    layer_norm_epsilon=content['layer_norm_epsilon'],
  )


def _gemma(kind: str, content: Mapping[str, Any]) -> gemma_config.GemmaConfig:
  activation = content.get('hidden_activation')
  if activation is None and kind == 'gemma':
    # The first uploads say 'gelu', which has always been read as the other.
    legacy = content.get('hidden_act')
    activation = None if legacy == 'gelu' else legacy
  if activation not in (None, *_GELU):
    raise ValueError(
      f'activation {activation!r:.80} is not computed here, only '
      f'{" and ".join(_GELU)}.'
    )
  for field in ('attention_bias', 'use_bidirectional_attention'):
    if content.get(field):
      raise ValueError(f'{field}={content[field]!r} is not known.')
  if not content['tie_word_embeddings']:
    raise ValueError('tie_word_embeddings=False is not known.')
  settings: dict[str, Any] = {}
  local, scaled = content['rope_theta'], 1.0
  base = content['rope_theta']
  if kind != 'gemma':
    settings = dict(
      attention_pattern=_pattern(content),
      sliding_window=content['sliding_window'],
      query_pre_attn_scalar=content['query_pre_attn_scalar'],
      attn_logit_softcap=content['attn_logit_softcapping'],
      final_logit_softcap=content['final_logit_softcapping'],
      use_post_norms=True,
      use_qk_norm=kind == 'gemma3_text',
    )
  ropes = _object(content, 'rope_parameters')
  if kind == 'gemma3_text':
    local = content['rope_local_base_freq']
    # The older word has always been for global layers alone.
    whole = {
      **_object(ropes, 'full_attention'),
      **_object(content, 'rope_scaling'),
    }
    window = _object(ropes, 'sliding_attention')
    every = {k: v for k, v in ropes.items() if k not in _LAYERS}
    other = 'rope_theta' in every and every['rope_theta'] != base
    if other or _scale(every) != 1.0:
      # transformers itself passes over it.
      raise ValueError(
        f'rope_parameters {every!r:.80} do not say of which layers: give them '
        f'for {" and ".join(_LAYERS)}.'
      )
    base = whole.get('rope_theta', base)
    local = window.get('rope_theta', local)
    scaled = _scale(whole)
    if _scale(window) != 1.0:
      raise ValueError(
        f'rope_scaling {window!r:.80} scales positions in local layers.'
      )
  else:
    ropes = {**ropes, **_object(content, 'rope_scaling')}
    base = local = ropes.get('rope_theta', base)
    scaled = _scale(ropes)
    pattern = settings.get('attention_pattern', ())
    if scaled != 1.0 and gemma_config.LOCAL in pattern:
      raise ValueError(
        f'rope_scaling {ropes!r:.80} scales positions in local layers, too.'
      )
  return gemma_config.GemmaConfig(
    vocab_size=content['vocab_size'],
    emb_dim=content['hidden_size'],
    num_layers=content['num_hidden_layers'],
    num_heads=content['num_attention_heads'],
    num_kv_heads=content['num_key_value_heads'],
    head_dim=content['head_dim'],
    mlp_dim=content['intermediate_size'],
    rope_base=base,
    local_rope_base=local,
    rope_scale_factor=scaled,
    rms_norm_epsilon=content['rms_norm_eps'],
    **settings,
  )


def _object(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
  """An object in an object; an empty one where there is none."""
  value = content.get(key) or {}
  if not isinstance(value, Mapping):
    raise ValueError(f'{key} must hold an object, got {value!r:.80}.')
  return value


def _pattern(content: Mapping[str, Any]) -> tuple[str, ...]:
  """Local and global layers, as short as it repeats."""
  depth, types = content['num_hidden_layers'], content.get('layer_types')
  if types is None:
    every = content.get('_sliding_window_pattern')
    every = content['sliding_window_pattern'] if every is None else every
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
      raise ValueError(
        f'sliding_window_pattern must be a positive integer, got {every!r:.80}.'
      )
    if (
      not isinstance(depth, int) or not 1 <= depth <= config_checks.MOST_LAYERS
    ):
      # Not one layer is made of a depth that the config will refuse.
      return (gemma_config.LOCAL,)
    types = [
      'full_attention' if (i + 1) % every == 0 else 'sliding_attention'
      for i in range(depth)
    ]
  if (
    not isinstance(types, list)
    or len(types) != depth
    or not types
    or any(not isinstance(t, str) or t not in _LAYERS for t in types)
  ):
    raise ValueError(f'layer_types {types!r:.80} of {depth!r:.80} layers.')
  return gemma_config.shortest_pattern([_LAYERS[t] for t in types])


def _scale(rope: Mapping[str, Any]) -> Any:
  """What positions are divided by; its value is not checked yet.

  Raises:
    ValueError: if they are changed in another way, or nothing says in which.
  """
  unknown = {
    key: value
    for key, value in rope.items()
    if key not in _ROPE and value is not None
  }
  if unknown:
    raise ValueError(
      f'{unknown!r:.80} in rope_scaling or rope_parameters is not known.'
    )
  kind = rope.get('rope_type', rope.get('type'))
  factor = rope.get('factor')
  if kind == 'default' or (kind is None and factor in (None, 1)):
    return 1.0
  if kind == 'linear':
    return factor
  raise ValueError(
    f'rope_type {kind!r:.80} is not known, only linear and default.'
  )


def write(config: families.Config) -> dict[str, Any]:
  """What `from_pretrained` needs to know of a model of this shape.

  Raises:
    CheckpointError: if Hugging Face has no such model.
  """
  if isinstance(config, t5_config.T5Config):
    return _write_t5(config)
  return _write_gemma(config)


def _write_t5(config: t5_config.T5Config) -> dict[str, Any]:
  names = {ours: theirs for theirs, ours in _FEED_FORWARD.items()}
  if config.mlp_activations not in names:
    raise errors.CheckpointError(
      f'Hugging Face has no T5 with mlp_activations={config.mlp_activations}.'
    )
  if config.relative_attention_per_layer:
    raise errors.CheckpointError(
      'Position biases of their own in each layer (umT5) are not written for '
      'Hugging Face, whose T5 shares one; T5Config has '
      'relative_attention_per_layer=True.'
    )
  return {
    'model_type': 't5',
    'architectures': ['T5ForConditionalGeneration'],
    'vocab_size': config.vocab_size,
    'd_model': config.emb_dim,
    'd_kv': config.head_dim,
    'd_ff': config.mlp_dim,
    'num_heads': config.num_heads,
    'num_layers': config.num_encoder_layers,
    'num_decoder_layers': config.num_decoder_layers,
    'feed_forward_proj': names[config.mlp_activations],
    'tie_word_embeddings': config.logits_via_embedding,
    'relative_attention_num_buckets': config.relative_attention_num_buckets,
    'relative_attention_max_distance': config.relative_attention_max_distance,
    'layer_norm_epsilon': config.layer_norm_epsilon,
    'dropout_rate': config.dropout_rate,
    'is_encoder_decoder': True,
    'decoder_start_token_id': 0,
    'pad_token_id': 0,
    'eos_token_id': 1,
    # transformers makes a cache of as many layers as the encoder has.
    'use_cache': config.num_decoder_layers <= config.num_encoder_layers,
  }


def _write_gemma(config: gemma_config.GemmaConfig) -> dict[str, Any]:
  generation = gemma_config.generation(config)
  if generation is None:
    raise errors.CheckpointError(
      f'Hugging Face has no Gemma that combines what this one does: {config}.'
    )
  content: dict[str, Any] = {
    'architectures': [
      ('GemmaForCausalLM', 'Gemma2ForCausalLM', 'Gemma3ForCausalLM')[
        generation - 1
      ]
    ],
    'model_type': ('gemma', 'gemma2', 'gemma3_text')[generation - 1],
    'vocab_size': config.vocab_size,
    'hidden_size': config.emb_dim,
    'intermediate_size': config.mlp_dim,
    'num_hidden_layers': config.num_layers,
    'num_attention_heads': config.num_heads,
    'num_key_value_heads': config.num_kv_heads,
    'head_dim': config.head_dim,
    'rms_norm_eps': config.rms_norm_epsilon,
    'tie_word_embeddings': True,
    'pad_token_id': 0,
    'eos_token_id': 1,
  }
  gelu = 'gelu_pytorch_tanh'
  rope = _rope(config.rope_base, config.rope_scale_factor)
  if generation == 1:
    return content | {
      'hidden_act': gelu,
      'hidden_activation': gelu,
      'rope_theta': config.rope_base,
      'rope_parameters': rope,
    }
  kinds = {ours: theirs for theirs, ours in _LAYERS.items()}
  scalar = config.query_pre_attn_scalar
  content |= {
    'hidden_activation': gelu,
    'layer_types': [
      kinds[gemma_config.LOCAL if config.is_local(i) else gemma_config.GLOBAL]
      for i in range(config.num_layers)
    ],
    # Read even where no layer slides.
    'sliding_window': config.sliding_window or 4096,
    # The library insists on an integer.
    'query_pre_attn_scalar': config.head_dim
    if scalar is None
    else _int(scalar),
    'attn_logit_softcapping': config.attn_logit_softcap,
    'final_logit_softcapping': config.final_logit_softcap,
  }
  if generation == 2:
    return content | {
      'rope_theta': config.rope_base,
      'rope_parameters': rope,
    }
  return content | {
    'rope_parameters': {
      'sliding_attention': _rope(config.local_rope_base),
      'full_attention': rope,
    }
  }


def _int(value: float) -> int:
  if value != int(value):
    raise errors.CheckpointError(
      f'Hugging Face has no Gemma with query_pre_attn_scalar={value}.'
    )
  return int(value)


def _rope(base: float, factor: float = 1.0) -> dict[str, Any]:
  if factor == 1.0:
    return {'rope_type': 'default', 'rope_theta': base}
  return {'rope_type': 'linear', 'rope_theta': base, 'factor': factor}
