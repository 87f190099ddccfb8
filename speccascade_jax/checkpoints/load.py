"""The front door: a checkpoint of any format that is read here.

    checkpoint = load.load('flan-t5-small', dtype='bfloat16')

What it is shows in the path itself: a folder of this package, of Hugging Face,
of T5X or of Orbax, a GGUF file, or `hf://owner/name` on Hugging Face's hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import hashlib
import os
from typing import Any

from speccascade_jax import base
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import gguf_file
from speccascade_jax.checkpoints import gguf_models
from speccascade_jax.checkpoints import hub
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import native
from speccascade_jax.checkpoints import orbax_models
from speccascade_jax.checkpoints import safetensors_source
from speccascade_jax.checkpoints import t5x
from speccascade_jax.checkpoints import translate
from speccascade_jax.models import families

# Of each file, how much a digest reads at either end.
_DIGEST_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """What a checkpoint holds.

  Attributes:
    config: the model's shape.
    params: the plain pytree of arrays under 'params'.
    format: such as 'native' or 'huggingface'.
    vocabulary: that lies with the weights; None if none does.
    digest: 16 hexadecimal digits that change with the files' content.
  """

  config: families.Config
  params: base.Params
  format: str
  vocabulary: vocabularies.Vocabulary | None
  digest: str


def load(
  path: str | os.PathLike[str],
  dtype: str | None = None,
  place: translate.Place = translate.put,
) -> Checkpoint:
  """Reads a checkpoint.

  Args:
    path: a folder, a GGUF file (any of those that gguf-split has made of one),
      or `hf://owner/name[@revision]`.
    dtype: of the parameters in memory, such as 'bfloat16'; as stored without.
    place: puts a parameter where it belongs, sharded or not; see `translate`.

  Raises:
    CheckpointError: if it is no checkpoint, or cannot be used.
  """
  with _files(path):
    local = _local(path)
    name = _readable_format(local)
    kind = _FORMATS[name]
    config, params, words = kind.load(local, dtype, place)
    return Checkpoint(
      config, params, name, words, digest(local, kind.beside(local))
    )


@contextlib.contextmanager
def _files(path: str | os.PathLike[str]) -> Iterator[None]:
  """Whatever else a file may refuse: too long a name, a disk that is gone."""
  try:
    yield
  except errors.CheckpointError:
    raise
  except Exception as error:
    # The libraries that read in buckets have errors of their own.
    if not isinstance(error, OSError) and not hub.is_remote(path):
      raise
    raise errors.CheckpointError(
      f'{os.fspath(path)} cannot be read: {error}'
    ) from error


def _local(path: str | os.PathLike[str]) -> hub.AnyPath:
  """Where a checkpoint lies, downloaded where it is on the hub."""
  local = hub.local(path)
  if hub.is_on_hub(path) and not (local / native.CONFIG_FILE).is_file():
    raise errors.CheckpointError(
      f'{os.fspath(path)} has no {native.CONFIG_FILE}: of what is on the hub, '
      f'folders with {native.CONFIG_FILE} and safetensors are read. {hub.GGUF}'
    )
  return local


def _readable_format(path: hub.AnyPath) -> str:
  """As `format_of`; refuses what is read on this machine only."""
  name = format_of(path)
  _check_place(path, name)
  return name


def _check_place(path: hub.AnyPath, name: str) -> None:
  """Refuses a bucket for a format that is not read there."""
  if hub.is_remote(path) and not _FORMATS[name].in_buckets:
    others = [other for other, kind in _FORMATS.items() if kind.in_buckets]
    raise errors.CheckpointError(
      f'{path} is of the format {name!r}, which is not read in a bucket, only '
      f'{" and ".join(others)} are: copy it to this machine first '
      '(gcloud storage cp -r).'
    )


def format_of(path: hub.AnyPath) -> str:
  """Which format a path holds, by what lies there; reads next to nothing.

  Raises:
    CheckpointError: if it is none that is known.
  """
  if not path.exists():
    raise errors.CheckpointError(f'There is no checkpoint at {path}.')
  if path.is_dir():
    hub.check_files(path)
  if path.is_file() and path.suffix == '.gguf':
    return 'gguf'
  config = path / native.CONFIG_FILE
  if config.is_file():
    content = safetensors_source.read_json(config)
    if 'family' in content:
      return 'native'
    if 'model_type' in content:
      return 'huggingface'
    raise errors.CheckpointError(
      f"{config} has neither a 'family' (a folder of this package) nor a "
      "'model_type' (one of Hugging Face's)."
    )
  if orbax_models.item(path) is not None:
    return 'orbax'
  if (path / t5x.INDEX_FILE).is_file():
    return 't5x'
  if path.is_dir() and not hub.is_remote(path):
    safetensors_source.refuse_pickles(path)
  raise errors.CheckpointError(
    f'{path} is no checkpoint that is known: expected a folder with '
    f'{native.CONFIG_FILE} and {native.WEIGHTS_FILE} (of this package or of '
    "Hugging Face), a step of T5X (with a file 'checkpoint') or of Orbax (with "
    '_METADATA), or a .gguf file.'
  )


def config_of(path: str | os.PathLike[str]) -> families.Config:
  """The shape of the model in a checkpoint, without its weights.

  Args:
    path: as in `load`.

  Raises:
    CheckpointError: if it is no checkpoint, or none that is read.
  """
  with _files(path):
    local = _local(path)
    return _FORMATS[_readable_format(local)].read_config(local)


def vocabulary_of(
  path: str | os.PathLike[str],
) -> vocabularies.Vocabulary | None:
  """The vocabulary that lies with a checkpoint; None if none does.

  Args:
    path: as in `load`.

  Raises:
    CheckpointError: if it is no checkpoint, or its metadata are broken.
  """
  with _files(path):
    local = _local(path)
    name = format_of(local)
    if name == 'gguf':
      # The one format whose vocabulary is no file of its own.
      _check_place(local, name)
    return _FORMATS[name].read_vocabulary(local)


def read_vocabulary(
  path: str | os.PathLike[str],
) -> vocabularies.Vocabulary:
  """A vocabulary that is given by itself.

  Args:
    path: a SentencePiece model file or a tokenizer.json, or a folder or a GGUF
      file that has one; where it may lie as in `load`.

  Raises:
    CheckpointError: if it cannot be had from the hub or a bucket, or is broken
      in a GGUF file.
    FileNotFoundError: if there is none on this machine.
    ValueError: if it is no vocabulary.
  """
  reading = _files(path) if hub.is_remote(path) else contextlib.nullcontext()
  with reading:
    local = hub.local(path)
    if local.suffix == '.gguf':
      _check_place(local, 'gguf')
      return gguf_models.read_vocabulary(local)
    return vocabularies.Vocabulary(local)


_Loaded = tuple[families.Config, base.Params, vocabularies.Vocabulary | None]


@dataclasses.dataclass(frozen=True)
class _Format:
  """How checkpoints of one format are read.

  Attributes:
    load: (path, dtype, place) -> config, parameters, vocabulary.
    read_config: path -> config.
    read_vocabulary: path -> vocabulary, None if there is none.
    beside: path -> what else it may be read by, whether that is there or not.
    in_buckets: whether its library, tensorstore, reads in buckets.
  """

  load: Callable[[hub.AnyPath, str | None, translate.Place], _Loaded]
  read_config: Callable[[hub.AnyPath], families.Config]
  read_vocabulary: Callable[[hub.AnyPath], vocabularies.Vocabulary | None]
  beside: Callable[[hub.AnyPath], Iterable[hub.AnyPath]] = lambda path: ()
  in_buckets: bool = False


def _folder(
  read: Callable[..., tuple[families.Config, base.Params]],
  read_config: Callable[[hub.AnyPath], families.Config],
  find: Callable[[hub.AnyPath], hub.AnyPath | None] = vocabularies.find,
  **options: Any,
) -> _Format:
  """A format whose vocabulary is a file of its own, where `find` says."""

  def read_vocabulary(path):
    found = find(path)
    try:
      return None if found is None else vocabularies.Vocabulary(found)
    except ValueError as error:
      raise errors.CheckpointError(str(error)) from error

  def load_folder(path, dtype, place):
    # The vocabulary first, for it takes the least time to be refused.
    words = read_vocabulary(path)
    return *read(path, dtype, place), words

  return _Format(load_folder, read_config, read_vocabulary, **options)


_FORMATS = {
  'native': _folder(native.load, native.read_config),
  'huggingface': _folder(huggingface.load, huggingface.read_config),
  't5x': _folder(t5x.load, t5x.read_config, beside=t5x.beside, in_buckets=True),
  'orbax': _folder(
    orbax_models.load,
    orbax_models.read_config,
    orbax_models.find_vocabulary,
    beside=orbax_models.beside,
    in_buckets=True,
  ),
  'gguf': _Format(
    gguf_models.load, gguf_models.read_config, gguf_models.read_vocabulary
  ),
}


def digest(path: hub.AnyPath, beside: Iterable[hub.AnyPath] = ()) -> str:
  """What a checkpoint holds, as 16 hexadecimal digits.

  Of names, sizes and both ends of its files rather than all of their bytes:
  the largest have tens of gigabytes. Optimizer state that has files of its own
  does not count.

  Args:
    path: of the checkpoint.
    beside: other files that it is read by, where they are.
  """
  if path.is_dir():
    files = sorted(hub.model_files(path))
  else:  # Or all files of a model, whichever of them is given.
    files = [
      part for part in gguf_file.parts(path) if part == path or part.is_file()
    ]
  others = [file for file in beside if file.is_file()]
  total = hashlib.sha256()
  for file in (*files, *others):
    size = hub.size_of(file)
    within = path.is_dir() and file not in others
    name = file.relative_to(path) if within else file.name
    total.update(f'{name} {size}\n'.encode())
    with file.open('rb') as stream:
      total.update(stream.read(_DIGEST_BYTES))
      stream.seek(max(0, size - _DIGEST_BYTES))
      total.update(stream.read(_DIGEST_BYTES))
  return total.hexdigest()[:16]
