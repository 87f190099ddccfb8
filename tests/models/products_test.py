"""`products.matmul` beside NumPy's, its gradients, and the kernels it gets."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax.models import products

_LARGE = (512, 1024)


def _factors(rows: tuple[int, ...], shape: tuple[int, int]):
  rng = np.random.default_rng(sum(rows))
  x = rng.normal(size=(*rows, shape[0])).astype(np.float32)
  return x, rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
  'rows, shape',
  [
    ((1,), _LARGE),
    ((1, 6), _LARGE),
    ((8, 6), _LARGE),
    ((7, 7), _LARGE),
    ((2, 3), (64, 96)),
  ],
)
def test_the_product_is_numpys(rows, shape):
  x, kernel = _factors(rows, shape)
  for product in (
    jax.jit(products.matmul)(x, kernel),
    jax.jit(products.matmul_transposed)(x, np.ascontiguousarray(kernel.T)),
  ):
    assert product.shape == (*rows, shape[1])
    np.testing.assert_allclose(product, x @ kernel, atol=2e-4)


def test_narrow_factors_are_summed_as_wide_as_asked():
  x, kernel = _factors((1, 6), _LARGE)
  x, kernel = jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16)
  product = jax.jit(products.matmul, static_argnums=2)(x, kernel, jnp.float32)
  assert product.dtype == jnp.float32
  np.testing.assert_allclose(
    product,
    np.asarray(x, np.float32) @ np.asarray(kernel, np.float32),
    atol=2e-3,
  )


def test_gradients_are_those_of_the_plain_product():
  x, kernel = _factors((2, 3), _LARGE)

  def loss(matmul):
    return jax.grad(
      lambda x, kernel: jnp.sum(jnp.sin(matmul(x, kernel))), argnums=(0, 1)
    )(x, kernel)

  plain = loss(jnp.matmul)
  for ours in (
    loss(products.matmul),
    loss(lambda x, kernel: products.matmul_transposed(x, kernel.T)),
  ):
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, atol=2e-3), ours, plain
    )


def test_rows_of_a_batch_may_be_mapped():
  x, kernel = _factors((4, 6), _LARGE)
  mapped = jax.vmap(products.matmul, in_axes=(0, None))(x, kernel)
  np.testing.assert_allclose(mapped, x @ kernel, atol=2e-4)


@pytest.mark.skipif(
  jax.default_backend() != 'cpu', reason='the kernels of XLA:CPU'
)
def test_a_few_rows_are_not_given_to_the_kernels_that_repack_the_matrix():
  """If the first line fails, XLA has changed: measure again whether it pays."""

  def kernels(matmul, rows):
    factors = _factors((rows,), _LARGE)
    return jax.jit(matmul).lower(*factors).compile().as_text()

  assert 'ynn_fusion' in kernels(jnp.matmul, 6)
  assert 'ynn_fusion' not in kernels(products.matmul, 6)
  assert 'ynn_fusion' in kernels(products.matmul, 64)
