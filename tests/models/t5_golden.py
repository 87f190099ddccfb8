"""Loads the golden arrays: Hugging Face's T5 under our names and layouts."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re

from flax import traverse_util
from flax.core import meta
import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax.models.t5 import config as t5_config
from speccascade_jax.models.t5 import network

GOLDENS = pathlib.Path(__file__).parents[1] / 'goldens'
CASES = ['t5_v1_0_far', 't5_v1_0_near', 't5_v1_1_far', 't5_v1_1_near']


@functools.cache
def abstract_params(config: t5_config.T5Config):
  """Shapes of the parameters, boxed with their logical axes."""
  tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  return jax.eval_shape(
    network.Transformer(config).init, jax.random.key(0), tokens, tokens
  )['params']


_HF_LAYERS = {
  'encoder': [
    ('attention', 'SelfAttention', 'pre_attention_layer_norm'),
    ('mlp', 'DenseReluDense', 'pre_mlp_layer_norm'),
  ],
  'decoder': [
    ('self_attention', 'SelfAttention', 'pre_self_attention_layer_norm'),
    (
      'encoder_decoder_attention',
      'EncDecAttention',
      'pre_cross_attention_layer_norm',
    ),
    ('mlp', 'DenseReluDense', 'pre_mlp_layer_norm'),
  ],
}
_HF_MATRICES = {'q': 'query', 'k': 'key', 'v': 'value', 'o': 'out'}


def _our_name(hf_name: str) -> str:
  fixed = {
    'shared.weight': 'token_embedder/embedding',
    'lm_head.weight': 'decoder/logits_dense/kernel',
  }
  if hf_name in fixed:
    return fixed[hf_name]
  if hf_name.endswith('final_layer_norm.weight'):
    stack = hf_name.split('.')[0]
    return f'{stack}/{stack}_norm/scale'
  if 'relative_attention_bias' in hf_name:
    return f'{hf_name.split(".")[0]}/relpos_bias/rel_embedding'
  stack, block, sublayer, rest = re.fullmatch(
    r'(\w+)\.block\.(\d+)\.layer\.(\d+)\.(.+)\.weight', hf_name
  ).groups()
  ours, theirs, norm = _HF_LAYERS[stack][int(sublayer)]
  if rest == 'layer_norm':
    return f'{stack}/layers_{block}/{norm}/scale'
  module, matrix = rest.split('.')
  assert module == theirs
  matrix = _HF_MATRICES.get(matrix, matrix)
  return f'{stack}/layers_{block}/{ours}/{matrix}/kernel'


@dataclasses.dataclass(frozen=True, eq=False)
class Golden:
  config: t5_config.T5Config
  params: dict
  encoder_inputs: np.ndarray  # [B, S]
  decoder_inputs: np.ndarray  # [B, T]
  logits: np.ndarray  # [B, T, V]


@functools.cache
def load(name: str) -> Golden:
  with np.load(GOLDENS / f'{name}.npz') as arrays:
    arrays = dict(arrays)
  hf = json.loads(str(arrays['config']))
  gated = hf['feed_forward_proj'] == 'gated-gelu'
  config = t5_config.T5Config(
    vocab_size=hf['vocab_size'],
    emb_dim=hf['d_model'],
    num_heads=hf['num_heads'],
    head_dim=hf['d_kv'],
    mlp_dim=hf['d_ff'],
    num_encoder_layers=hf['num_layers'],
    num_decoder_layers=hf['num_decoder_layers'],
    mlp_activations=('gelu', 'linear') if gated else ('relu',),
    logits_via_embedding=hf['tie_word_embeddings'],
    relative_attention_num_buckets=hf['relative_attention_num_buckets'],
    relative_attention_max_distance=hf['relative_attention_max_distance'],
  )
  flat = {}
  for key, value in arrays.items():
    if key.startswith('weights/'):
      ours = _our_name(key.removeprefix('weights/'))
      assert ours not in flat
      # PyTorch keeps matrices [out, in]; the embedding is [V, E] for both.
      table = ours == 'token_embedder/embedding'
      flat[ours] = value if table else value.T
  params = traverse_util.unflatten_dict(
    {k: v.astype(np.float32) for k, v in flat.items()}, sep='/'
  )
  expected = jax.tree.map(jnp.shape, meta.unbox(abstract_params(config)))
  assert jax.tree.map(jnp.shape, params) == expected
  return Golden(
    config,
    params,
    arrays['encoder_inputs'].astype(np.int32),
    arrays['decoder_inputs'].astype(np.int32),
    arrays['logits'],
  )


@functools.cache
def _forward(config):
  model = network.Transformer(config)
  return jax.jit(
    lambda params, golden_inputs: model.apply(
      {'params': params}, *golden_inputs
    )
  )


def run(golden: Golden, params=None, config=None) -> np.ndarray:
  inputs = (golden.encoder_inputs, golden.decoder_inputs)
  # Elsewhere than on a CPU, float32 products default to fewer bits.
  with jax.default_matmul_precision('float32'):
    return np.asarray(
      _forward(config or golden.config)(
        golden.params if params is None else params, inputs
      )
    )
