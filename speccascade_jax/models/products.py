"""Products of a few rows with a matrix, and how matrices lie for them.

Decoding on a CPU reads every matrix once for each product with the few rows
that a call scores. XLA:CPU (jax 0.10.2, two cores) does that best with a
matrix that lies by outputs, `[out, in]`:

- At one row it reads it 1.2 times as fast as one that lies by inputs.
- At more rows its kernels (YNNPACK's) lay the right factor out anew at each
  call, which takes longer than the product itself if that is the matrix. Where
  it lies by outputs it can be the left factor, and the rows, filled up to
  whole vectors, the right one: half the time of the plain product at 2 to 8
  rows, 0.9 of it at 128.

So `lay_out` turns a model's matrices before it decodes, `kernel [in, out]`
becoming `rows [out, in]`, and `named` turns them back.

XLA:GPU (jax 0.11.2, an H200, bfloat16) makes a product with one row a sum over
the columns of the matrix, which reads it at half of the bandwidth and less: a
step of T5 XL took 4.6 ms, a call of six tokens 1.6. So there `matmul` fills one
row up to eight, whose product is a matrix product like that of a block: a step
of Gemma 2 2B took 2.3 ms instead of 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base

NAMED, TURNED = 'kernel', 'rows'
# Matrices below 2 MB lie in the processor's own memory, where laying them out
# anew is cheap: nothing was gained by turning them.
_SMALLEST = 512 * 1024
_MOST_ROWS = 128
_VECTOR = 8


def matmul(
  x: base.Array, kernel: base.Array, out_dtype: jnp.dtype | None = None
) -> base.Array:
  """`x [..., in]` times `kernel [in, out]`: `[..., out]`.

  Summed in `out_dtype` if given. The same numbers on every path, up to the
  order of sums.
  """
  plain = functools.partial(jnp.matmul, preferred_element_type=out_dtype)
  if math.prod(x.shape[:-1]) != 1:
    return plain(x, kernel)
  filled = functools.partial(one_row, out_dtype=out_dtype)
  return lax.platform_dependent(x, kernel, cuda=filled, default=plain)


def one_row(
  x: base.Array, kernel: base.Array, out_dtype: jnp.dtype | None = None
) -> base.Array:
  """`matmul` of a single row as one of eight, seven of them zeros."""
  many = jnp.pad(x.reshape(1, -1), ((0, _VECTOR - 1), (0, 0)))
  # The barriers keep XLA from computing the one row alone after all.
  product = lax.optimization_barrier(
    jnp.matmul(
      lax.optimization_barrier(many), kernel, preferred_element_type=out_dtype
    )
  )
  return product[:1].reshape(*x.shape[:-1], -1)


def matmul_transposed(
  x: base.Array, rows: base.Array, out_dtype: jnp.dtype | None = None
) -> base.Array:
  """`x [..., in]` times the transpose of `rows [out, in]`: `[..., out]`.

  Summed in `out_dtype` if given. The same numbers on every path, up to the
  order of sums.
  """

  def plain(x, rows):
    return jnp.matmul(x, rows.T, preferred_element_type=out_dtype)

  count = math.prod(x.shape[:-1])
  if not 1 <= count <= _MOST_ROWS or x.dtype != jnp.float32:
    return plain(x, rows)

  def swapped(x, rows):
    filled = 1 if count == 1 else -(-count // _VECTOR) * _VECTOR
    few = jnp.pad(x.reshape(count, -1), ((0, filled - count), (0, 0)))
    # The barriers keep XLA from swapping the factors back, and a product with
    # one row from being computed within whatever uses it, on a single core.
    columns = lax.optimization_barrier(few.T)
    product = lax.optimization_barrier(
      jnp.matmul(rows, columns, preferred_element_type=out_dtype)
    )
    return product.T[:count].reshape(*x.shape[:-1], -1)

  return lax.platform_dependent(x, rows, cpu=swapped, default=plain)


def lay_out(params: dict[str, Any]) -> base.Params:
  """The parameters on the device, as its decoding reads them best.

  Args:
    params: takes the arrays out of it, so that no two copies of the model are
      in memory at once. Empty afterwards.

  Returns:
    The tree with all arrays on the default device; on a CPU large float32
    matrices `kernel [in, out]` are `rows [out, in]`.
  """
  turns = jax.default_backend() == 'cpu'
  found: dict[str, Any] = {}
  for name in list(params):
    value = params.pop(name)
    if isinstance(value, dict):
      found[name] = lay_out(value)
    elif turns and name == NAMED and _is_large(value):
      turned = np.ascontiguousarray(np.asarray(value).T)
      found[TURNED] = jax.device_put(turned, may_alias=True)
    else:
      found[name] = jax.device_put(value)
  return found


def named(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Flat parameters ('decoder/.../rows') under the names that files have."""
  found = {}
  for path, value in flat.items():
    folder, _, name = path.rpartition('/')
    if name == TURNED:
      path, value = f'{folder}/{NAMED}', np.asarray(value).T
    found[path] = value
  return found


def _is_large(matrix: Any) -> bool:
  return (
    matrix.ndim == 2 and matrix.size >= _SMALLEST and matrix.dtype == np.float32
  )
