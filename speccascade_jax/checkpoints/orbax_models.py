"""T5 as current T5X writes it, and Gemma as it was published: Orbax folders.

Of Gemma three styles of names are read, see `_checkpoint.py` of
google-deepmind/gemma: nested dictionaries, flat keys, and flat keys of layers
that lie in one array, as many arrays as there are kinds of layers by turns::

    {'layer_0': {'attn': {'q_einsum': {'w': ...}}}}
    {'transformer/layer_0/attn/q_einsum': {'w': ...}}
    {'transformer/stacked_layers/attention_type_0/attn/q_einsum': {'w': ...}}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import functools
import json
import re
from typing import Any

from etils import epath
import orbax.checkpoint as ocp

from speccascade_jax import base
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import hub
from speccascade_jax.checkpoints import t5x
from speccascade_jax.checkpoints import tensorstore_source
from speccascade_jax.checkpoints import translate
from speccascade_jax.models import config_checks
from speccascade_jax.models import families
from speccascade_jax.models.gemma import config as gemma_config

_METADATA = '_METADATA'
# Beside the step in the folders of Gemma 1 and 2 that Kaggle publishes.
_GEMMA_VOCABULARY = 'tokenizer.model'
# What a step's folder may call the part with the parameters.
_ITEMS = ('state', 'default', 'items', 'params')
# Of a Gemma 3 that also sees images, nested and flat.
_IMAGES = re.compile(r'vision_encoder/|SigLiPFromPatches_0/|embedder/mm_')
# What flat keys may begin with, the last behind reinforcement learning.
_ROOTS = ('transformer', 'params', 'rlx_networks', 'policy_network')
_STACKED = re.compile(r'stacked_layers/attention_type_(\d{1,4})/(.*)')


def item(folder: hub.AnyPath) -> hub.AnyPath | None:
  """The folder with the arrays: this one, or a part of a step."""
  for candidate in (folder, *(folder / name for name in _ITEMS)):
    if (candidate / _METADATA).is_file():
      return candidate
  return None


def load(
  directory: hub.AnyPath,
  dtype: str | None = None,
  place: translate.Place = translate.put,
) -> tuple[families.Config, base.Params]:
  """Reads a step of T5X's or Orbax's manager, or what it holds.

  Raises:
    CheckpointError: if it is neither a T5 nor a Gemma, or broken.
  """
  source = _source(directory)
  if _is_gemma(source):
    layers = _Layers(source)
    config = gemma_config_of(layers)
    table = gemma_table(config, layers.shapes)
    images = [name for name in source.shapes if _IMAGES.match(name)]
    translate.check(layers, table, config, images)
    table = layers.joined(table)
    return config, translate.load(source, table, config, dtype, images, place)
  return t5x.read(source, dtype, place, _run(directory))


def read_config(directory: hub.AnyPath) -> families.Config:
  """The model's shape, without its weights; errors as in `load`."""
  source = _source(directory)
  if _is_gemma(source):
    return gemma_config_of(_Layers(source))
  return t5x.config_of(source, _run(directory))


def find_vocabulary(directory: hub.AnyPath) -> hub.AnyPath | None:
  """The vocabulary's file of a step, if there is one.

  In its folder, as anywhere; that of a Gemma also beside it. What lies beside
  any other step may be a stranger's.

  Raises:
    CheckpointError: if its metadata are broken.
  """
  found = vocabularies.find(directory)
  beside = _run(directory) / _GEMMA_VOCABULARY
  if found is not None or not beside.is_file():
    return found
  return beside if _is_gemma(_source(directory)) else None


def beside(directory: hub.AnyPath) -> list[hub.AnyPath]:
  """What else a step may be read by, whether it is there or not."""
  run = _run(directory)
  return [run / t5x.GIN_FILE, run / _GEMMA_VOCABULARY]


def _run(directory: hub.AnyPath) -> hub.AnyPath:
  """The folder that a step lies in, given the step or a part of it."""
  step = directory.parent if directory.name in _ITEMS else directory
  return step.parent


def _source(directory: hub.AnyPath) -> tensorstore_source.Arrays:
  folder = item(epath.Path(directory))
  if folder is None:
    raise errors.CheckpointError(f'{directory} is no Orbax checkpoint.')
  return open_folder(folder)


