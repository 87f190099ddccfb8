"""T5 against T5X's parameter list and against Hugging Face's logits."""

from __future__ import annotations

import dataclasses
import re

from flax import linen as nn
from flax import traverse_util
from flax.core import meta
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax.models import layers as shared_layers
from speccascade_jax.models.t5 import config as t5_config
from speccascade_jax.models.t5 import layers
from speccascade_jax.models.t5 import network
from speccascade_jax.models.t5 import step_model
from tests.models import t5_golden

V, E, JOINED, MLP, HEADS, BUCKETS = 11, 6, 8, 10, 2, 32
GATED = t5_config.T5Config(
  vocab_size=V,
  emb_dim=E,
  num_heads=HEADS,
  head_dim=JOINED // HEADS,
  mlp_dim=MLP,
  num_encoder_layers=1,
  num_decoder_layers=2,
)
TIED = dataclasses.replace(
  GATED, mlp_activations=('relu',), logits_via_embedding=True
)


# Parameters: T5X's names, shapes and axes.

_IN = ((E, JOINED), ('embed', 'joined_kv'))
_OUT = ((JOINED, E), ('joined_kv', 'embed'))
_NORM = ((E,), ('embed',))
_RELPOS = ((HEADS, BUCKETS), ('heads', 'relpos_buckets'))
_ATTENTION = {
  'query/kernel': _IN,
  'key/kernel': _IN,
  'value/kernel': _IN,
  'out/kernel': _OUT,
}
_GATED_MLP = {
  'wi_0/kernel': ((E, MLP), ('embed', 'mlp')),
  'wi_1/kernel': ((E, MLP), ('embed', 'mlp')),
  'wo/kernel': ((MLP, E), ('mlp', 'embed')),
}
_PLAIN_MLP = {
  'wi/kernel': ((E, MLP), ('embed', 'mlp')),
  'wo/kernel': ((MLP, E), ('mlp', 'embed')),
}


def _below(prefix, parameters):
  return {f'{prefix}/{name}': spec for name, spec in parameters.items()}


def _t5x_parameters(mlp, head):
  """What T5X's `examples/t5/network.py` declares, for GATED's sizes."""
  expected = {
    'token_embedder/embedding': ((V, E), ('vocab', 'embed')),
    'encoder/relpos_bias/rel_embedding': _RELPOS,
    'encoder/layers_0/pre_attention_layer_norm/scale': _NORM,
    'encoder/layers_0/pre_mlp_layer_norm/scale': _NORM,
    'encoder/encoder_norm/scale': _NORM,
    'decoder/relpos_bias/rel_embedding': _RELPOS,
    'decoder/decoder_norm/scale': _NORM,
    **_below('encoder/layers_0/attention', _ATTENTION),
    **_below('encoder/layers_0/mlp', mlp),
    **head,
  }
  for layer in ('decoder/layers_0', 'decoder/layers_1'):
    expected |= {
      f'{layer}/pre_self_attention_layer_norm/scale': _NORM,
      f'{layer}/pre_cross_attention_layer_norm/scale': _NORM,
      f'{layer}/pre_mlp_layer_norm/scale': _NORM,
      **_below(f'{layer}/self_attention', _ATTENTION),
      **_below(f'{layer}/encoder_decoder_attention', _ATTENTION),
      **_below(f'{layer}/mlp', mlp),
    }
  return expected


@pytest.mark.parametrize(
  ('config', 'mlp', 'head'),
  [
    (
      GATED,
      _GATED_MLP,
      {'decoder/logits_dense/kernel': ((E, V), ('embed', 'vocab'))},
    ),
    (TIED, _PLAIN_MLP, {}),
  ],
  ids=['v1_1', 'v1_0'],
)
def test_parameters_are_those_of_t5x(config, mlp, head):
  boxed = t5_golden.abstract_params(config)
  shapes = traverse_util.flatten_dict(meta.unbox(boxed), sep='/')
  axes = traverse_util.flatten_dict(nn.get_partition_spec(boxed), sep='/')
  actual = {name: (shapes[name].shape, tuple(axes[name])) for name in shapes}
  assert actual == _t5x_parameters(mlp, head)
  assert {leaf.dtype for leaf in shapes.values()} == {jnp.dtype('float32')}


