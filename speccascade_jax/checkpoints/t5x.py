"""T5 as T5X writes it: one zarr array a parameter and an index, or Orbax.

    checkpoint_1000000/
      checkpoint                       msgpack: {'version', 'optimizer': ...}
      target.decoder.decoder_norm.scale/.zarray, 0, ...

The parameters' names are ours. What a checkpoint does not hold is the config:
the shapes tell it, but for the functions of the feed-forward blocks. Those are
in the config.gin that T5X writes into the folder above its steps; where there
is none they are taken to be relu, or, gated, gelu. UL2's are others::

    network.T5Config.mlp_activations = ('silu', 'linear')

Layers that were scanned over lie in one array with an axis of layers behind the
first, and their heads have an axis of their own (T5X's `scalable_t5`), as do
their position biases, which are one for all layers only where they are equal::

    .../self_attention/query/kernel   [E, H D]   scanned [E, layers, H, D]
    .../self_attention/out/kernel     [H D, E]           [H, layers, D, E]
    .../mlp/wo/kernel                 [F, E]             [F, layers, E]
    .../relpos_bias/rel_embedding     [H, buckets]       [H, layers, buckets]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import functools
import math
import pathlib
import re
from typing import Any

from etils import epath
from flax import serialization
import numpy as np

from speccascade_jax import base
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import hub
from speccascade_jax.checkpoints import tensorstore_source
from speccascade_jax.checkpoints import translate
from speccascade_jax.models import families
from speccascade_jax.models.t5 import config as t5_config

INDEX_FILE = 'checkpoint'
# Stack -> the first axis of layers, and its attention.
_STACKS = {'encoder': 'attention', 'decoder': 'self_attention'}
_LAYER = re.compile(r'(encoder|decoder)/layers_(\d{1,9})/')
_BIAS = 'relpos_bias/rel_embedding'
GIN_FILE = 'config.gin'  # What T5X writes beside its steps.


def load(
  directory: hub.AnyPath,
  dtype: str | None = None,
  place: translate.Place = translate.put,
) -> tuple[families.Config, base.Params]:
  """Reads `checkpoint_N`, optimizer state left aside.

  Raises:
    CheckpointError: if it is no checkpoint of a T5, or broken.
  """
  folder = epath.Path(directory)
  return read(open_folder(folder), dtype, place, folder.parent)


def read_config(directory: hub.AnyPath) -> families.Config:
  """The model's shape, without its weights; errors as in `load`."""
  folder = epath.Path(directory)
  return config_of(open_folder(folder), folder.parent)


def beside(directory: hub.AnyPath) -> list[hub.AnyPath]:
  """What else a step is read by, whether it is there or not."""
  return [directory.parent / GIN_FILE]


def read(
  source: translate.Source,
  dtype: str | None,
  place: translate.Place,
  run: hub.AnyPath | None = None,
) -> tuple[families.Config, base.Params]:
  """The same from tensors that have T5X's names, wherever they lie.

  Args:
    source: where the tensors are.
    dtype: see `load`.
    place: see `load`.
    run: the folder of T5X's run, which may have a config.gin.
  """
  config = config_of(source, run)
  table = table_of(config, source.shapes)
  return config, translate.load(source, table, config, dtype, (), place)


def open_folder(folder: epath.Path) -> tensorstore_source.Arrays:
  """The arrays under 'target'; errors as in `load`."""
  index = folder / INDEX_FILE
  try:
    content = serialization.msgpack_restore(index.read_bytes())
  except Exception as error:  # msgpack's own, of many kinds.
    raise errors.CheckpointError(
      f'{index} is no index of T5X (msgpack): {error}'
    ) from error
  state = content.get('optimizer') if isinstance(content, dict) else None
  if not isinstance(state, dict) or not isinstance(state.get('target'), dict):
    raise errors.CheckpointError(f'{index} has no optimizer/target.')
  specs, inline = {}, {}
  for name, leaf in _leaves(state['target']).items():
    if isinstance(leaf, np.ndarray):
      inline[name] = leaf
      continue
    place = _stored_path(leaf)
    if place is None:
      raise errors.CheckpointError(
        f'{index}: {name} is neither an array nor the place of one: '
        f'{str(leaf)[:80]!r}.'
      )
    store = tensorstore_source.kvstore(folder)
    store['path'] += f'{place}/'
    specs[name] = {'driver': 'zarr', 'kvstore': store}
  return tensorstore_source.Arrays(folder, specs, inline)