class _Layers:
  """What a Gemma's tensors would be if no layers lay in one array.

  Attributes:
    path: for messages.
    shapes: of all tensors, by name: 'layer_7/attn/q_einsum'.
    dtypes: likewise.
  """

  def __init__(self, source: translate.Index):
    """Names and counts the layers.

    Raises:
      CheckpointError: if there are too many, or one is there twice.
    """
    self.path = source.path
    self.shapes, self.dtypes = dict(source.shapes), dict(source.dtypes)
    # Of a layer's tensor: the array that it lies in, and where.
    self._places: dict[str, tuple[str, int]] = {}
    stacked = {
      name: match
      for name in source.shapes
      if (match := _STACKED.fullmatch(name)) is not None
    }
    turns = 1 + max((int(match[1]) for match in stacked.values()), default=-1)
    for name, match in stacked.items():
      shape, dtype = self.shapes.pop(name), self.dtypes.pop(name)
      count = (shape or (0,))[0]
      if count * turns > config_checks.MOST_LAYERS:
        # Refused here, lest the names of them all take memory.
        raise errors.CheckpointError(
          f'{self.path}: {name} is {shape}, of more than '
          f'{config_checks.MOST_LAYERS} layers.'
        )
      for n in range(count):
        apart = f'layer_{n * turns + int(match[1])}/{match[2]}'
        if apart in self.shapes:
          raise errors.CheckpointError(
            f'{self.path} has {apart} twice: in {name} and beside it.'
          )
        self._places[apart] = (name, n)
        self.shapes[apart], self.dtypes[apart] = shape[1:], dtype

  def joined(self, table: translate.Table) -> translate.Table:
    """The same for the arrays that are there, each read once for all layers."""
    found: dict[str, tuple[translate.Part, ...]] = {}
    for name, parts in table.items():
      if name in self._places:
        name, n = self._places[name]
        parts = tuple(
          translate.Part(part.target, _of_layer(part.convert, n))
          for part in parts
        )
      found[name] = (*found.get(name, ()), *parts)
    return found


def _of_layer(convert: Callable[[Any], Any], n: int) -> Callable[[Any], Any]:
  return lambda x: convert(x[n])


def _is_gemma(source: translate.Source) -> bool:
  return 'embedder/input_embedding' in source.shapes


def open_folder(folder: epath.Path) -> tensorstore_source.Arrays:
  """The model's arrays under the names that both styles have in common."""
  try:
    found = ocp.PyTreeCheckpointer().metadata(folder)
    tree = getattr(found.item_metadata, 'tree', found.item_metadata)
    if not isinstance(tree, Mapping):
      raise ValueError('it lists no arrays, or some of them are gone.')
    leaves = _leaves(tree)
    stored = dict(json.loads((folder / _METADATA).read_text()))
  except Exception as error:  # Orbax's own, of many kinds.
    raise errors.CheckpointError(
      f'{folder} has no metadata that Orbax can read: {error}'
    ) from error
  driver = 'zarr3' if stored.get('use_zarr3') else 'zarr'
  ocdbt = stored.get('use_ocdbt', (folder / 'manifest.ocdbt').exists())
  specs: dict[str, dict[str, Any]] = {}
  for keys in leaves:
    name = _common_name(keys)
    if name is None:
      continue
    store = tensorstore_source.kvstore(folder)
    path = '.'.join(keys)
    if '..' in path.split('/') or path.startswith('/'):
      raise errors.CheckpointError(f'{folder} names an array at {path!r}.')
    if ocdbt:
      store = {'driver': 'ocdbt', 'base': store, 'path': f'{path}/'}
    else:
      store['path'] += f'{path}/'
    specs[name] = {'driver': driver, 'kvstore': store}
  return tensorstore_source.Arrays(
    folder,
    specs,
    zeros_stored=bool(stored.get('store_array_data_equal_to_fill_value')),
  )


