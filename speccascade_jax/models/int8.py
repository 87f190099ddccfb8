"""Weights in one byte each: large matrices as int8, one scale a channel.

    w[i, o]  ~  scale[o] * q[i, o],   scale[o] = max_i |w[i, o]| / 127

Symmetric, rounded to the nearest. The channels are a product's outputs, so
that the scales multiply the product and never the matrix; of an embedding,
which may be the head as well, they are its rows. Activations, norms and the
tables of position biases stay as they are.

A quantised model has the parameters of the model itself, its matrices int8,
and beside each of these its scales: `kernel [in, out]` and `kernel_scale
[out]`, `embedding [V, E]` and `embedding_scale [V]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import functools
import math

from flax import traverse_util
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base

NAME = 'int8'
# Of the matrices: over which axis a channel extends.
_AXES = {'kernel': 0, 'embedding': 1}
_SUFFIX = '_scale'
_LARGEST = 127  # -128 is left out, so that negation is exact.

# XLA:CPU converts a matrix before a product and keeps the result: at once, or,
# within a loop, for all rounds, so that nothing is gained. In pieces that stay
# in a core's own memory (256 KB as float32), which an inner loop converts and
# uses up, only the bytes travel. Measured with jax 0.10.2.
_PIECE = 64 * 1024
# With many rows the arithmetic decides, and pieces should be few.
_MOST_ROWS, _LARGE_PIECE = 48, 256 * 1024
# A tied head meets a single row as it lies, without being laid out anew.
_PIECE_OF_HEAD = 1024 * 1024
# Sums of wider products outgrow a piece of the matrix.
_WIDE = 4096


def check(argument: str, weights: str | None) -> None:
  """Refuses what is neither 'int8' nor None, naming the argument."""
  if weights not in (None, NAME):
    raise ValueError(
      f"{argument} is {weights!r}; it must be 'int8', or None for weights of "
      "the pair's dtype."
    )


def scale_name(name: str) -> str:
  """The parameter with the scales of a matrix."""
  return name + _SUFFIX


def is_quantised(names: Iterable[str]) -> bool:
  """Whether parameters of these names are those of a quantised model."""
  scales = set(map(scale_name, _AXES))
  return any(name.rpartition('/')[-1] in scales for name in names)


def applies_to(name: str) -> bool:
  """Whether the parameter 'decoder/layers_0/mlp/wo/kernel' is quantised."""
  return name.rpartition('/')[-1] in _AXES


def quantise(
  name: str, weights: base.Array | np.ndarray
) -> tuple[base.Array, base.Array]:
  """A matrix as int8, and the scales of its channels in float32.

  Args:
    name: of the parameter, which `applies_to`.
    weights: `[in, out]`, or an embedding's `[V, E]`.
  """
  return _quantise(weights, _AXES[name.rpartition('/')[-1]])


def with_scales(
  params: base.Params, scales: Mapping[str, base.Array]
) -> base.Params:
  """The parameters, some quantised, and the scales, by name, of those."""
  flat = traverse_util.flatten_dict(params, sep='/')
  return traverse_util.unflatten_dict({**flat, **scales}, sep='/')


def quantised(params: base.Params) -> base.Params:
  """The parameters of the quantised model; does not change `params`."""
  found, scales = {}, {}
  for name, value in traverse_util.flatten_dict(params, sep='/').items():
    if applies_to(name):
      value, scales[scale_name(name)] = quantise(name, value)
    found[name] = value
  return with_scales(traverse_util.unflatten_dict(found, sep='/'), scales)


@functools.partial(jax.jit, static_argnames='axis')
def _quantise(weights, axis):
  weights = weights.astype(jnp.float32)
  scale = jnp.abs(weights).max(axis, keepdims=True) / _LARGEST
  # A channel of zeros has no scale of its own; any will do.
  rounded = jnp.round(weights / jnp.where(scale > 0, scale, 1))
  return rounded.astype(jnp.int8), scale.squeeze(axis)


def matmul(
  x: base.Array,
  kernel: base.Array,
  scale: base.Array,
  out_dtype: jnp.dtype | None = None,
) -> base.Array:
  """`x [..., in]` times `kernel [in, out]` int8 times `scale [out]`.

  Summed in float32; of `x`'s type if no `out_dtype` is given.
  """
  product = lax.platform_dependent(
    *_within(x, kernel), cpu=_in_pieces, default=_product
  )
  product = (product * scale).astype(out_dtype or x.dtype)
  return product.reshape(*x.shape[:-1], -1)


def matmul_transposed(
  x: base.Array,
  rows: base.Array,
  scale: base.Array,
  out_dtype: jnp.dtype | None = None,
) -> base.Array:
  """`x [..., in]` times the transpose of `rows [out, in]`: a tied head's.

  As `matmul` otherwise.
  """
  product = lax.platform_dependent(
    *_within(x, rows),
    cpu=functools.partial(_by_outputs, axis=0),
    default=lambda x, rows: _product(x, rows.T),
  )
  product = (product * scale).astype(out_dtype or x.dtype)
  return product.reshape(*x.shape[:-1], -1)


def _within(x, matrix):
  """`x` as `[N, in]`, and the matrix, which is now worth nothing without it.

  Else the conversion would be taken out of a decoding loop.
  """
  return lax.optimization_barrier((x.reshape(-1, x.shape[-1]), matrix))


def _product(x, kernel):
  return jnp.matmul(
    x, kernel.astype(x.dtype), preferred_element_type=jnp.float32
  )


def _in_pieces(x, kernel):
  """Of `[N, in]` and `[in, out]`, some of the inputs at a time."""
  inputs, outputs = kernel.shape
  if outputs > _WIDE:
    return _by_outputs(x, kernel, axis=1)
  size = _length(inputs, outputs, _piece(x))

  def add(i, total):
    part = lax.dynamic_slice_in_dim(kernel, i * size, size, 0)
    few = lax.dynamic_slice_in_dim(x, i * size, size, 1)
    return total + _product(few, part)

  rest = inputs // size * size  # Where what fills no piece begins.
  total = _product(x[:, rest:], kernel[rest:])
  return lax.fori_loop(0, inputs // size, add, total)


def _by_outputs(x, kernel, axis):
  """Of `[N, in]` and a matrix with its outputs on `axis`, some at a time."""
  outputs, inputs = kernel.shape[axis], kernel.shape[1 - axis]
  alone = axis == 0 and x.shape[0] == 1
  size = _length(outputs, inputs, _PIECE_OF_HEAD if alone else _piece(x))

  def write(i, product):
    # The last piece may overlap the one before: the same numbers once more.
    first = jnp.minimum(i * size, outputs - size)
    part = lax.dynamic_slice_in_dim(kernel, first, size, axis)
    part = _product(x, part if axis else part.T)
    return lax.dynamic_update_slice_in_dim(product, part, first, 1)

  product = jnp.zeros((x.shape[0], outputs), jnp.float32)
  return lax.fori_loop(0, math.ceil(outputs / size), write, product)


def _piece(x) -> int:
  return _PIECE if x.shape[0] <= _MOST_ROWS else _LARGE_PIECE


def _length(whole: int, other: int, piece: int) -> int:
  """How much of an axis a piece has: a divisor, if there is one near."""
  most = min(whole, max(1, piece // other))
  near = (n for n in range(most, most // 2, -1) if whole % n == 0)
  return next(near, most)