def _leaves(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """By name, 'encoder/...'; what describes an array is a leaf."""
  found: dict[str, Any] = {}
  for key, value in tree.items():
    if isinstance(value, dict) and 'driver' not in value:
      found |= _leaves(value, f'{prefix}{key}/')
    else:
      found[f'{prefix}{key}'] = value
  return found


def _stored_path(leaf: Any) -> str | None:
  """The folder of an array below that of the checkpoint."""
  if not isinstance(leaf, dict):
    return None
  store = leaf.get('kvstore')
  path = store.get('path') if isinstance(store, dict) else None
  path = path or leaf.get('path')  # tensorstore before 0.1.14.
  if not isinstance(path, str):
    return None
  parts = pathlib.PurePosixPath(path)
  return None if parts.is_absolute() or '..' in parts.parts else path.strip('/')


def config_of(
  source: translate.Source, run: hub.AnyPath | None = None
) -> t5_config.T5Config:
  """The shape of the model that has these tensors; see `read`."""
  shapes = source.shapes
  shape = functools.partial(translate.shape_of, source, 'a T5 of T5X')
  vocab_size, emb_dim = shape('token_embedder/embedding', rank=2)
  # An axis of layers is the second of what was scanned over.
  scanned = 'encoder/encoder/attention/query/kernel' in shapes
  block = 'encoder/encoder/' if scanned else 'encoder/layers_0/'
  rank = 3 if scanned else 2
  depths = {}
  for stack, attention in _STACKS.items():
    query = f'{stack}/{stack}/{attention}/query/kernel'
    if query in shapes:
      depths[stack] = shape(query, rank=4)[1]
    else:
      found = {
        int(m[2]) for m in map(_LAYER.match, shapes) if m and m[1] == stack
      }
      depths[stack] = 1 + max(found, default=-1)
  if f'encoder/{_BIAS}' in shapes:
    heads, buckets = shape(f'encoder/{_BIAS}', rank=2)
  elif f'encoder/layers_0/{_BIAS}' in shapes:
    heads, buckets = shape(f'encoder/layers_0/{_BIAS}', rank=2)
  else:
    names = (f'encoder/encoder/{_BIAS}', f'encoder/{_BIAS}')
    heads, _, buckets = shape(*names, rank=3)
  gated = f'{block}mlp/wi_0/kernel' in shapes
  activations: tuple[str, ...] = ('gelu', 'linear') if gated else ('relu',)
  if run is not None:
    activations = _told_activations(run / GIN_FILE, activations)
  wi = shape(f'{block}mlp/wi_0/kernel', f'{block}mlp/wi/kernel', rank=rank)
  # Heads lie apart where layers were scanned over.
  query = shape(f'{block}attention/query/kernel', rank=4 if scanned else 2)
  joined = math.prod(query[2:]) if scanned else query[-1]
  try:
    config = t5_config.T5Config(
      vocab_size=vocab_size,
      emb_dim=emb_dim,
      num_heads=heads,
      head_dim=joined // heads,
      mlp_dim=wi[-1],
      num_encoder_layers=depths['encoder'],
      num_decoder_layers=depths['decoder'],
      mlp_activations=activations,
      logits_via_embedding='decoder/logits_dense/kernel' not in shapes,
      relative_attention_num_buckets=buckets,
      relative_attention_per_layer=f'encoder/{_BIAS}' not in shapes,
    )
  except ValueError as error:
    raise errors.CheckpointError(f'{source.path}: {error}') from error
  if scanned and config.relative_attention_per_layer:
    # Nothing is read before all shapes are known to be right.
    translate.check(source, table_of(config, shapes), config)
    if _layers_share_biases(source):
      return dataclasses.replace(config, relative_attention_per_layer=False)
  return config


def _told_activations(
  file: hub.AnyPath, usual: tuple[str, ...]
) -> tuple[str, ...]:
  """What a config.gin says; `usual`, as many, if it says nothing."""
  if not file.is_file():
    return usual
  # Here: gin is needed for nothing else when models are loaded.
  from speccascade_jax.checkpoints import t5x_gin

  told = t5x_gin.activations(file)
  if told is None:
    return usual
  if len(told) != len(usual):
    raise errors.CheckpointError(
      f'{file}: the functions of the feed-forward blocks are {told}, but those '
      f'of the checkpoint beside it have {len(usual)}.'
    )
  return told


def table_of(
  config: t5_config.T5Config, shapes: Mapping[str, Any]
) -> translate.Table:
  """T5X's names, scanned or not, of what are our parameters."""
  table: dict[str, tuple[translate.Part, ...]] = {}
  for target, shape in translate.shapes(config).items():
    match = _LAYER.match(target)
    stack = target.split('/')[0]
    scanned = target
    if match is not None:
      scanned = f'{stack}/{stack}/{target[match.end() :]}'
    elif target == f'{stack}/{_BIAS}':
      scanned = f'{stack}/{stack}/{_BIAS}'
    if scanned == target or scanned not in shapes:
      table[target] = translate.as_is(target)
      continue
    layer = 0 if match is None else int(match[2])
    convert = _heads_out if target.endswith('/out/kernel') else _column
    part = translate.converted(
      target, convert(layer), 0, _scanned_shape(config, target, shape)
    )
    table[scanned] = (*table.get(scanned, ()), *part)
  return table


def _scanned_shape(
  config: t5_config.T5Config, target: str, shape: tuple[int, ...]
) -> tuple[int, ...]:
  """Of the array of all layers that holds a parameter of this shape."""
  encoder = target.startswith('encoder/')
  layers = config.num_encoder_layers if encoder else config.num_decoder_layers
  first, *rest = shape
  if 'attention/' in target and target.endswith('/out/kernel'):
    return (config.num_heads, layers, config.head_dim, *rest)
  if 'attention/' in target:
    rest = [config.num_heads, config.head_dim]
  return (first, layers, *rest)


def _column(layer: int) -> Callable[[Any], Any]:
  """[E, layers, H, D] to [E, H D]; [E, layers, F] and [E, layers] to that of
  one layer."""

  def convert(x: Any) -> Any:
    x = x[:, layer]
    return x.reshape(x.shape[0], -1) if x.ndim > 2 else x

  return convert


def _heads_out(layer: int) -> Callable[[Any], Any]:
  """[H, layers, D, E] to [H D, E]."""
  return lambda x: x[:, layer].reshape(-1, x.shape[-1])


def _layers_share_biases(source: translate.Source) -> bool:
  """Whether those of scanned layers are one and the same.

  A scanned layer has a bias of its own; T5's layers share one, which in a
  checkpoint that was converted is repeated.
  """
  biases = [translate.read(source, f'{s}/{s}/{_BIAS}') for s in _STACKS]
  return all((bias == bias[:, :1]).all() for bias in biases)
