"""What the device can do: bytes and operations a second, and memory used.

The floor of a model's call is what it must move or compute over these rates,
so they are measured in the same run, on the same cores, and with what a loop
itself uses: programs that XLA compiles.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import resource
import sys

import jax
import jax.numpy as jnp

from speccascade_jax import base

# Far larger than any cache, a server's last level included.
_READ_BYTES = 2**30
_ON_CPU = 2**29
_SIZE = {'cpu': 2048, 'gpu': 8192}  # Of the square matrices.


def programs(
  dtype: jnp.dtype,
) -> tuple[dict[str, Callable[[], base.Array]], dict[str, float]]:
  """What to time, and how much each program does.

  Args:
    dtype: that the models compute in.

  Returns:
    By name, functions without arguments, and what one call of each amounts to:
    'read' and 'apply' in bytes, 'multiply' in operations. 'read' sums a buffer,
    'apply' multiplies a vector with a matrix of the same size, which on some
    devices streams faster; the better of the two is the bandwidth.
  """
  platform = jax.devices()[0].platform
  count = (_ON_CPU if platform == 'cpu' else _READ_BYTES) // dtype.itemsize
  columns = 32_768
  matrix = jnp.ones((count // columns, columns), dtype)
  vector = jnp.ones((1, matrix.shape[0]), dtype)
  size = _SIZE.get(platform, _SIZE['gpu'])
  square = jnp.ones((size, size), dtype)
  found: dict[str, Callable[[], base.Array]] = {
    'read': functools.partial(_read, matrix),
    'apply': functools.partial(_multiply, vector, matrix),
    'multiply': functools.partial(_multiply, square, square),
  }
  amounts = {
    'read': float(matrix.nbytes),
    'apply': float(matrix.nbytes),
    'multiply': 2.0 * size**3,
  }
  return found, amounts


_multiply = jax.jit(jnp.matmul)


@jax.jit
def _read(buffer: base.Array) -> base.Array:
  # In pieces, since XLA sums to a single number on a single core.
  return buffer.sum(axis=0)


def peak_bytes() -> int:
  """The most memory used so far: of the device, or on a CPU of the process."""
  statistics = jax.devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in statistics:
    return int(statistics['peak_bytes_in_use'])
  used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return used if sys.platform == 'darwin' else used * 1024
