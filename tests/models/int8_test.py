"""Quantised models are models like any other, of a fourth of the bytes."""

import functools

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import footprint
from speccascade_jax import loading
from speccascade_jax import pair as pairs
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import native
from speccascade_jax.launch import inputs
from speccascade_jax.models import families
from speccascade_jax.models import int8
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config
from tests.evaluation import tiny_pair

_T5 = t5_config.T5Config(50, 16, 2, 8, 32, 1, 2, logits_via_embedding=False)
_TIED = t5_config.T5Config(50, 16, 2, 8, 32, 1, 1, logits_via_embedding=True)
_GEMMA = gemma_config.GemmaConfig(
  vocab_size=50,
  emb_dim=16,
  num_layers=2,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  mlp_dim=32,
)
_MATRICES = ('kernel', 'embedding')


def _dequantised(params):
  """The same model in float32."""
  flat = traverse_util.flatten_dict(params)
  found = {}
  for path, leaf in flat.items():
    scale = flat.get((*path[:-1], int8.scale_name(path[-1])))
    if scale is not None:
      assert leaf.dtype == jnp.int8
      wide = scale if path[-1] == 'kernel' else scale[:, None]
      leaf = leaf.astype(jnp.float32) * wide
    if path[-1] not in map(int8.scale_name, _MATRICES):
      found[path] = leaf
  return traverse_util.unflatten_dict(found)


@pytest.mark.parametrize(
  'config', [pytest.param(_T5, marks=pytest.mark.slow), _TIED, _GEMMA]
)
def test_logits_are_those_of_the_dequantised_model(config):
  params = families.init(config, jax.random.key(0))
  quantised = int8.quantised(params)
  network = families.family_of(config).network(config)
  tokens = np.arange(12, dtype=np.int32).reshape(2, 6)
  apply = jax.jit(
    lambda p, scored=None: network.apply(
      {'params': p}, tokens, tokens, scored=scored
    )
  )
  logits = apply(quantised)
  scored = apply(quantised, np.array([3, 7]))
  np.testing.assert_allclose(logits, apply(_dequantised(quantised)), atol=1e-4)
  np.testing.assert_allclose(scored, logits[..., [3, 7]], atol=1e-4)
  # Near the model itself, and not the same.
  error = np.abs(logits - apply(params)).max() / np.abs(logits).max()
  assert 1e-4 < error < 0.1


def test_weights_are_off_by_half_a_step_at_most_and_zeros_stay():
  weights = np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32)
  weights[:, 2] = 0
  values, scale = int8.quantise('mlp/wo/kernel', weights)
  assert values.dtype == jnp.int8 and scale.shape == (7,)
  np.testing.assert_array_less(
    np.abs(values * scale - weights) - scale / 2, 1e-6
  )
  assert np.isfinite(scale).all() and not values[:, 2].any()
  # By its rows, of which each has its own scale.
  values, scale = int8.quantise('token_embedder/embedding', weights)
  assert scale.shape == (30,) and np.abs(values).max(axis=1).min() == 127


@pytest.mark.parametrize('rows', [1, 6, 64])
@pytest.mark.parametrize('transposed', [False, True])
@pytest.mark.parametrize('shape', [(1000, 700), (70, 4999)])
def test_a_product_in_pieces_is_the_product(rows, transposed, shape):
  # Neither size is a whole number of pieces.
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1, rows, shape[0])).astype(np.float32)
  kernel = rng.integers(-127, 128, shape).astype(np.int8)
  scale = rng.uniform(1e-3, 1e-2, shape[1]).astype(np.float32)
  found = (
    int8.matmul_transposed(x, kernel.T, scale)
    if transposed
    else int8.matmul(x, kernel, scale)
  )
  wanted = (x.astype(np.float64) @ kernel) * scale
  assert found.shape == wanted.shape and found.dtype == jnp.float32
  np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
  return tiny_pair.save(tmp_path_factory.mktemp('pair'))


@pytest.fixture(scope='module')
def pair(paths):
  return loading.load_pair(**paths, verifier_weights='int8')


