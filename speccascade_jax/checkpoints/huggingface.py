"""T5 and Gemma as Hugging Face keeps them: config.json and safetensors.

    config, params = huggingface.load('flan-t5-small')

Their matrices are [out, in], ours [in, out]; everything else is a matter of
names. The same tables read and write.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import os
import pathlib
import tempfile
from typing import Any

from flax import traverse_util
import numpy as np
import safetensors.numpy

from speccascade_jax import base
from speccascade_jax import marks
from speccascade_jax import transformers_tokenizer
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import hf_configs
from speccascade_jax.checkpoints import safetensors_source
from speccascade_jax.checkpoints import translate
from speccascade_jax.models import families
from speccascade_jax.models import products
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config

CONFIG_FILE = 'config.json'
# What of the config transformers generates texts by.
_GENERATION = (
  *('bos_token_id', 'eos_token_id', 'pad_token_id'),
  *('decoder_start_token_id', 'use_cache'),
)
_HEAD = 'lm_head.weight'
# What a T5 may call its embedding, the best first: transformers' converter of
# T5X leaves it under its users' names alone, as in MADLAD-400.
_EMBEDDINGS = (
  'shared.weight',
  'decoder.embed_tokens.weight',
  'encoder.embed_tokens.weight',
)

# Where a text model's tensors lie: alone, in the two forms of a Gemma 3 that
# also sees images, and where a model without its head was saved (AutoModel).
_GEMMA_PREFIXES = (
  *('model.', 'language_model.model.', 'model.language_model.'),
  *('language_model.', ''),
)
# What such a model has besides the text.
_IMAGES = tuple(
  f'{prefix}{name}.'
  for prefix in ('', 'model.')
  for name in ('vision_tower', 'multi_modal_projector')
)


def load(
  directory: str | os.PathLike[str],
  dtype: str | None = None,
  place: translate.Place = translate.put,
) -> tuple[families.Config, base.Params]:
  """Reads a folder that `save_pretrained` wrote.

  Args:
    directory: with config.json and model.safetensors, or its shards and index.
    dtype: of the parameters in memory; as stored without.
    place: see `translate.load`.

  Raises:
    CheckpointError: if the folder is not that of a T5 or a Gemma, or its files
      are missing, broken or do not fit its config.
  """
  folder = pathlib.Path(directory)
  path = folder / CONFIG_FILE
  content = safetensors_source.read_json(path)
  config = hf_configs.read(content, path)
  source = safetensors_source.open_folder(folder)
  table = table_of(config, _prefix(source.shapes))
  if isinstance(config, t5_config.T5Config):
    table = _t5_names(source, table, hf_configs.is_tied(content))
  copies = _copies(source.shapes, table)
  if isinstance(config, t5_config.T5Config):
    translate.check(source, table, config, copies)
    embedding = next(name for name in _EMBEDDINGS if name in table)
    for name in sorted(copies & {*_EMBEDDINGS, _HEAD}):
      translate.check_same(source, embedding, name)
  params = translate.load(source, table, config, dtype, copies, place)
  return config, params


def _t5_names(
  source: translate.Index, table: translate.Table, tied: bool
) -> translate.Table:
  """A T5's table with the names that its embedding and head have here."""
  table = dict(table)
  parts = table.pop(_EMBEDDINGS[0])
  if _HEAD in table and _HEAD not in source.shapes:
    if not tied:
      raise errors.CheckpointError(
        f'{source.path}: missing {_HEAD}. {CONFIG_FILE} says that this model '
        'has a head of its own (tie_word_embeddings is false) or was saved '
        'without one (architectures names T5Model, as AutoModel of '
        'transformers does): load and save it by AutoModelForSeq2SeqLM.'
      )
    # Tied, but not scaled as v1.0 is: our two matrices are this one.
    parts += table.pop(_HEAD)
  found = (name for name in _EMBEDDINGS if name in source.shapes)
  return {next(found, _EMBEDDINGS[0]): parts, **table}


