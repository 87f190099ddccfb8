"""Gemma against Hugging Face's logits, its published sizes and its windows."""

from __future__ import annotations

import dataclasses

from flax import linen as nn
from flax import traverse_util
from flax.core import meta
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax.models import families
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.gemma import layers
from speccascade_jax.models.gemma import network
from speccascade_jax.models.gemma import step_model
from tests.models import gemma_golden

TINY = gemma_config.GemmaConfig(
  vocab_size=11,
  emb_dim=6,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=2,
  mlp_dim=10,
)
FULL = dataclasses.replace(TINY, use_post_norms=True, use_qk_norm=True)


def _logits(golden, params=None, config=None):
  """Behind every token: the first is the prompt, the others the text."""
  config = config or golden.config
  with jax.default_matmul_precision('float32'):
    return np.asarray(
      jax.jit(network.Transformer(config).apply)(
        {'params': golden.params if params is None else params},
        golden.tokens[:, :1],
        golden.tokens,
      )
    )


# Parameters.


def test_parameters_have_names_shapes_and_axes():
  boxed = families.abstract_params(FULL)
  shapes = traverse_util.flatten_dict(meta.unbox(boxed), sep='/')
  axes = traverse_util.flatten_dict(nn.get_partition_spec(boxed), sep='/')
  actual = {name: (shapes[name].shape, tuple(axes[name])) for name in shapes}
  norm = ((6,), ('embed',))
  layer = {
    'pre_attention_norm/scale': norm,
    'post_attention_norm/scale': norm,
    'pre_mlp_norm/scale': norm,
    'post_mlp_norm/scale': norm,
    'attention/query/kernel': ((6, 8), ('embed', 'joined_kv')),
    'attention/key/kernel': ((6, 4), ('embed', 'joined_kv')),
    'attention/value/kernel': ((6, 4), ('embed', 'joined_kv')),
    'attention/out/kernel': ((8, 6), ('joined_kv', 'embed')),
    'attention/query_norm/scale': ((2,), ('kv',)),
    'attention/key_norm/scale': ((2,), ('kv',)),
    'mlp/wi_0/kernel': ((6, 10), ('embed', 'mlp')),
    'mlp/wi_1/kernel': ((6, 10), ('embed', 'mlp')),
    'mlp/wo/kernel': ((10, 6), ('mlp', 'embed')),
  }
  expected = {
    'token_embedder/embedding': ((11, 6), ('vocab', 'embed')),
    'decoder/final_norm/scale': norm,
  }
  for i in range(2):
    expected |= {
      f'decoder/layers_{i}/{name}': spec for name, spec in layer.items()
    }
  assert actual == expected


def test_a_fresh_model_starts_near_the_uniform_distribution():
  """Unit variance into the stack, and logits of unit variance out of it."""
  config = dataclasses.replace(FULL, vocab_size=500, emb_dim=128, head_dim=32)
  params = families.init(config, jax.random.key(0))
  assert float(params['decoder']['final_norm']['scale'].max()) == 0.0
  embedding = params['token_embedder']['embedding']
  assert float(np.std(embedding)) == pytest.approx(128**-0.5, rel=0.05)
  tokens = np.arange(1, 33)[None]
  logits = jax.jit(network.Transformer(config).apply)(
    {'params': params}, tokens[:, :1], tokens
  )
  assert 0.5 < float(np.std(logits)) < 2.0


# Goldens.


@pytest.mark.parametrize('name', gemma_golden.CASES)
def test_logits_equal_hugging_faces(name):
  golden = gemma_golden.load(name)
  assert golden.logits.dtype == np.float32 and golden.logits.std() > 0.5
  np.testing.assert_allclose(_logits(golden), golden.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize('name', gemma_golden.CASES)
@pytest.mark.parametrize('chunk', [1024, 8])
def test_a_long_prompt_and_cached_blocks_equal_hugging_faces(name, chunk):
  """Ragged prompts several windows long, then blocks in the ring."""
  golden = gemma_golden.load(name)
  model = step_model.step_model(golden.config, prefill_chunk=chunk)
  prompts = np.array([30, 21])
  inputs = np.where(np.arange(30) < prompts[:, None], golden.tokens[:, :30], 0)
  with jax.default_matmul_precision('float32'):
    start = jax.jit(model.start, static_argnums=(2, 3))(
      golden.params, inputs, 10, 3
    )
    assert start.lengths.tolist() == (prompts - 1).tolist()
    window = golden.config.sliding_window
    held = [keys.shape[2] for keys, _ in start.cache.layers]
    assert min(held) == (39 if window is None else window + 3 - 1)
    cache, extend = start.cache, jax.jit(model.extend)
    for first in (0, 3, 6):
      at = prompts[:, None] - 1 + first + np.arange(3)
      tokens = np.take_along_axis(golden.tokens, at, axis=1)
      logits, cache = extend(
        golden.params, cache, tokens, start.lengths + first
      )
      expected = np.take_along_axis(golden.logits, at[..., None], axis=1)
      np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
  ('name', 'change'),
  [
    ('gemma_1', {'query_pre_attn_scalar': 7.0}),
    ('gemma_2', {'sliding_window': 6}),
    ('gemma_2', {'sliding_window': 8}),
    ('gemma_2', {'attn_logit_softcap': None}),
    ('gemma_2', {'final_logit_softcap': None}),
    ('gemma_2', {'attention_pattern': ('global', 'local')}),
    ('gemma_3', {'sliding_window': 4}),
    ('gemma_3', {'sliding_window': 6}),
    ('gemma_3', {'local_rope_base': 5000.0}),
    ('gemma_3', {'rope_base': 100.0}),
    ('gemma_3_stretched', {'rope_scale_factor': 1.0}),
  ],
  ids=str,
)
def test_would_catch_a_wrong_setting(name, change):
  golden = gemma_golden.load(name)
  config = dataclasses.replace(golden.config, **change)
  assert np.abs(_logits(golden, config=config) - golden.logits).max() > 1e-3


