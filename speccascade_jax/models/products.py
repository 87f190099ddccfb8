"""Products of a few rows with a matrix, which is what decoding consists of."""

from __future__ import annotations

import math

from jax import lax
import jax.numpy as jnp

from speccascade_jax import base

# XLA:CPU has two kinds of kernels for such products. The newer (YNNPACK, for
# two rows and more) lays the whole right factor out anew at each call, which
# at a few rows takes longer than the product itself: measured with jax 0.10.2
# on two cores, the older (Eigen) is up to twice as fast from 3 to 48 rows, and
# slower from 64 on. Matrices below 2 MB lie in the processor's own memory,
# where the laying out is cheap and neither kind is ahead.
_FEWEST_ROWS, _MOST_ROWS = 3, 48
_SMALLEST_MATRIX = 512 * 1024
# The older kernels are hopeless for a transposed right factor. There the newer
# ones are kept, and given the few rows as the right factor, to lay out at
# leisure: 1.5 times as fast for 2 to 8 rows, if they are filled up to whole
# vectors, equal at 48.
_VECTOR = 8


def matmul(
  x: base.Array, kernel: base.Array, out_dtype: jnp.dtype | None = None
) -> base.Array:
  """`x [..., in]` times `kernel [in, out]`, summed in `out_dtype` if given.

  The same numbers on every path, up to the order of sums.
  """

  def plain(x, kernel):
    return jnp.matmul(x, kernel, preferred_element_type=out_dtype)

  rows = math.prod(x.shape[:-1])
  if (
    not _FEWEST_ROWS <= rows <= _MOST_ROWS
    or kernel.size < _SMALLEST_MATRIX
    or x.dtype != jnp.float32
  ):
    return plain(x, kernel)

  def older(x, kernel):
    # XLA:CPU takes the newer kernels if the inner dimension is the left
    # factor's last, and the older if it is the first. The barrier keeps it
    # from undoing the transposition.
    columns = lax.optimization_barrier(x.reshape(rows, -1).T)
    product = lax.dot_general(
      columns,
      kernel,
      (((0,), (0,)), ((), ())),
      preferred_element_type=out_dtype,
    )
    return product.reshape(*x.shape[:-1], -1)

  return lax.platform_dependent(x, kernel, cpu=older, default=plain)


def matmul_transposed(
  x: base.Array, rows: base.Array, out_dtype: jnp.dtype | None = None
) -> base.Array:
  """`x [..., in]` times the transpose of `rows [out, in]`: a tied head's.

  As `matmul` otherwise.
  """

  def plain(x, rows):
    return jnp.matmul(x, rows.T, preferred_element_type=out_dtype)

  count = math.prod(x.shape[:-1])
  if not 2 <= count <= _MOST_ROWS or x.dtype != jnp.float32:
    return plain(x, rows)

  def swapped(x, rows):
    few = jnp.pad(x.reshape(count, -1), ((0, -count % _VECTOR), (0, 0)))
    # The barriers keep XLA from swapping the factors back.
    columns = lax.optimization_barrier(few.T)
    product = lax.optimization_barrier(
      jnp.matmul(rows, columns, preferred_element_type=out_dtype)
    )
    return product.T[:count].reshape(*x.shape[:-1], -1)

  return lax.platform_dependent(x, rows, cpu=swapped, default=plain)
