"""Tensors in zarr arrays, the way T5X and Orbax keep them."""

from __future__ import annotations

from collections.abc import Mapping
import os
import re
from typing import Any

from etils import epath
import numpy as np
import tensorstore as ts

from speccascade_jax.checkpoints import errors

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
      CheckpointError: if an array is missing or broken.
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


def _short(error: Exception) -> str:
  """The first line; what follows repeats the whole specification."""
  return str(error).splitlines()[0][:300] if str(error) else repr(error)