def read_config(directory: str | os.PathLike[str]) -> families.Config:
  """The model's shape, without its weights; errors as in `load`."""
  path = pathlib.Path(directory) / CONFIG_FILE
  return hf_configs.read(safetensors_source.read_json(path), path)


def save(
  directory: str | os.PathLike[str],
  config: families.Config,
  params: base.Params,
  dtype: str | None = None,
  vocabulary: vocabularies.Vocabulary | None = None,
) -> None:
  """Writes a folder that `from_pretrained` reads, in place of one there.

  A T5 whose decoder is deeper than its encoder decodes without a cache there:
  transformers gives it one of as many layers as the encoder has.

  Args:
    directory: made if it is not there.
    config: the model's shape.
    params: the plain pytree of arrays under 'params', or a loaded model's.
    dtype: to store tensors as; as they are without.
    vocabulary: for the folder to stand alone: written as a tokenizer of
      transformers, with what begins and ends a text. Without one a vocabulary
      in the folder is left alone.

  Raises:
    CheckpointError: if `params` are not those of a model of this config.
    ValueError: if the vocabulary is of a kind that transformers does not have.
  """
  folder = pathlib.Path(directory)
  flat = products.named(traverse_util.flatten_dict(params, sep='/'))
  translate.check_params(folder, flat, config)
  content = hf_configs.write(config)
  tensors = {}
  for name, (part,) in table_of(config).items():
    # What is transposed on the way in is transposed on the way out.
    value = np.asarray(part.convert(np.asarray(flat[part.target])))
    if dtype is not None:
      value = value.astype(np.dtype(dtype))
    tensors[name] = np.ascontiguousarray(value)
  stored = str(next(iter(tensors.values())).dtype)
  content |= {'dtype': stored}
  if vocabulary is not None:
    content |= {
      'bos_token_id': vocabulary.bos_id,
      'eos_token_id': marks.id_or_ids(vocabulary.end_ids),
    }
  folder.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=folder, prefix='.saving-') as scratch:
    temporary = pathlib.Path(scratch)
    weights = temporary / safetensors_source.WEIGHTS_FILE
    # transformers wants to know whose transposition this is.
    safetensors.numpy.save_file(tensors, weights, {'format': 'pt'})
    text = json.dumps(content, indent=2, sort_keys=True) + '\n'
    (temporary / CONFIG_FILE).write_text(text, encoding='utf-8')
    # safetensors lets nobody else read; the config has the usual mode.
    weights.chmod((temporary / CONFIG_FILE).stat().st_mode)
    os.replace(weights, folder / weights.name)
    os.replace(temporary / CONFIG_FILE, folder / CONFIG_FILE)
  if vocabulary is not None:
    decoder_only = families.family_of(config).decoder_only
    framing = vocabularies.Framing.of(vocabulary, decoder_only)
    transformers_tokenizer.save(folder, framing)
    marks.write_json(
      folder / marks.GENERATION_CONFIG,
      {name: content[name] for name in _GENERATION if name in content},
    )


def table_of(
  config: families.Config, prefix: str = _GEMMA_PREFIXES[0]
) -> translate.Table:
  """Hugging Face's names of a model's tensors, and what they become.

  Args:
    config: the model's shape.
    prefix: of a Gemma's tensors.
  """
  if isinstance(config, t5_config.T5Config):
    return _t5_table(config)
  return _gemma_table(config, prefix)


def _t5_table(config: t5_config.T5Config) -> translate.Table:
  table = {_EMBEDDINGS[0]: translate.as_is('token_embedder/embedding')}
  if not config.logits_via_embedding:
    table[_HEAD] = translate.transposed('decoder/logits_dense/kernel')
  gated = len(config.mlp_activations) > 1
  mlp = ('wi_0', 'wi_1', 'wo') if gated else ('wi', 'wo')
  depths = {
    'encoder': config.num_encoder_layers,
    'decoder': config.num_decoder_layers,
  }
  for stack, depth in depths.items():
    first = f'{stack}.block.0.layer.0.SelfAttention'
    table |= {
      f'{first}.relative_attention_bias.weight': translate.transposed(
        f'{stack}/relpos_bias/rel_embedding'
      ),
      f'{stack}.final_layer_norm.weight': translate.as_is(
        f'{stack}/{stack}_norm/scale'
      ),
    }
    for i in range(depth):
      for n, (theirs, ours, norm) in enumerate(_T5_SUBLAYERS[stack]):
        there = f'{stack}.block.{i}.layer.{n}'
        here = f'{stack}/layers_{i}'
        names = {m: m for m in mlp} if ours == 'mlp' else _T5_MATRICES
        table[f'{there}.layer_norm.weight'] = translate.as_is(
          f'{here}/{norm}/scale'
        )
        for name, matrix in names.items():
          table[f'{there}.{theirs}.{name}.weight'] = translate.transposed(
            f'{here}/{ours}/{matrix}/kernel'
          )
  return table