def test_initial_scales_are_t5s():
  """Query carries the missing 1 / sqrt(D); the embedding has unit variance."""
  config = dataclasses.replace(
    GATED, vocab_size=200, emb_dim=128, head_dim=64, num_decoder_layers=1
  )
  tokens = jnp.zeros((1, 1), jnp.int32)
  params = meta.unbox(
    jax.jit(network.Transformer(config).init)(
      jax.random.key(0), tokens, tokens
    )['params']
  )
  attention = params['decoder']['layers_0']['self_attention']
  std = lambda x: float(np.std(x))
  assert std(params['token_embedder']['embedding']) == pytest.approx(
    1, rel=0.05
  )
  assert std(attention['key']['kernel']) == pytest.approx(128**-0.5, rel=0.05)
  assert std(attention['query']['kernel']) == pytest.approx(
    (128 * 64) ** -0.5, rel=0.05
  )
  assert (params['decoder']['decoder_norm']['scale'] == 1).all()


# Goldens.


@pytest.mark.parametrize('name', t5_golden.CASES)
def test_logits_equal_hugging_faces(name):
  golden = t5_golden.load(name)
  assert golden.logits.dtype == np.float32
  assert golden.logits.std() > 0.5
  np.testing.assert_allclose(
    t5_golden.run(golden), golden.logits, rtol=0, atol=1e-4
  )


# Their blocks cross the last bucket too, at distance 20 of 48 and 113 of 140.
@pytest.mark.parametrize('name', ['t5_v1_0_near', 't5_v1_1_far'])
def test_cached_chunks_equal_hugging_faces(name):
  golden = t5_golden.load(name)
  _assert_cached(golden.config, golden.params, golden, golden.logits)


def _assert_cached(config, params, golden, expected):
  model = step_model.step_model(config)
  batch, length = golden.decoder_inputs.shape
  with jax.default_matmul_precision('float32'):
    start = jax.jit(model.start, static_argnums=2)(
      params, golden.encoder_inputs, length
    )
    extend = jax.jit(model.extend)
    assert (start.token == golden.decoder_inputs[:, 0]).all()
    cache, lengths, logits = start.cache, start.lengths, []
    for begin, end in _chunks(length):
      chunk, cache = extend(
        params, cache, golden.decoder_inputs[:, begin:end], lengths
      )
      logits.append(chunk)
      lengths = lengths + (end - begin)
  logits = np.concatenate(logits, axis=1)
  assert logits.shape == (batch, length, config.vocab_size)
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize('differing', [False, True])
def test_layers_may_have_position_biases_of_their_own(differing):
  """Equal ones are the model with one; others count in their layer alone."""
  golden = t5_golden.load('t5_v1_0_near')
  config = dataclasses.replace(golden.config, relative_attention_per_layer=True)
  shared = traverse_util.flatten_dict(golden.params, sep='/')
  one_each = dict(shared)
  rng = np.random.default_rng(0)
  for stack, depth in (
    ('encoder', config.num_encoder_layers),
    ('decoder', config.num_decoder_layers),
  ):
    assert depth > 1
    bias = one_each.pop(f'{stack}/relpos_bias/rel_embedding')
    for i in range(depth):
      one_each[f'{stack}/layers_{i}/relpos_bias/rel_embedding'] = bias
    if differing:
      # All but the last layer attend to no effect, so that the last one's bias
      # is the only one.
      own = rng.normal(size=bias.shape).astype(np.float32)
      attention = {'encoder': 'attention', 'decoder': 'self_attention'}[stack]
      for flat in (shared, one_each):
        for i in range(depth - 1):
          name = f'{stack}/layers_{i}/{attention}/out/kernel'
          flat[name] = np.zeros_like(flat[name])
      shared[f'{stack}/relpos_bias/rel_embedding'] = own
      one_each[f'{stack}/layers_{depth - 1}/relpos_bias/rel_embedding'] = own
  expected, own, old = (
    t5_golden.run(golden, traverse_util.unflatten_dict(flat, sep='/'), shape)
    for flat, shape in (
      (shared, golden.config),
      (one_each, config),
      (shared | _biases(golden), None),
    )
  )
  np.testing.assert_allclose(own, expected, rtol=0, atol=1e-4)
  assert (np.abs(old - expected).max() > 0.05) == differing
  _assert_cached(
    config, traverse_util.unflatten_dict(one_each, sep='/'), golden, own
  )


