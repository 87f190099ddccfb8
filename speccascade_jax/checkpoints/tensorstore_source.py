"""Tensors in zarr arrays, the way T5X and Orbax keep them."""

from __future__ import annotations

from collections.abc import Mapping
import math
import os
import re
from typing import Any

from etils import epath
import numpy as np
import tensorstore as ts

from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import hub

# What arrays may claim to hold: as much as this whatever lies there, and then
# so many times the bytes of the files. Weights compress to half of what they
# were; zeros to a thousandth, or to no chunk at all.
_ALWAYS_BYTES = 64 * 2**20
_BYTES_PER_BYTE = 32

_GCS = re.compile(r'gs://([^/]+)/(.*)', re.DOTALL)


def kvstore(folder: epath.Path) -> dict[str, Any]:
  """The key-value store of a folder, on this machine or in a bucket."""
  match = _GCS.fullmatch(os.fspath(folder))
  if match is None:
    return {'driver': 'file', 'path': f'{folder.resolve()}/'}
  return {'driver': 'gcs', 'bucket': match[1], 'path': f'{match[2]}/'}


class Arrays:
  """A `translate.Source` over zarr arrays, and others that are in memory."""

  def __init__(
    self,
    path: epath.Path,
    specs: Mapping[str, Mapping[str, Any]],
    inline: Mapping[str, np.ndarray] | None = None,
    zeros_stored: bool = False,
  ):
    """Opens the arrays.

    A chunk that is missing is an error, unless the array has a fill value that
    stands for it. T5X's and Orbax's have none in zarr's second version, and
    tensorstore then writes every chunk.

    Args:
      path: for messages.
      specs: by name, what tensorstore opens; paths are below `path`.
      inline: arrays that are here already.
      zeros_stored: the writer says that it leaves out no chunk, even where
        there is a fill value.

    Raises:
      CheckpointError: if an array is missing or broken, or if they claim to be
        so large that the files cannot hold them.
    """
    self.path = os.fspath(path)
    self._inline = dict(inline or {})
    self._stores = self._open(specs, filled=False)
    if not zeros_stored:
      self._stores |= self._open(
        {
          name: specs[name]
          for name, array in self._stores.items()
          if array.fill_value is not None
        },
        filled=True,
      )
    self._check_sizes(path)
    arrays = {**self._stores, **self._inline}
    self.shapes = {
      name: tuple(int(n) for n in array.shape) for name, array in arrays.items()
    }
    self.dtypes = {name: array.dtype.name for name, array in arrays.items()}

  def _open(
    self, specs: Mapping[str, Mapping[str, Any]], filled: bool
  ) -> dict[str, Any]:
    """All at once; `filled`: the fill value stands for missing chunks."""
    opening = {
      name: ts.open(
        {**spec, 'fill_missing_data_reads': filled}, read=True, open=True
      )
      for name, spec in specs.items()
    }
    stores = {}
    for name, future in opening.items():
      try:
        stores[name] = future.result()
      except (ValueError, OSError, RuntimeError) as error:
        raise errors.CheckpointError(
          f'{self.path}: the array of {name} cannot be opened: {_short(error)}'
        ) from error
    return stores

  def _check_sizes(self, folder: epath.Path) -> None:
    """Refuses shapes that are not those of what lies there.

    Before anything is read: a chunk that is missing can stand for any number
    of zeros, and tensorstore ends the process if it gets no memory for them.
    """
    claims = {name: _bytes_of(array) for name, array in self._stores.items()}
    claimed, stored = sum(claims.values()), 0
    if claimed <= _ALWAYS_BYTES:
      return
    for file in hub.model_files(folder):
      stored += hub.size_of(file)
      if claimed <= _ALWAYS_BYTES + stored * _BYTES_PER_BYTE:
        return
    largest = max(claims, key=lambda name: claims[name])
    raise errors.CheckpointError(
      f'{self.path}: its files have {stored} bytes, too few for arrays that '
      f'claim to hold {claimed}; the largest is {largest} of shape '
      f'{tuple(self._stores[largest].shape)}. Has all of the checkpoint been '
      'copied?'
    )

  def read(
    self, name: str, first: int = 0, end: int | None = None
  ) -> np.ndarray:
    if name in self._inline:
      array = self._inline[name]
      return array[first:end] if array.shape else array
    store = self._stores[name]
    try:
      part = store[first:end] if self.shapes[name] else store
      return part.read().result()
    except (RuntimeError, ValueError, IndexError) as error:
      raise ValueError(_short(error)) from error

  def stored_together(self, name: str) -> int:
    if name in self._inline:
      return 1
    return int((self._stores[name].chunk_layout.read_chunk.shape or [1])[0])


def _bytes_of(array: Any) -> int:
  """What it takes to have an array, or one of its chunks, in memory."""
  chunk = array.chunk_layout.read_chunk.shape or ()
  each = array.dtype.numpy_dtype.itemsize
  return each * max(math.prod(array.shape), math.prod(chunk))


def _short(error: Exception) -> str:
  """The first line; what follows repeats the whole specification."""
  return str(error).splitlines()[0][:300] if str(error) else repr(error)