def test_would_catch_a_norm_that_multiplies_by_the_weight_alone(monkeypatch):
  golden = gemma_golden.load('gemma_3')
  params = jax.tree_util.tree_map_with_path(
    lambda path, x: x - 1.0 if 'scale' in str(path) else x, golden.params
  )
  assert np.abs(_logits(golden, params) - golden.logits).max() > 1e-1


# The ring.


def test_a_wider_call_than_promised_is_refused():
  config = dataclasses.replace(
    FULL, attention_pattern=('local',), sliding_window=3
  )
  model = step_model.step_model(config)
  params = families.init(config, jax.random.key(0))
  start = jax.jit(model.start, static_argnums=(2, 3))(
    params, np.ones((1, 9), np.int32), 20, 2
  )
  tokens = np.ones((1, 3), np.int32)
  with pytest.raises(ValueError, match='A call of 3 tokens.*up to 2'):
    jax.eval_shape(model.extend, params, start.cache, tokens, start.lengths)


def test_short_texts_get_no_ring():
  """Where window and block are longer than the text, slots are its tokens."""
  config = dataclasses.replace(
    FULL, attention_pattern=('local', 'global'), sliding_window=30
  )
  cache = network.Transformer(config).apply(
    {}, 2, 12, 4, method=network.Transformer(config).empty
  )
  assert not cache.ring
  assert [k.shape for k, _ in cache.layers] == [(2, 2, 12, 2)] * 2


def test_half_precision_stays_in_half_precision():
  config = dataclasses.replace(FULL, dtype='bfloat16')
  params = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16), families.init(config, jax.random.key(0))
  )
  model = step_model.step_model(config)
  start = jax.jit(model.start, static_argnums=(2, 3))(
    params, np.ones((1, 4), np.int32), 4, 2
  )
  assert {x.dtype for x in jax.tree.leaves(start.cache)} == {
    jnp.dtype('bfloat16')
  }
  logits, _ = jax.jit(model.extend)(
    params, start.cache, np.ones((1, 2), np.int32), start.lengths
  )
  assert logits.dtype == jnp.float32


# Pieces.


def test_rotation_turns_by_the_position_and_keeps_lengths():
  positions = jnp.asarray([[0, 3]])
  by = layers.rotation(positions, 4, 100.0)
  np.testing.assert_allclose(by.cos[0, 0, 1], np.cos([3.0, 0.3]), rtol=1e-6)
  x = jax.random.normal(jax.random.key(0), (1, 2, 2, 4))
  turned = layers.rotate(x, by)
  np.testing.assert_allclose(turned[:, :, 0], x[:, :, 0], rtol=1e-6)
  np.testing.assert_allclose(
    jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5
  )
  halved = layers.rotation(positions, 4, 100.0, scale_factor=2.0)
  np.testing.assert_allclose(
    halved.cos[0, 0, 1], np.cos([1.5, 0.15]), rtol=1e-6
  )


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'num_heads': 0}, 'num_heads must be a positive integer, got 0'),
    (
      {'num_kv_heads': 3},
      'num_kv_heads must be a divisor of num_heads=4, got 3',
    ),
    ({'head_dim': 3}, 'head_dim must be even.*got 3'),
    ({'attention_pattern': ()}, r'attention_pattern must be .*got \(\)'),
    ({'attention_pattern': ('near',)}, "got .'near',"),
    ({'attention_pattern': ('local',)}, 'sliding_window must be given'),
    ({'sliding_window': 0}, 'sliding_window must be a positive.*got 0'),
    ({'final_logit_softcap': -1.0}, 'softcap must be a finite number, above 0'),
    ({'dropout_rate': 1.0}, 'dropout_rate must be in'),
    ({'dtype': 'float16'}, "float16 overflows.*got 'float16'"),
  ],
  ids=str,
)
def test_a_wrong_config_is_refused_by_name(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(TINY, **change)


@pytest.mark.parametrize(
  ('layers_', 'pattern'),
  [
    (['global'] * 3, ('global',)),
    (['local', 'global'] * 2, ('local', 'global')),
    (['local', 'global', 'local'], ('local', 'global')),
    (['local', 'local'], ('local',)),
  ],
)
def test_shortest_pattern(layers_, pattern):
  assert gemma_config.shortest_pattern(layers_) == pattern


def test_generations_are_told_apart():
  two = dataclasses.replace(TINY, use_post_norms=True)
  stretched = dataclasses.replace(two, rope_scale_factor=8.0)
  window = dict(attention_pattern=('local', 'global'), sliding_window=4)
  assert gemma_config.generation(TINY) == 1
  assert gemma_config.generation(two) == 2
  assert gemma_config.generation(FULL) == 3
  # Which scale the positions of all their layers, or of none.
  assert gemma_config.generation(stretched) == 2
  assert gemma_config.generation(dataclasses.replace(two, **window)) == 2
  assert gemma_config.generation(dataclasses.replace(stretched, **window)) is (
    None
  )