_T5_MATRICES = {'q': 'query', 'k': 'key', 'v': 'value', 'o': 'out'}
_T5_SUBLAYERS = {
  'encoder': (
    ('SelfAttention', 'attention', 'pre_attention_layer_norm'),
    ('DenseReluDense', 'mlp', 'pre_mlp_layer_norm'),
  ),
  'decoder': (
    ('SelfAttention', 'self_attention', 'pre_self_attention_layer_norm'),
    (
      'EncDecAttention',
      'encoder_decoder_attention',
      'pre_cross_attention_layer_norm',
    ),
    ('DenseReluDense', 'mlp', 'pre_mlp_layer_norm'),
  ),
}


def _gemma_table(
  config: gemma_config.GemmaConfig, prefix: str
) -> translate.Table:
  matrices = {
    'self_attn.q_proj': 'attention/query',
    'self_attn.k_proj': 'attention/key',
    'self_attn.v_proj': 'attention/value',
    'self_attn.o_proj': 'attention/out',
    'mlp.gate_proj': 'mlp/wi_0',
    'mlp.up_proj': 'mlp/wi_1',
    'mlp.down_proj': 'mlp/wo',
  }
  norms = {'input_layernorm': 'pre_attention_norm'}
  if config.use_post_norms:
    norms |= {
      'post_attention_layernorm': 'post_attention_norm',
      'pre_feedforward_layernorm': 'pre_mlp_norm',
      'post_feedforward_layernorm': 'post_mlp_norm',
    }
  else:
    # Gemma 1 calls the norm in front of the feed-forward block by its place
    # behind the attention.
    norms['post_attention_layernorm'] = 'pre_mlp_norm'
  if config.use_qk_norm:
    norms |= {
      'self_attn.q_norm': 'attention/query_norm',
      'self_attn.k_norm': 'attention/key_norm',
    }
  table = {
    f'{prefix}embed_tokens.weight': translate.as_is('token_embedder/embedding'),
    f'{prefix}norm.weight': translate.as_is('decoder/final_norm/scale'),
  }
  for i in range(config.num_layers):
    there, here = f'{prefix}layers.{i}', f'decoder/layers_{i}'
    for theirs, ours in matrices.items():
      table[f'{there}.{theirs}.weight'] = translate.transposed(
        f'{here}/{ours}/kernel'
      )
    for theirs, ours in norms.items():
      table[f'{there}.{theirs}.weight'] = translate.as_is(
        f'{here}/{ours}/scale'
      )
  return table


def _prefix(shapes: Mapping[str, Any]) -> str:
  for prefix in _GEMMA_PREFIXES:
    if f'{prefix}embed_tokens.weight' in shapes:
      return prefix
  return _GEMMA_PREFIXES[0]


def _copies(shapes: Mapping[str, Any], table: translate.Table) -> set[str]:
  """Tensors that say nothing new, and those that are not the text's."""
  known = {
    # The tied embedding under its other names.
    *_EMBEDDINGS[1:],
    _HEAD,
    f'language_model.{_HEAD}',
    # In the first uploads of T5, and never read by any version of it.
    'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight',
  }
  return {
    name
    for name in shapes
    if name not in table
    and (
      name in known
      or name.endswith('rotary_emb.inv_freq')
      or name.startswith(_IMAGES)
    )
  }
