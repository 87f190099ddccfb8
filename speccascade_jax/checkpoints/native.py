"""The package's own checkpoint: a folder with a config and the weights.

  DIRECTORY/
    config.json         {"family": "t5", "vocab_size": 4096, ...}
    model.safetensors   'decoder/layers_0/self_attention/query/kernel': ...

Loading checks every tensor's name and shape against the model that the config
describes, so a folder that does not fit itself is refused by name instead of
failing later inside a traced function.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile

from flax import traverse_util
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from speccascade_jax import base
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import safetensors_source
from speccascade_jax.checkpoints import translate
from speccascade_jax.models import families
from speccascade_jax.models import products

CONFIG_FILE = 'config.json'
WEIGHTS_FILE = 'model.safetensors'

Config = families.Config


CheckpointError = errors.CheckpointError


def save(
  directory: str | os.PathLike[str],
  config: Config,
  params: base.Params,
  dtype: str | None = None,
) -> None:
  """Writes a checkpoint, or replaces the one in `directory`.

  Both files are written beside their final place and renamed, the weights
  first: whoever reads the folder meets whole files only. Other files in it (a
  vocabulary, a model card) are left alone.

  Args:
    directory: made if it is not there.
    config: the model's shape.
    params: the plain pytree of arrays under 'params', or a loaded model's.
    dtype: how to store floating-point tensors, such as 'bfloat16'; as they
      are without.

  Raises:
    CheckpointError: if `params` are not those of a model of this config.
  """
  folder = pathlib.Path(directory)
  tensors = {
    name: np.asarray(value)
    for name, value in products.named(
      traverse_util.flatten_dict(params, sep='/')
    ).items()
  }
  translate.check_params(folder, tensors, config)
  if dtype is not None:
    tensors = _cast(tensors, dtype)
  content = {'family': families.name_of(config), **dataclasses.asdict(config)}
  folder.mkdir(parents=True, exist_ok=True)
  # Sorted, so that the same parameters give the same bytes.
  tensors = {
    name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)
  }
  with tempfile.TemporaryDirectory(dir=folder, prefix='.saving-') as scratch:
    temporary = pathlib.Path(scratch)
    safetensors.numpy.save_file(tensors, temporary / WEIGHTS_FILE)
    text = json.dumps(content, indent=2) + '\n'
    (temporary / CONFIG_FILE).write_text(text)
    # safetensors lets nobody else read; the config has the usual mode.
    mode = (temporary / CONFIG_FILE).stat().st_mode
    (temporary / WEIGHTS_FILE).chmod(mode)
    os.replace(temporary / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    os.replace(temporary / CONFIG_FILE, folder / CONFIG_FILE)


def load(
  directory: str | os.PathLike[str],
  dtype: str | None = None,
  place: translate.Place = translate.put,
) -> tuple[Config, base.Params]:
  """Reads a checkpoint.

  Args:
    directory: what `save` wrote.
    dtype: of the parameters in memory, such as 'float32'; as stored without.
    place: puts a parameter where it belongs; see `translate.load`.

  Returns:
    The model's config and its parameters as jax arrays.

  Raises:
    CheckpointError: if a file is missing, cut short or not what it should be,
      if the config has an unknown family or field, or if the tensors are not
      those of the model that the config describes.
  """
  folder = pathlib.Path(directory)
  if not folder.is_dir():
    raise CheckpointError(f'{folder} is not a directory with a checkpoint.')
  config = read_config(folder)
  path = folder / WEIGHTS_FILE
  if not path.is_file():
    raise CheckpointError(
      f'{path} is missing: a checkpoint is {CONFIG_FILE} and {WEIGHTS_FILE}.'
    )
  source = safetensors_source.Files(path, [path])
  table = {name: translate.as_is(name) for name in translate.shapes(config)}
  return config, translate.load(source, table, config, dtype, (), place)


def digest(directory: str | os.PathLike[str]) -> str:
  """What a checkpoint holds, as 16 hexadecimal digits.

  Of the bytes of config and weights, read piece by piece; the folder's name
  and other files in it do not count.
  """
  return digest_files(
    pathlib.Path(directory) / name for name in (CONFIG_FILE, WEIGHTS_FILE)
  )


def digest_files(paths: Iterable[str | os.PathLike[str]]) -> str:
  """What files hold, in this order, as 16 hexadecimal digits of SHA-256."""
  total = hashlib.sha256()
  for path in paths:
    with open(path, 'rb') as file:
      # Of digests, so that no byte can move from one file to the next.
      total.update(hashlib.file_digest(file, 'sha256').digest())
  return total.hexdigest()[:16]


def read_config(directory: str | os.PathLike[str]) -> Config:
  """The config of a checkpoint, without its weights; errors as in `load`."""
  path = pathlib.Path(directory) / CONFIG_FILE
  if not path.is_file():
    raise CheckpointError(
      f'{path} is missing: a checkpoint is {CONFIG_FILE} and {WEIGHTS_FILE}.'
    )
  content = safetensors_source.read_json(path)
  family = content.pop('family', None)
  if not isinstance(family, str) or family not in families.FAMILIES:
    raise CheckpointError(
      f'{path}: unknown family {family!r:.80}; known are '
      f'{", ".join(map(repr, families.FAMILIES))}.'
    )
  cls = families.FAMILIES[family].config
  fields = {field.name: field for field in dataclasses.fields(cls)}
  unknown = sorted(set(content) - set(fields))
  if unknown:
    raise CheckpointError(
      f'{path}: {cls.__name__} has no field {", ".join(map(repr, unknown))}.'
    )
  missing = [
    name
    for name, field in fields.items()
    if field.default is dataclasses.MISSING and name not in content
  ]
  if missing:
    raise CheckpointError(f'{path}: {", ".join(missing)} must be given.')
  try:
    return cls(**content)
  except (TypeError, ValueError) as error:
    raise CheckpointError(f'{path}: {error}') from error


def _cast(tensors: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
  """Floating-point tensors as `dtype`, the others as they are."""
  return {
    name: value.astype(jnp.dtype(dtype))
    if jnp.issubdtype(value.dtype, jnp.floating)
    else value
    for name, value in tensors.items()
  }
