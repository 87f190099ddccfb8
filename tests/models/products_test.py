"""The products beside NumPy's, and matrices turned for them."""

from __future__ import annotations

import functools
import gc
import weakref

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import native
from speccascade_jax.models import families
from speccascade_jax.models import products
from speccascade_jax.models.t5 import config as t5_config

_LARGE = (512, 1024)
_ON_CPU = pytest.mark.skipif(
  jax.default_backend() != 'cpu', reason='what is done for XLA:CPU'
)
# Of its matrices only the head is large enough to be turned.
_CONFIG = t5_config.T5Config(
  vocab_size=8192,
  emb_dim=64,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=1,
  num_decoder_layers=1,
)


def _factors(rows: tuple[int, ...], shape: tuple[int, int] = _LARGE):
  rng = np.random.default_rng(sum(rows))
  x = rng.normal(size=(*rows, shape[0])).astype(np.float32)
  return x, rng.normal(size=shape).astype(np.float32)


def _product(x, kernel, *args):
  return products.matmul_transposed(x, kernel.T, *args)


@pytest.mark.parametrize('rows', [(1,), (1, 1), (2,), (1, 6), (8, 6), (3, 43)])
@pytest.mark.parametrize('shape', [_LARGE, (64, 96)])
def test_the_product_is_numpys(rows, shape):
  x, kernel = _factors(rows, shape)
  product = jax.jit(products.matmul_transposed)(x, kernel.T.copy())
  assert product.shape == (*rows, shape[1])
  np.testing.assert_allclose(product, x @ kernel, atol=2e-4)


def test_narrow_factors_are_summed_as_wide_as_asked():
  x, kernel = (jnp.asarray(a, jnp.bfloat16) for a in _factors((1, 6)))
  product = jax.jit(_product, static_argnums=2)(x, kernel, jnp.float32)
  assert product.dtype == jnp.float32
  wide = np.asarray(x, np.float32) @ np.asarray(kernel, np.float32)
  np.testing.assert_allclose(product, wide, atol=2e-3)


@pytest.mark.parametrize('rows', [(1,), (1, 1)])
def test_one_row_as_one_of_eight(rows):
  x, kernel = _factors(rows)
  product = jax.jit(products.one_row)(x, kernel)
  np.testing.assert_allclose(product, x @ kernel, atol=2e-4)
  narrow = (jnp.asarray(a, jnp.bfloat16) for a in (x, kernel))
  assert products.one_row(*narrow, jnp.float32).dtype == jnp.float32


@pytest.mark.parametrize(
  'platform, rows, filled',
  [('cuda', 1, True), ('cuda', 6, False), ('cpu', 1, False), ('tpu', 1, False)],
)
def test_only_a_gpus_single_row_is_filled_up(platform, rows, filled):
  x, kernel = _factors((1, rows))
  text = (
    jax.jit(products.matmul)
    .trace(x, kernel)
    .lower(lowering_platforms=(platform,))
    .as_text()
  )
  assert ('tensor<8x512xf32>, tensor<512x1024xf32>' in text) == filled
  assert ('optimization_barrier' in text) == filled


def test_gradients_are_those_of_the_plain_product():
  factors = _factors((2, 3))

  def gradients(matmul):
    return jax.grad(
      lambda x, kernel: jnp.sum(jnp.sin(matmul(x, kernel))), argnums=(0, 1)
    )(*factors)

  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=2e-3),
    gradients(_product),
    gradients(jnp.matmul),
  )


def test_rows_of_a_batch_may_be_mapped():
  x, kernel = _factors((4, 6))
  mapped = jax.vmap(_product, in_axes=(0, None))(x, kernel)
  np.testing.assert_allclose(mapped, x @ kernel, atol=2e-4)


@_ON_CPU
def test_nothing_lays_a_turned_matrix_out_anew():
  """If the first assertion fails, XLA has changed: measure again."""
  x, kernel = _factors((6,))
  shape = 'f32[1024,512]'

  assert (
    'ynn_fusion' in jax.jit(jnp.matmul).lower(x, kernel).compile().as_text()
  )
  factors = (x, kernel.T.copy())
  text = jax.jit(products.matmul_transposed).lower(*factors).compile().as_text()
  assert shape in text
  assert not [line for line in text.splitlines() if f'{shape} copy(' in line]
  (dot,) = (line for line in text.splitlines() if ' dot(' in line)
  assert 'f32[1024,8]' in dot  # The matrix is the left factor.


def test_a_turned_model_scores_and_is_written_as_it_was(tmp_path):
  params = families.init(_CONFIG, jax.random.key(0))
  given = jax.tree.map(np.array, params)
  turned = products.lay_out(params)
  assert params == {}
  flat = traverse_util.flatten_dict(turned, sep='/')
  if jax.default_backend() == 'cpu':
    assert flat['decoder/logits_dense/rows'].shape == (8192, 64)
    assert flat['decoder/layers_0/mlp/wo/kernel'].shape == (32, 64)
  back = products.named(flat)
  jax.tree.map(
    np.testing.assert_array_equal,
    back,
    traverse_util.flatten_dict(given, sep='/'),
  )

  model = families.step_model(_CONFIG)
  start = model.start(given, jnp.array([[5, 6, 1]]), 4, 2)
  block = jnp.array([[2, 7]])
  logits = [
    model.extend(p, start.cache, block, start.lengths)[0]
    for p in (given, turned)
  ]
  np.testing.assert_allclose(*logits, atol=1e-4)

  for save in (native.save, huggingface.save):
    folders = [tmp_path / f'{save.__module__}-{i}' for i in range(2)]
    for folder, p in zip(folders, (given, turned), strict=True):
      save(folder, _CONFIG, p)
    first, second = ((f / 'model.safetensors').read_bytes() for f in folders)
    assert first == second


@_ON_CPU
def test_no_second_copy_of_a_matrix_is_held():
  class Matrix(np.ndarray):
    pass

  params = {
    part: {'kernel': np.ones((1024, 1024), np.float32).view(Matrix)}
    for part in 'abc'
  }
  held = [weakref.ref(part['kernel']) for part in params.values()]
  products.lay_out(params)
  gc.collect()
  assert [ref() for ref in held] == [None] * 3