def _leaves(tree: Any, keys: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
  if isinstance(tree, Mapping):
    return [
      leaf
      for key, value in tree.items()
      for leaf in _leaves(value, (*keys, str(key)))
    ]
  return [keys]


def _common_name(keys: tuple[str, ...]) -> str | None:
  """'layer_0/attn/q_einsum', whatever the style; None for optimizer state."""
  parts = '/'.join(keys).split('/')
  if parts[0] == 'target':  # T5X's train state.
    return '/'.join(parts[1:])
  if parts[0] in ('state', 'step', 'flax_mutables', 'opt_state'):
    return None
  while parts[0] in _ROOTS and len(parts) > 1:
    parts = parts[1:]
  if parts[-1] == 'w':
    parts = parts[:-1]
  return '/'.join(parts)


def gemma_config_of(source: translate.Index) -> gemma_config.GemmaConfig:
  """The shape of the Gemma that has these tensors.

  Shapes tell its generation and its sizes; windows, soft-caps and scales are
  those that models of that generation and size were published with.
  """
  shapes = source.shapes
  shape = functools.partial(translate.shape_of, source, 'a Gemma')
  vocab_size, emb_dim = shape('embedder/input_embedding', rank=2)
  first = 'layer_0/attn/'
  if f'{first}qkv_einsum' in shapes:
    _, heads, _, head_dim = shape(f'{first}qkv_einsum', rank=4)
    kv_heads = heads
  else:
    heads, _, head_dim = shape(f'{first}q_einsum', rank=3)
    _, kv_heads, *_ = shape(f'{first}kv_einsum', rank=4)
  depth = len({name for name in shapes if _ATTENTION_OUT.fullmatch(name)})
  settings: dict[str, Any] = {}
  # The 27B models divide by the width of a head of E / H, not by their D.
  scalar = emb_dim // heads if head_dim == 128 else head_dim
  if 'layer_0/attn/_query_norm/scale' in shapes:
    settings = dict(
      attention_pattern=(gemma_config.LOCAL,) * 5 + (gemma_config.GLOBAL,),
      sliding_window=512 if emb_dim < 2560 else 1024,
      query_pre_attn_scalar=float(scalar),
      use_post_norms=True,
      use_qk_norm=True,
      rope_base=1_000_000.0,
      rope_scale_factor=1.0 if emb_dim < 2560 else 8.0,
    )
  elif 'layer_0/post_attention_norm/scale' in shapes:
    settings = dict(
      attention_pattern=(gemma_config.LOCAL, gemma_config.GLOBAL),
      sliding_window=4096,
      query_pre_attn_scalar=float(scalar),
      attn_logit_softcap=50.0,
      final_logit_softcap=30.0,
      use_post_norms=True,
    )
  try:
    return gemma_config.GemmaConfig(
      vocab_size=vocab_size,
      emb_dim=emb_dim,
      num_layers=depth,
      num_heads=heads,
      num_kv_heads=kv_heads,
      head_dim=head_dim,
      mlp_dim=shape('layer_0/mlp/linear', rank=2)[0],
      **settings,
    )
  except ValueError as error:
    raise errors.CheckpointError(f'{source.path}: {error}') from error


_ATTENTION_OUT = re.compile(r'layer_\d+/attn/attn_vec_einsum')


def gemma_table(
  config: gemma_config.GemmaConfig, shapes: Mapping[str, tuple[int, ...]]
) -> translate.Table:
  """The published names of a Gemma's tensors, and what they become."""
  heads, kv_heads = config.num_heads, config.num_kv_heads
  emb_dim, head_dim = config.emb_dim, config.head_dim

  def heads_in(x):  # [H, E, D] to [E, H D]
    return x.swapaxes(0, 1).reshape(emb_dim, -1)

  def heads_out(x):  # [H, D, E] to [H D, E]
    return x.reshape(-1, emb_dim)

  norms = {
    'pre_attention_norm': 'pre_attention_norm',
    'pre_ffw_norm': 'pre_mlp_norm',
  }
  if config.use_post_norms:
    norms |= {
      'post_attention_norm': 'post_attention_norm',
      'post_ffw_norm': 'post_mlp_norm',
    }
  if config.use_qk_norm:
    norms |= {
      'attn/_query_norm': 'attention/query_norm',
      'attn/_key_norm': 'attention/key_norm',
    }
  table = {
    'embedder/input_embedding': translate.as_is('token_embedder/embedding'),
    'final_norm/scale': translate.as_is('decoder/final_norm/scale'),
  }
  for i in range(config.num_layers):
    there, here = f'layer_{i}', f'decoder/layers_{i}'
    attention = f'{here}/attention'
    names = ('query', 'key', 'value')
    one = (heads, emb_dim, head_dim)
    if f'{there}/attn/qkv_einsum' in shapes:
      table[f'{there}/attn/qkv_einsum'] = _stacked(
        [f'{attention}/{name}/kernel' for name in names], heads_in, one
      )
    else:
      table[f'{there}/attn/q_einsum'] = translate.converted(
        f'{attention}/query/kernel', heads_in, 1, one
      )
      table[f'{there}/attn/kv_einsum'] = _stacked(
        [f'{attention}/{name}/kernel' for name in names[1:]],
        heads_in,
        (kv_heads, emb_dim, head_dim),
      )
    table[f'{there}/attn/attn_vec_einsum'] = translate.converted(
      f'{attention}/out/kernel', heads_out, 0, (heads, head_dim, emb_dim)
    )
    gating = f'{there}/mlp/gating_einsum'
    # Gemma 1 keeps it [2, E, F], later ones [2, F, E].
    size = (emb_dim, config.mlp_dim)
    turned = shapes.get(gating, ())[1:] != size
    table[gating] = _stacked(
      [f'{here}/mlp/wi_{n}/kernel' for n in (0, 1)],
      (lambda x: x.T) if turned else (lambda x: x),
      size[::-1] if turned else size,
    )
    table[f'{there}/mlp/linear'] = translate.as_is(f'{here}/mlp/wo/kernel')
    for theirs, ours in norms.items():
      table[f'{there}/{theirs}/scale'] = translate.as_is(f'{here}/{ours}/scale')
  return table


def _stacked(
  targets: Sequence[str],
  convert: Callable[[Any], Any],
  shape: tuple[int, ...],
) -> tuple[translate.Part, ...]:
  """As many matrices of this shape in one array, each to be converted."""

  def of(n: int) -> Callable[[Any], Any]:
    return lambda x: convert(x[n])

  return tuple(
    translate.Part(target, of(n), None, (len(targets), *shape))
    for n, target in enumerate(targets)
  )
