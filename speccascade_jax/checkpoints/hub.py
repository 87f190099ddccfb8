"""Where checkpoints lie: on this machine, in a bucket, or under a name."""

from __future__ import annotations

from collections.abc import Iterator
import importlib
import os
import pathlib
import re
from typing import Any

import huggingface_hub
from huggingface_hub import errors as hub_errors

from speccascade_jax import marks
from speccascade_jax.checkpoints import errors

AnyPath = marks.AnyPath

# For messages.
GGUF = (
  'A GGUF file is given by its own path; one that lies on the hub has to be '
  'downloaded first (hf download OWNER/NAME FILE.gguf --local-dir .).'
)

_SCHEME, _PACKAGE = 'hf://', 'package://'
# What folders of arrays begin with that are not the model's.
_OPTIMIZER = ('state.', 'opt_state.')
_NAME = re.compile(r'([\w.-]+/[\w.-]+)(?:@([\w./-]+))?')
# Config, weights and vocabulary; not the same weights in other forms.
_PATTERNS = (
  'config.json',
  'generation_config.json',
  'model*.safetensors',
  'model.safetensors.index.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'tokenizer.model',
  'spiece.model',
)


def local(path: str | os.PathLike[str]) -> AnyPath:
  """The path itself, or the folder of what it names on the hub.

  Args:
    path: on this machine; or `hf://owner/name[@revision]`, which is downloaded
      unless the hub's own cache has it (a token for gated models is taken from
      where `hf auth login` leaves it); or `package://module`, a Python package
      whose function `assemble()` gives the path of the weights in it.

  Raises:
    CheckpointError: if the name is malformed, the hub does not give it, or no
      such package is installed.
  """
  text = os.fspath(path)
  if text.startswith(_PACKAGE):
    return _in_package(text.removeprefix(_PACKAGE))
  if not is_on_hub(text):
    return marks.path_of(text)
  match = _NAME.fullmatch(text.removeprefix(_SCHEME))
  if match is None:
    raise errors.CheckpointError(
      f'{text!r} is not of the form hf://owner/name or hf://owner/name@revision.'
    )
  name, revision = match.groups()
  try:
    return pathlib.Path(
      huggingface_hub.snapshot_download(
        name, revision=revision, allow_patterns=list(_PATTERNS)
      )
    )
  except hub_errors.LocalEntryNotFoundError as error:
    raise errors.CheckpointError(
      f'{text} is not in the cache of this machine, and the hub cannot be '
      'reached (is HF_HUB_OFFLINE set? it is '
      f'{os.environ.get("HF_HUB_OFFLINE", "not")}): {error}'
    ) from error
  except hub_errors.GatedRepoError as error:
    raise errors.CheckpointError(
      f'{text} is gated: accept its terms at https://huggingface.co/{name}, '
      'then say `hf auth login`.'
    ) from error
  except (hub_errors.HfHubHTTPError, hub_errors.HFValidationError) as error:
    raise errors.CheckpointError(f'{text}: {error}') from error


def is_on_hub(path: str | os.PathLike[str]) -> bool:
  """Whether it is the name of a repository on the hub."""
  return os.fspath(path).startswith(_SCHEME)


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Whether it lies in a bucket, where only some libraries can read."""
  text = os.fspath(path)
  return '://' in text and not text.startswith((_SCHEME, _PACKAGE))


def size_of(file: AnyPath) -> int:
  """Bytes of a file, on this machine or in a bucket."""
  found: Any = file.stat()
  # What `os.stat` and what `etils` call it.
  return int(found.st_size if hasattr(found, 'st_size') else found.length)


def model_files(folder: AnyPath) -> Iterator[AnyPath]:
  """The files of a folder and of those in it, in no order.

  Without optimizer state where it lies apart, a folder for every array.
  """
  for path in folder.iterdir():
    if not path.is_dir():
      yield path
    elif not path.name.startswith(_OPTIMIZER):
      yield from model_files(path)


def check_files(folder: AnyPath) -> None:
  """Refuses a folder on this machine with what cannot be read to its end.

  Raises:
    CheckpointError: for a link to nothing, or a pipe, socket or device, which
      a reader would wait for.
  """
  if is_remote(os.fspath(folder)):
    return  # Buckets hold nothing but files.
  for path in model_files(folder):
    if path.is_file():
      continue
    kind = (
      f'a link to {os.readlink(path)}, where nothing is'
      if path.is_symlink() and not path.exists()
      else 'neither a file nor a folder (a pipe, a socket or a device)'
    )
    raise errors.CheckpointError(
      f'{path} in the checkpoint is {kind}: put the file there, or remove it.'
    )


def _in_package(name: str) -> pathlib.Path:
  try:
    return pathlib.Path(importlib.import_module(name).assemble())
  except ModuleNotFoundError as error:
    raise errors.CheckpointError(
      f'No module {error.name!r} is installed, which package://{name} needs. '
      "For the real Gemma: pip install '.[gemma]' in the checkout of this "
      'package, under the terms of https://ai.google.dev/gemma/terms.'
    ) from None
  except AttributeError:
    raise errors.CheckpointError(
      f'The module {name} has no assemble(), so that package://{name} names no '
      'weights.'
    ) from None
  except (OSError, ValueError) as error:
    raise errors.CheckpointError(f'package://{name}: {error}') from error