def _biases(golden):
  flat = traverse_util.flatten_dict(golden.params, sep='/')
  return {name: x for name, x in flat.items() if 'relpos_bias' in name}


def _chunks(length):
  """Spans of 1 and 6 tokens in turn, and single ones to the end."""
  begin = 0
  while begin < length:
    end = begin + (6 if begin % 7 == 1 and begin + 6 <= length else 1)
    yield begin, end
    begin = end


@pytest.mark.parametrize('name', ['t5_v1_0_near', 't5_v1_1_far'])
def test_would_catch_any_parameter_that_is_off(name):
  """Each of them, and each position bucket but the unused, moves a logit."""
  golden = t5_golden.load(name)
  flat = traverse_util.flatten_dict(golden.params, sep='/')
  for key, value in flat.items():
    if key.endswith('rel_embedding'):
      # A causal decoder never looks ahead; an encoder has no distance 0 ahead.
      buckets = golden.config.relative_attention_num_buckets
      unused = {buckets // 2} if key.startswith('encoder') else set()
      columns = [b for b in range(buckets) if b not in unused]
      variants = [value + 0.5 * (np.arange(buckets) == b) for b in columns]
    else:
      variants = [value * 1.05]
    for variant in variants:
      changed = flat | {key: variant.astype(np.float32)}
      changed = traverse_util.unflatten_dict(changed, sep='/')
      change = np.abs(t5_golden.run(golden, changed) - golden.logits).max()
      assert change > 3e-4, (key, change)


@pytest.mark.parametrize(
  'change',
  [
    dict(relative_attention_max_distance=64),
    dict(layer_norm_epsilon=1e-2),
    dict(mlp_activations=('relu', 'linear')),
  ],
  ids=str,
)
def test_would_catch_a_wrong_config(change):
  golden = t5_golden.load('t5_v1_1_far')
  logits = t5_golden.run(
    golden, config=dataclasses.replace(golden.config, **change)
  )
  assert np.abs(logits - golden.logits).max() > 1e-3


@pytest.mark.parametrize('max_distance', [20, 128])
@pytest.mark.parametrize('bidirectional', [False, True])
def test_position_buckets_equal_hugging_faces(max_distance, bidirectional):
  num_buckets = {20: 16, 128: 32}[max_distance]
  bias = layers.RelativePositionBias(
    1, num_buckets, max_distance, bidirectional
  )
  direction = 'both' if bidirectional else 'past'
  with np.load(t5_golden.GOLDENS / 't5_position_buckets.npz') as arrays:
    distances = arrays['distances'].astype(np.int32)
    expected = arrays[f'{num_buckets}_{max_distance}_{direction}']
  assert len(set(expected.tolist())) >= num_buckets - 1
  np.testing.assert_array_equal(bias.bucket(distances), expected)
  np.testing.assert_array_equal(jax.jit(bias.bucket)(distances), expected)


# Decoding.


def test_extend_reads_neither_encoder_nor_cross_projections():
  """Cross-attention keys are made once, by `start`."""
  golden = t5_golden.load('t5_v1_1_near')
  model = step_model.step_model(golden.config)
  start = jax.jit(model.start, static_argnums=2)(
    golden.params, golden.encoder_inputs, 8
  )
  tokens = golden.decoder_inputs[:, :3]
  extend = jax.jit(model.extend)
  flat = traverse_util.flatten_dict(golden.params, sep='/')
  cross = re.compile('encoder_decoder_attention/(key|value)/')
  poisoned = {
    key: np.full(value.shape, np.nan, np.float32)
    if key.startswith('encoder/') or cross.search(key)
    else value
    for key, value in flat.items()
  }
  assert sum(bool(np.isnan(v).any()) for v in poisoned.values()) > 6
  poisoned = traverse_util.unflatten_dict(poisoned, sep='/')
  clean, _ = extend(golden.params, start.cache, tokens, start.lengths)
  logits, _ = extend(poisoned, start.cache, tokens, start.lengths)
  np.testing.assert_array_equal(logits, clean)

  # And what `start` cached is what it reads.
  swapped = dataclasses.replace(
    start.cache,
    cross_attention=jax.tree.map(
      lambda x: np.asarray(x)[::-1], start.cache.cross_attention
    ),
  )
  logits, _ = extend(golden.params, swapped, tokens, start.lengths)
  assert np.abs(logits - clean).max() > 0.1


@pytest.mark.parametrize('name', ['t5_v1_0_near', 't5_v1_1_near'])
def test_bfloat16_stays_close(name):
  golden = t5_golden.load(name)
  config = dataclasses.replace(golden.config, dtype='bfloat16')
  model = step_model.step_model(config)
  start = jax.jit(model.start, static_argnums=2)(
    golden.params, golden.encoder_inputs, 48
  )
  keys_values = jax.tree.leaves(
    (start.cache.self_attention, start.cache.cross_attention)
  )
  assert {leaf.dtype for leaf in keys_values} == {jnp.dtype('bfloat16')}
  logits, _ = jax.jit(model.extend)(
    golden.params, start.cache, golden.decoder_inputs, start.lengths
  )
  assert logits.dtype == jnp.float32
  # Summed in float32, so not confined to bfloat16's 8 bits.
  logits = np.asarray(logits)
  assert (logits != logits.astype(jnp.bfloat16)).mean() > 0.5
  error = np.abs(logits - golden.logits)
  assert 1e-4 < error.mean() < 0.03 and error.max() < 0.3


# Training.


def test_dropout_is_random_only_when_asked_for():
  golden = t5_golden.load('t5_v1_1_near')
  config = dataclasses.replace(golden.config, dropout_rate=0.3)
  # The rate alone changes nothing.
  np.testing.assert_array_equal(
    t5_golden.run(golden, config=config), t5_golden.run(golden)
  )
  model = network.Transformer(config)

  @jax.jit
  def run(params, key):
    return model.apply(
      {'params': params},
      golden.encoder_inputs,
      golden.decoder_inputs[:, :5],
      deterministic=False,
      rngs={'dropout': key},
    )

  train = lambda seed: run(golden.params, jax.random.key(seed))
  one, two = train(1), train(2)
  assert np.abs(one - two).max() > 0.1
  np.testing.assert_array_equal(one, train(1))


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('vocab_size', 0),
    ('emb_dim', -1),
    ('num_heads', 2.5),
    ('num_decoder_layers', 0),
    ('mlp_activations', ('gelu', 'swish')),
    ('mlp_activations', ()),
    ('dropout_rate', 1.0),
    ('dtype', 'float16'),
  ],
)
def test_bad_configs_are_named(field, value):
  with pytest.raises(ValueError, match=rf'T5Config\.{field}') as error:
    dataclasses.replace(GATED, **{field: value})
  assert repr(value) in str(error.value)


def test_a_gate_of_silu_is_x_times_its_sigmoid():
  rng = np.random.default_rng(0)
  x, a, b = (rng.normal(size=(4, 4)).astype(np.float32) for _ in range(3))
  params = {'wi_0': a, 'wi_1': b, 'wo': np.eye(4, dtype=np.float32)}
  found = shared_layers.MLP(4, ('silu', 'linear'), 0.0, np.float32).apply(
    {'params': {name: {'kernel': k} for name, k in params.items()}}, x, True
  )
  expected = x @ a / (1 + np.exp(-x @ a)) * (x @ b)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_lists_from_json_keep_the_config_hashable():
  config = dataclasses.replace(GATED, mlp_activations=['gelu', 'linear'])
  assert config == GATED and hash(config) == hash(GATED)
