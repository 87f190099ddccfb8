"""A GGUF file: its metadata, and its tensors as float32, row by row.

The `gguf` library undoes the quantisation. The header is read here: the
library's reader makes an object of every string, ten seconds for a vocabulary
of Gemma's size, and believes whatever lengths a file claims.

The layout (all little-endian): magic, version, counts; key, type and value of
every metadatum; name, dimensions (the fastest first), type and offset of every
tensor; padding; tensor data.

`gguf-split` cuts a model into files of this layout, NAME-00001-of-00003.gguf
and so on: the metadata are in the first, and the tensors in all.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
import struct
from typing import Any

import gguf
import numpy as np

from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import hub

_MAGIC = b'GGUF'
_VERSIONS = (2, 3)
_PART_NAME = re.compile(r'(.+)-\d{5}-of-(\d{5})\.gguf')
# As many bytes as are compared at a time.
_COMPARED = 2**24
_STRING, _ARRAY = 8, 9
_SCALARS = {
  0: 'B',
  1: 'b',
  2: 'H',
  3: 'h',
  4: 'I',
  5: 'i',
  6: 'f',
  7: '?',
  10: 'Q',
  11: 'q',
  12: 'd',
}
_READ = (
  *('F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1'),
  *('Q4_K', 'Q5_K', 'Q6_K'),
)


@dataclasses.dataclass(frozen=True)
class _Tensor:
  shape: tuple[int, ...]  # The slowest first, as NumPy has it.
  kind: gguf.GGMLQuantizationType
  offset: int  # From the file's beginning.

  @property
  def row_bytes(self) -> int:
    block, size = gguf.GGML_QUANT_SIZES[self.kind]
    return self.shape[-1] // block * size

  @property
  def rows(self) -> int:
    return math.prod(self.shape[:-1])

  @property
  def end(self) -> int:
    return self.offset + self.rows * self.row_bytes


class _Part:
  """One file: all of a model, or what gguf-split has put there.

  Attributes:
    path: of the file.
    bytes: of all of it.
    metadata: by key; arrays are lists.
    tensors: by name.
  """

  def __init__(self, path: pathlib.Path):
    """Reads the header; CheckpointError if the file is not what it claims."""
    self.path = path
    try:
      self.bytes = np.memmap(path, np.uint8, mode='r')
    except (OSError, ValueError) as error:
      raise errors.CheckpointError(f'{path} cannot be read: {error}') from error
    try:
      self._read_header(_Cursor(self.bytes))
    except _MalformedError as error:
      raise errors.CheckpointError(
        f'{path} ({len(self.bytes)} bytes) is no GGUF file, or cut short: '
        f'{error}'
      ) from None

  @property
  def place(self) -> tuple[int, int]:
    """Which part it is, from 0, and of how many."""
    number, count = (
      self.metadata.get(f'split.{key}', default)
      for key, default in (('no', 0), ('count', 1))
    )
    if not (isinstance(number, int) and isinstance(count, int)):
      raise errors.CheckpointError(
        f'{self.path} says that it is part {number!r:.80} of {count!r:.80}.'
      )
    return number, count

  def _read_header(self, cursor: _Cursor) -> None:
    if cursor.take(4) != _MAGIC:
      raise _MalformedError('it does not begin with GGUF.')
    version = cursor.scalar('I')
    if int.from_bytes(version.to_bytes(4, 'little'), 'big') in _VERSIONS:
      raise errors.CheckpointError(
        f'{self.path} is big-endian, and only little-endian files are read: '
        f'convert it with `gguf-convert-endian {self.path} little`, a command '
        'of the gguf package.'
      )
    if version not in _VERSIONS:
      raise _MalformedError(f'version {version} is not read, only {_VERSIONS}.')
    tensors, pairs = cursor.scalar('Q'), cursor.scalar('Q')
    self.metadata: dict[str, Any] = {}
    for _ in range(cursor.bounded(pairs, 12)):
      key = cursor.string()
      self.metadata[key] = cursor.value(cursor.scalar('I'))
    found = [
      self._read_tensor(cursor) for _ in range(cursor.bounded(tensors, 24))
    ]
    alignment = self.metadata.get('general.alignment', 32)
    if not isinstance(alignment, int) or alignment < 1:
      raise _MalformedError(f'its alignment is {alignment!r}.')
    data = -(-cursor.at // alignment) * alignment
    self.tensors: dict[str, _Tensor] = {}
    for name, tensor in found:
      tensor = dataclasses.replace(tensor, offset=data + tensor.offset)
      if tensor.end > len(self.bytes):
        raise _MalformedError(f'{name} ends at byte {tensor.end}.')
      if name in self.tensors:
        raise _MalformedError(f'{name} is there twice.')
      self.tensors[name] = tensor

  def _read_tensor(self, cursor: _Cursor) -> tuple[str, _Tensor]:
    name = cursor.string()
    rank = cursor.scalar('I')
    if not 1 <= rank <= 4:
      raise _MalformedError(f'{name} has {rank} dimensions.')
    shape = tuple(cursor.scalar('Q') for _ in range(rank))[::-1]
    number, offset = cursor.scalar('I'), cursor.scalar('Q')
    try:
      kind = gguf.GGMLQuantizationType(number)
    except ValueError:
      raise _MalformedError(f'{name} has the unknown type {number}.') from None
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    if shape[-1] % block:
      raise _MalformedError(
        f'{name} has rows of {shape[-1]}, not of whole blocks of {block}.'
      )
    return name, _Tensor(shape, kind, offset)


def parts(path: hub.AnyPath) -> list[hub.AnyPath]:
  """Where all files of a model lie by the name of one, in their order.

  As gguf-split names them; the file alone where its name is none of those.
  """
  match = _PART_NAME.fullmatch(path.name)
  if match is None:
    return [path]
  name, count = match.groups()
  return [
    path.with_name(f'{name}-{i:05}-of-{count}.gguf')
    for i in range(1, int(count) + 1)
  ]


def _read_parts(path: pathlib.Path) -> list[_Part]:
  """A file, and what belongs to it; CheckpointError where that is not there."""
  given = _Part(path)
  number, count = given.place
  if count <= 1:
    return [given]
  this = f'{path} is part {number + 1} of {count}'
  paths = [pathlib.Path(part) for part in parts(path)]
  if len(paths) != count or not 0 <= number < count or paths[number] != path:
    raise errors.CheckpointError(
      f'{this} by its metadata, but its name does not end in '
      f'-{number + 1:05}-of-{count:05}.gguf, by which the others are found: '
      'rename it.'
    )
  found = []
  for i, other in enumerate(paths):
    if not other.is_file():
      raise errors.CheckpointError(
        f'{this}, and part {i + 1} is not there: {other} is missing.'
      )
    part = given if i == number else _Part(other)
    total = 'split.tensors.count'
    if part.place != (i, count) or (
      part.metadata.get(total) != given.metadata.get(total)
    ):
      raise errors.CheckpointError(
        f'{this}, and {other} is not part {i + 1} of the same model: its '
        f'metadata say part {part.place[0] + 1} of {part.place[1]}, '
        f'{part.metadata.get(total)} tensors in all; those of {path.name} say '
        f'{given.metadata.get(total)} in all.'
      )
    found.append(part)
  return found


class File:
  """A `translate.Source` over a GGUF file, or all that it is a part of.

  Attributes:
    path: for messages.
    metadata: by key, such as 'gemma3.block_count'; arrays are lists.
    shapes: of all tensors, by name.
    dtypes: likewise: what a tensor is read as, or its type if it is not read.
  """

  def __init__(self, path: pathlib.Path):
    """Reads the header; CheckpointError if the file is not what it claims.

    Args:
      path: of the file; where a model has several, of any of them.
    """
    self.path = str(path)
    read = _read_parts(path)
    self.metadata = read[0].metadata
    self._tensors: dict[str, tuple[_Part, _Tensor]] = {}
    for part in read:
      for name, tensor in part.tensors.items():
        if name in self._tensors:
          raise errors.CheckpointError(
            f'{part.path} has {name}, which {self._tensors[name][0].path} has, '
            'too: they are not of one model.'
          )
        self._tensors[name] = part, tensor
    total = self.metadata.get('split.tensors.count')
    if len(read) > 1 and total not in (None, len(self._tensors)):
      raise errors.CheckpointError(
        f'{path} and the other {len(read) - 1} parts hold {len(self._tensors)} '
        f'tensors, not the {total} that their metadata say.'
      )
    self.shapes = {name: t.shape for name, (_, t) in self._tensors.items()}
    # As they are read, where they are.
    self.dtypes = {
      name: 'float32' if t.kind.name in _READ else t.kind.name
      for name, (_, t) in self._tensors.items()
    }

  def read(
    self, name: str, first: int = 0, end: int | None = None
  ) -> np.ndarray:
    """The rows `first .. end - 1` as float32."""
    part, tensor = self._tensors[name]
    if tensor.kind.name not in _READ:
      raise ValueError(
        f'{tensor.kind.name} is not read; {", ".join(_READ)} are.'
      )
    if len(tensor.shape) == 1:  # A vector is one row, whole.
      rows = slice(0, 1)
      shape: tuple[int, ...] = tensor.shape
    else:
      rows = slice(first, tensor.shape[0] if end is None else end)
      shape = (rows.stop - rows.start, *tensor.shape[1:])
    per = max(1, tensor.rows // tensor.shape[0] if len(tensor.shape) > 1 else 1)
    begin = tensor.offset + rows.start * per * tensor.row_bytes
    count = (rows.stop - rows.start) * per
    data = np.asarray(part.bytes[begin : begin + count * tensor.row_bytes])
    if tensor.kind == gguf.GGMLQuantizationType.F32:
      values = data.view('<f4')
    elif tensor.kind == gguf.GGMLQuantizationType.F16:
      values = data.view('<f2').astype(np.float32)
    else:
      blocks = data.reshape(count, tensor.row_bytes)
      values = gguf.quants.dequantize(blocks, tensor.kind)
    return np.array(values, np.float32).reshape(shape)

  def stored_together(self, name: str) -> int:
    return 1

  def same(self, name: str, other: str) -> bool:
    """Whether two tensors have one shape and type and the same bytes."""
    (part, first), (other_part, second) = (
      self._tensors[name],
      self._tensors[other],
    )
    if (first.shape, first.kind) != (second.shape, second.kind):
      return False
    shift = second.offset - first.offset
    for begin in range(first.offset, first.end, _COMPARED):
      end = min(begin + _COMPARED, first.end)
      if not np.array_equal(
        part.bytes[begin:end], other_part.bytes[begin + shift : end + shift]
      ):
        return False
    return True


class _MalformedError(Exception):
  """A header that cannot be."""


class _Cursor:
  """Reads a header front to back, and never past the file's end."""

  def __init__(self, data: np.ndarray):
    self._view = memoryview(data.data)
    self.at = 0

  def take(self, size: int) -> bytes:
    if size > len(self._view) - self.at:
      raise _MalformedError(f'{size} bytes are wanted at byte {self.at}.')
    self.at += size
    return bytes(self._view[self.at - size : self.at])

  def scalar(self, code: str) -> Any:
    layout = f'<{code}'
    return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

  def bounded(self, count: int, least: int) -> int:
    """A number of things of at least so many bytes that there is room for."""
    if count * least > len(self._view) - self.at:
      raise _MalformedError(f'{count} entries are promised.')
    return count

  def string(self) -> str:
    return self.take(self.scalar('Q')).decode('utf-8', 'replace')

  def value(self, kind: int, nested: bool = False) -> Any:
    if kind in _SCALARS:
      return self.scalar(_SCALARS[kind])
    if kind == _STRING:
      return self.string()
    if kind != _ARRAY or nested:
      raise _MalformedError(f'a value has the type {kind}.')
    element, count = self.scalar('I'), self.scalar('Q')
    if element in _SCALARS:
      size = struct.calcsize(f'<{_SCALARS[element]}')
      data = self.take(self.bounded(count, size) * size)
      return np.frombuffer(data, f'<{_SCALARS[element]}').tolist()
    return [
      self.value(element, nested=True) for _ in range(self.bounded(count, 8))
    ]
