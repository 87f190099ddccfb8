"""Tensors in safetensors files: one file, or several under an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any

import numpy as np
import safetensors

from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import hub

WEIGHTS_FILE = 'model.safetensors'
INDEX_FILE = 'model.safetensors.index.json'
_SHARDS = 'model-*-of-*.safetensors'
_PICKLES = (
  'Weights in another form (pytorch_model.bin) are not read, since unpickling '
  'them runs code; convert them with transformers: '
  '`AutoModelForSeq2SeqLM.from_pretrained(...).save_pretrained(...)`, or '
  'AutoModelForCausalLM for a Gemma.'
)

# Beyond it a JSON file is not the description of a checkpoint.
_LONGEST_JSON = 64 * 2**20
# How the headers call what weights are stored as.
_DTYPES = {
  'F16': 'float16',
  'BF16': 'bfloat16',
  'F32': 'float32',
  'F64': 'float64',
}


def read_json(path: hub.AnyPath) -> dict[str, Any]:
  """An object in a JSON file.

  Raises:
    CheckpointError: if it is missing, too long, not JSON, or no object.
  """
  if not path.is_file():
    raise errors.CheckpointError(f'{path} is missing.')
  size = hub.size_of(path)
  if size > _LONGEST_JSON:
    raise errors.CheckpointError(
      f'{path} has {size} bytes, too many for what it should be.'
    )
  try:
    content = json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise errors.CheckpointError(f'{path} is not valid JSON: {error}') from None
  if not isinstance(content, dict):
    raise errors.CheckpointError(
      f'{path} must hold an object, got {str(content)[:40]!r}.'
    )
  return content


def _is_beside(name: Any) -> bool:
  """Whether an index names a file of its own folder."""
  return (
    isinstance(name, str)
    and pathlib.PurePath(name).name == name
    and name.endswith('.safetensors')
  )


class Files:
  """A `translate.Source` over one or more safetensors files."""

  def __init__(
    self,
    path: pathlib.Path,
    files: Sequence[pathlib.Path],
    where: Mapping[str, str] | None = None,
  ):
    """Reads the headers.

    Args:
      path: for messages.
      files: each of them.
      where: for every tensor the name of its file; what other files hold under
        that name is not read. Without, a tensor may lie in one file only.

    Raises:
      CheckpointError: if a file is missing or broken, or a tensor is not where
        it has to be.
    """
    self.path = str(path)
    self._of: dict[str, Any] = {}
    self.shapes: dict[str, tuple[int, ...]] = {}
    self.dtypes: dict[str, str] = {}
    for file in files:
      handle = self._open(file)
      for name in handle.keys():  # noqa: SIM118  It is no mapping.
        if where is not None and where.get(name, file.name) != file.name:
          continue
        if name in self._of:
          raise errors.CheckpointError(
            f'{file} holds {name}, which another file of {path} holds as well, '
            'and the index does not say which of them counts.'
          )
        self._of[name] = handle
        tensor = handle.get_slice(name)
        self.shapes[name] = tuple(tensor.get_shape())
        self.dtypes[name] = _DTYPES.get(tensor.get_dtype(), tensor.get_dtype())
    lacking = sorted(set(where or ()) - set(self.shapes))
    if where is not None and lacking:
      raise errors.CheckpointError(
        f'The index of {path} promises {errors.first(lacking)}, but '
        f'{where[lacking[0]]} does not hold it.'
      )

  def _open(self, file: pathlib.Path):
    if not file.is_file():
      raise errors.CheckpointError(
        f'{file} is missing: the index of {self.path} names it. Has the '
        'checkpoint been downloaded as a whole?'
      )
    try:
      return safetensors.safe_open(str(file), framework='numpy')
    except (safetensors.SafetensorError, ValueError, OSError) as error:
      raise errors.CheckpointError(
        f'{file} cannot be read ({file.stat().st_size} bytes): it is cut short '
        f'or no safetensors file. {error}'
      ) from error

  def read(
    self, name: str, first: int = 0, end: int | None = None
  ) -> np.ndarray:
    try:
      if not self.shapes[name]:
        return self._of[name].get_tensor(name)
      return self._of[name].get_slice(name)[first:end]
    except safetensors.SafetensorError as error:
      raise ValueError(str(error)) from error

  def stored_together(self, name: str) -> int:
    return 1


def refuse_pickles(folder: pathlib.Path) -> None:
  """CheckpointError for a folder whose only weights are pickles."""
  if any(folder.glob('pytorch_model*.bin')):
    raise errors.CheckpointError(f'{folder}: {_PICKLES}')


def open_folder(folder: pathlib.Path) -> Files:
  """The tensors of a folder, in one file or in shards.

  Raises:
    CheckpointError: if there are none, or a file is missing or broken.
  """
  index, single = folder / INDEX_FILE, folder / WEIGHTS_FILE
  if not index.is_file():
    if not single.is_file():
      shards = sorted(path.name for path in folder.glob(_SHARDS))
      if shards:
        raise errors.CheckpointError(
          f'{folder / INDEX_FILE} is missing, which says what is in '
          f'{errors.first(shards)}. Has the checkpoint been downloaded as a '
          'whole?'
        )
      raise errors.CheckpointError(
        f'{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}. {_PICKLES} '
        f'{hub.GGUF}'
      )
    return Files(single, [single])
  content = read_json(index)
  where = content.get('weight_map')
  if not isinstance(where, dict) or not where:
    raise errors.CheckpointError(f'{index} has no weight_map.')
  for name in where.values():
    if not _is_beside(name):
      raise errors.CheckpointError(
        f'{index} names {name!r}, which is no safetensors file beside it.'
      )
  files = [folder / name for name in sorted(set(where.values()))]
  return Files(folder, files, where)
