"""Any checkpoint's tensors into a model's parameters, by a table of names.

A format is a `Source` (which tensors there are, and how one is read) and a
table for a model of a given shape: for every tensor of the source the
parameters that it becomes, and how. Names and shapes are checked before a
single tensor is read: every tensor is used, every parameter is filled, or the
error names those that are not.

Tensors are read one by one, large ones in parts, cast on the way and handed to
the device, so that loading takes little more memory than the model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import dataclasses
import functools
import math
import os
import types
from typing import Any, Protocol

from flax import traverse_util
from flax.core import meta
import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base
from speccascade_jax.checkpoints import errors
from speccascade_jax.models import families
from speccascade_jax.models import int8

# Of a tensor that is read in parts, as many rows as fit in here are in memory
# twice.
_PART_BYTES = 32 * 2**20
# What XLA on a CPU asks of a buffer, if it is to be used as it is.
_ALIGNMENT = 64
# What weights may be stored as.
_WEIGHTS = ('float16', 'bfloat16', 'float32', 'float64')

# (name, value) -> the array on its device, or devices.
Place = Callable[[str, np.ndarray], base.Array]


class Index(Protocol):
  """Which tensors a checkpoint has.

  Attributes:
    path: for messages.
    shapes: of all tensors, by name.
    dtypes: of all tensors, by name: what `_WEIGHTS` are called, or anything
      else.
  """

  @property
  def path(self) -> str: ...

  @property
  def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

  @property
  def dtypes(self) -> Mapping[str, str]: ...


class Source(Index, Protocol):
  """The tensors of a checkpoint, to be read."""

  def read(
    self, name: str, first: int = 0, end: int | None = None
  ) -> np.ndarray:
    """The rows `first .. end - 1` of a tensor, by default all of them."""
    ...

  def stored_together(self, name: str) -> int:
    """How many rows have to be fetched to have one: those of a chunk."""
    ...


@dataclasses.dataclass(frozen=True)
class Part:
  """A parameter that a tensor of the source becomes.

  Attributes:
    target: its name, such as 'decoder/layers_0/mlp/wo/kernel'.
    convert: the tensor to the parameter. It is also traced for shapes, so it
      uses nothing but what NumPy's and JAX's arrays have in common.
    axis: of the parameter, which the tensor's rows become (each of them one or
      more) when `convert` takes any number of them; None where it needs them
      all.
    shape: of the tensor, where others could be converted as well: with more
      layers than there are, or with axes exchanged.
  """

  target: str
  convert: Callable[[Any], Any]
  axis: int | None = None
  shape: tuple[int, ...] | None = None


# Tensor of the source -> what it becomes.
Table = Mapping[str, tuple[Part, ...]]


def as_is(target: str) -> tuple[Part, ...]:
  """The tensor as it stands."""
  return (Part(target, _same, 0),)


def transposed(target: str) -> tuple[Part, ...]:
  """A matrix that the source keeps [out, in], as PyTorch does."""
  return (Part(target, _turned, 1),)


def converted(
  target: str,
  convert: Callable[[Any], Any],
  axis: int | None = None,
  shape: tuple[int, ...] | None = None,
) -> tuple[Part, ...]:
  """Anything else; see `Part`."""
  return (Part(target, convert, axis, shape),)


def _same(x: Any) -> Any:
  return x


def _turned(x: Any) -> Any:
  return x.T


def put(name: str, value: np.ndarray) -> base.Array:
  """Places a parameter on the default device."""
  del name
  # The array is ours alone, so that it need not be copied where host and
  # device are one.
  return jax.device_put(value, may_alias=True)


def load(
  source: Source,
  table: Table,
  config: families.Config,
  dtype: str | None = None,
  ignored: Iterable[str] = (),
  place: Place = put,
) -> base.Params:
  """The parameters of a model of this shape.

  Args:
    source: where the tensors are.
    table: what becomes of them.
    config: the model's shape.
    dtype: of the parameters, such as 'bfloat16'; as stored without.
    ignored: tensors that may be there and are not read: copies of others.
    place: puts a parameter where it belongs, sharded or not.

  Raises:
    CheckpointError: if a tensor is missing, is of no use, has the wrong shape
      or type, or cannot be read.
  """
  check(source, table, config, ignored)
  wanted = shapes(config)
  params = {}
  # The largest first: what reading them takes besides is then taken while
  # most of the model is not there yet.
  for name in sorted(source.shapes, key=lambda n: -math.prod(source.shapes[n])):
    found = _read(source, name, table.get(name, ()), wanted, dtype)
    for target, value in found:
      params[target] = place(target, value)
      del value
  return traverse_util.unflatten_dict(params, sep='/')


def check(
  source: Index,
  table: Table,
  config: families.Config,
  ignored: Iterable[str] = (),
) -> None:
  """Refuses a source that is not exactly a model of this shape; see `load`."""
  found, problems = set(source.shapes), []
  for what, names in (
    ('missing', sorted(set(table) - found)),
    ('of no use', sorted(found - set(table) - set(ignored))),
  ):
    if names:
      problems.append(f'{what} {errors.first(names)}')
  wanted, filled = shapes(config), set()
  wrong, unread = [], []
  for name in sorted(found & set(table)):
    shape = source.shapes[name]
    if source.dtypes[name] not in _WEIGHTS:
      unread.append(f'{name} is {source.dtypes[name]}')
    for part in table[name]:
      filled.add(part.target)
      if part.shape not in (None, shape):
        wrong.append(f'{name} is {shape}, but has to be {part.shape}')
        break
      if _converted_shape(part.convert, shape) != wanted.get(part.target):
        wrong.append(
          f'{name} is {shape}, but {part.target} has to be '
          f'{wanted.get(part.target)}'
        )
  if wrong:
    problems.append(f'wrong shape: {errors.first(wrong)}')
  if unread:
    problems.append(f'of a type that is not read: {errors.first(unread)}')
  # Of a table for another shape.
  left = sorted(set(wanted) - filled)
  if left and not problems:
    problems.append(f'nothing fills {errors.first(left)}')
  if problems:
    raise errors.CheckpointError(
      f'{source.path} does not hold the tensors of this '
      f'{type(config).__name__}: {"; ".join(problems)}.'
    )


def check_params(
  path: str | os.PathLike[str], flat: Mapping[str, Any], config: families.Config
) -> None:
  """Refuses to write parameters that are not those of a model of this shape.

  Args:
    path: for the message.
    flat: the parameters by name.
    config: the model's shape.

  Raises:
    CheckpointError: naming those that are missing, unexpected or of another
      shape.
  """
  if int8.is_quantised(flat):
    raise errors.CheckpointError(
      f'{os.fspath(path)} is not written, for these weights are int8, which is '
      'kept in memory only: load the model without it.'
    )
  wanted = shapes(config)
  problems = [
    f'{what} {errors.first(names)}'
    for what, names in (
      ('missing', sorted(set(wanted) - set(flat))),
      ('unexpected', sorted(set(flat) - set(wanted))),
    )
    if names
  ]
  wrong = [
    f'{name} is {tuple(flat[name].shape)} instead of {wanted[name]}'
    for name in sorted(set(wanted) & set(flat))
    if tuple(flat[name].shape) != wanted[name]
  ]
  if wrong:
    problems.append(f'wrong shape: {errors.first(wrong)}')
  if problems:
    raise errors.CheckpointError(
      f'{os.fspath(path)} is not written, for these are not the parameters of '
      f'this {type(config).__name__}: {"; ".join(problems)}.'
    )


def shape_of(source: Index, what: str, *names: str, rank: int):
  """Of the first of some tensors that is there: what tells a model's sizes.

  Args:
    source: where the tensors are.
    what: such as 'a T5 of T5X', for the message.
    *names: one and the same tensor in different styles.
    rank: how many axes it has.

  Raises:
    CheckpointError: if none of them is there, or it has other axes or none of
      some length.
  """
  name = next((name for name in names if name in source.shapes), None)
  if name is None:
    raise errors.CheckpointError(
      f'{source.path} is not {what}: it has no {" or ".join(names)}, but '
      f'{errors.first(sorted(source.shapes))}.'
    )
  shape = source.shapes[name]
  if len(shape) != rank or 0 in shape:
    raise errors.CheckpointError(
      f'{source.path} is not {what}: {name} is {shape}, not of {rank} axes '
      'with something in them.'
    )
  return shape


@functools.lru_cache(maxsize=32)
def shapes(config: families.Config) -> Mapping[str, tuple[int, ...]]:
  """Name and shape of every parameter of a model, without making any."""
  abstract = meta.unbox(families.abstract_params(config))
  flat = traverse_util.flatten_dict(abstract, sep='/')
  return types.MappingProxyType(
    {name: tuple(value.shape) for name, value in flat.items()}
  )


def read(
  source: Source, name: str, first: int = 0, end: int | None = None
) -> np.ndarray:
  """Rows of a tensor as it is stored; CheckpointError if they cannot be read.

  By default all of them; see `Source.read`.
  """
  with _reading(source, name):
    return source.read(name, first, end)


def check_same(source: Source, first: str, second: str) -> None:
  """Refuses a copy of a tensor that is none; reads both in parts.

  Raises:
    CheckpointError: if they differ, or cannot be read.
  """
  shape = source.shapes[first]
  same = shape == source.shapes[second]
  rows = max(1, _PART_BYTES // (4 * math.prod(shape[1:])))
  for row in range(0, shape[0] if same else 0, rows):
    one, other = (
      read(source, name, row, min(row + rows, shape[0]))
      for name in (first, second)
    )
    same = same and np.array_equal(one, other)
  if not same:
    raise errors.CheckpointError(
      f'{source.path}: {second} differs from {first}, and a model of this '
      'config has one matrix for both.'
    )


@functools.lru_cache(maxsize=4096)
def _converted_shape(convert: Callable[[Any], Any], shape: tuple[int, ...]):
  try:
    return tuple(
      jax.eval_shape(convert, jax.ShapeDtypeStruct(shape, jnp.float32)).shape
    )
  except (TypeError, ValueError, IndexError):
    return None  # A tensor of another rank cannot even be converted.


@contextlib.contextmanager
def _reading(source: Source, name: str) -> Iterator[None]:
  try:
    yield
  except (OSError, ValueError, IndexError, MemoryError) as error:
    raise errors.CheckpointError(
      f'{source.path}: {name} cannot be read: {error}'
    ) from error


def _read(
  source: Source,
  name: str,
  parts: tuple[Part, ...],
  wanted: Mapping[str, tuple[int, ...]],
  dtype: str | None,
) -> Iterator[tuple[str, np.ndarray]]:
  """What a tensor becomes, target by target; it is read once for all."""
  if not parts:
    return
  if any(part.axis is None for part in parts):
    whole = read(source, name)
    for part in parts:
      with _reading(source, name):
        out = _aligned(wanted[part.target], _cast(whole.dtype, dtype))
        out[...] = part.convert(whole)
      yield part.target, out
    return
  shape = source.shapes[name]
  # Whole chunks, lest each be decoded once for every part of it.
  together = source.stored_together(name)
  row_bytes = 4 * math.prod(shape[1:])
  step = max(1, _PART_BYTES // row_bytes // together) * together
  outs: dict[str, np.ndarray] = {}
  for first in range(0, shape[0], step):
    with _reading(source, name):
      rows = source.read(name, first, min(first + step, shape[0]))
      for part in parts:
        assert part.axis is not None  # Or it would have been read whole.
        size = wanted[part.target]
        if part.target not in outs:
          outs[part.target] = _aligned(size, _cast(rows.dtype, dtype))
        each = size[part.axis] // shape[0]
        place = slice(first * each, (first + len(rows)) * each)
        where = (slice(None),) * part.axis + (place,)
        outs[part.target][where] = part.convert(rows)
  for part in parts:
    yield part.target, outs.pop(part.target)


def _cast(found: np.dtype, dtype: str | None) -> np.dtype:
  return found if dtype is None else np.dtype(jnp.dtype(dtype))


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
  """An empty array that a CPU device can use without a copy."""
  size = math.prod(shape) * dtype.itemsize
  buffer = np.empty(size + _ALIGNMENT, np.uint8)
  offset = -buffer.ctypes.data % _ALIGNMENT
  return buffer[offset : offset + size].view(dtype).reshape(shape)