def test_every_matrix_of_that_model_alone_is_int8(pair, paths):
  flat = traverse_util.flatten_dict(pair.verifier.params)
  for path, leaf in flat.items():
    wanted = jnp.int8 if path[-1] in _MATRICES else jnp.float32
    assert leaf.dtype == wanted, path
  drafter = jax.tree.leaves(pair.drafter.params)
  assert {leaf.dtype for leaf in drafter} == {jnp.dtype('float32')}
  # Told without loading.
  plain = loading.load_pair(**paths)
  models = footprint.abstract_pair(
    {'drafter': plain.drafter.config, 'verifier': plain.verifier.config},
    'float32',
    {'verifier': 'int8'},
  )
  told = footprint.of_parameters(models)
  held = [
    sum(x.nbytes for x in jax.tree.leaves(m.params))
    for m in (pair.drafter, pair.verifier)
  ]
  assert [part.num_bytes for part in told] == held
  assert held[1] < 0.36 * footprint.size_of(plain.verifier.params)


def test_decoding_makes_no_float_copy_of_the_weights():
  # The decoder's matrices are 40 MB as float32, in pieces of 256 KB.
  config = t5_config.T5Config(50, 512, 8, 64, 2048, 1, 2)
  params = jax.eval_shape(
    lambda: int8.quantised(families.init(config, jax.random.key(0)))
  )
  step = families.step_model(config)

  def decode(params, inputs):
    begun = step.start(params, inputs, 8)

    def body(_, carry):
      cache, token = carry
      logits, cache = step.extend(params, cache, token, begun.lengths)
      return cache, logits.argmax(-1).astype(jnp.int32)

    return jax.lax.fori_loop(0, 7, body, (begun.cache, begun.token[:, None]))

  inputs = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  memory = jax.jit(decode).lower(params, inputs).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 6 * 2**20


def test_speculation_writes_what_the_quantised_verifier_writes(pair):
  texts = ['a text editor', 'library']
  settings = {'input_length': 8, 'max_length': 10}
  alone = pair.generate(texts, model=pairs.VERIFIER, **settings)
  together = pair.generate(texts, gamma=3, **settings)
  np.testing.assert_array_equal(together.tokens, alone.tokens)


def test_results_tell_quantised_pairs_apart(pair, paths):
  plain = loading.load_pair(**paths)
  assert pair.digest != plain.digest
  assert pair.digest.startswith(plain.digest)
  name = inputs.pair_name({**paths, 'verifier_weights': 'int8'})
  assert name == f'{inputs.pair_name(paths)} (verifier int8)'
  shipped = inputs.with_weights('debian', {'drafter_weights': 'int8'})
  assert inputs.pair_name(shipped) == 'debian (drafter int8)'
  elsewhere = {'drafter': 'runs/mine/', 'verifier': 'hf://google/t5-v1_1-xl'}
  assert inputs.pair_name(elsewhere) == 'runs/mine -> hf://google/t5-v1_1-xl'


def test_what_is_loaded_for_both_roles_is_shared_if_it_is_the_same(paths):
  twice = {**paths, 'drafter': paths['verifier']}
  load = functools.partial(loading.load_pair, **twice)
  one = load(drafter_weights='int8')
  assert one.drafter.params is not one.verifier.params
  names = traverse_util.flatten_dict(one.drafter.params, sep='/')
  assert int8.is_quantised(names)
  both = load(drafter_weights='int8', verifier_weights='int8')
  assert both.drafter.params is both.verifier.params


def test_unknown_weights_are_refused_before_anything_is_read():
  with pytest.raises(ValueError, match="verifier_weights is 'int4'.*'int8'"):
    loading.load_pair(verifier='not/there', verifier_weights='int4')
  with pytest.raises(ValueError, match='no drafter is given'):
    loading.load_pair(verifier='not/there', drafter_weights='int8')


def test_quantised_weights_are_not_saved(pair, tmp_path):
  with pytest.raises(errors.CheckpointError, match='int8.*in memory only'):
    native.save(tmp_path / 'm', pair.verifier.config, pair.verifier.params)
  assert not (tmp_path / 'm').exists()
