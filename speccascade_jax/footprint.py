"""What decoding keeps in a device's memory, from shapes alone.

The very functions that a run calls are traced on shapes (`jax.eval_shape`), so
that nothing is known here of layers, heads or rings, and nothing is loaded.
Counted is what lives from one call to the next: parameters, caches, and the
logits of a block. What a call needs while it runs (attention over a long
prompt, above all) is the compiler's and comes on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
import functools
import math
import types
from typing import Any

import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax import loading
from speccascade_jax import pair as pairs
from speccascade_jax.models import families
from speccascade_jax.models import int8


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of the memory.

  Attributes:
    name: such as 'verifier, parameters'.
    num_bytes: of it.
    detail: what it consists of, for people.
    estimated: the shapes say how much, but not whether all of it is kept.
  """

  name: str
  num_bytes: int
  detail: str = ''
  estimated: bool = False


@dataclasses.dataclass(frozen=True)
class Extent:
  """How far texts go.

  Attributes:
    batch: B, rows that are decoded together.
    input_length: S, of the padded inputs.
    max_length: T, most output tokens.
  """

  batch: int
  input_length: int
  max_length: int


@dataclasses.dataclass(frozen=True)
class Room:
  """What a loop asks a model for.

  Attributes:
    tokens: that its cache has room for behind the input.
    widest: see `protocol.StepModel`.
    scored: positions whose logits are there at a time.
  """

  tokens: int
  widest: int = 1
  scored: int = 1


def rooms(
  model: str, method: str, gamma: int | None, max_length: int
) -> dict[str, Room]:
  """What each model of a run is asked for, by role.

  Args:
    model: 'pair', 'drafter' or 'verifier', as in `Pair.generate`.
    method: likewise.
    gamma: G; None where no blocks are drafted.
    max_length: T.
  """
  alone = Room(max_length)
  if model != pairs.PAIR:
    return {model: alone}
  verifier = alone
  if gamma is not None:
    # The last block may reach G tokens past the limit before it is cut.
    alone = verifier = Room(max_length + gamma, gamma + 1, gamma + 1)
  elif method == 'token_cascade':
    # A call that catches up may be as wide as the text is long.
    verifier = Room(max_length, max_length, max_length)
  return {pairs.DRAFTER: alone, pairs.VERIFIER: verifier}


def abstract_pair(
  configs: Mapping[str, families.Config],
  dtype: str,
  weights: Mapping[str, str | None] = types.MappingProxyType({}),
) -> dict[str, pairs.Model]:
  """The models of a pair with shapes for parameters, as `load_pair` has them.

  Args:
    configs: by role; a drafter may be lacking.
    dtype: of parameters and activations.
    weights: 'int8' by role, of models that are kept quantised.
  """
  size = min(config.vocab_size for config in configs.values())
  return {
    role: _abstract_model(
      dataclasses.replace(config, dtype=dtype), size, weights.get(role)
    )
    for role, config in configs.items()
  }


def of_parameters(models: Mapping[str, pairs.Model]) -> list[Part]:
  """The parameters of each model."""
  return [
    Part(f'{role}, parameters', size_of(model.params), by_dtype(model.params))
    for role, model in models.items()
  ]


def of_decoding(
  models: Mapping[str, pairs.Model], room: Mapping[str, Room], extent: Extent
) -> list[Part]:
  """Caches, and the logits of a block, of the models that a run uses."""
  found = []
  for role, wanted in room.items():
    cache, logits = _started(models[role].config, wanted, extent)
    found.append(Part(f'{role}, cache', size_of(cache), by_shape(cache)))
    shape = 'x'.join(map(str, logits.shape))
    detail = f'{logits.dtype}[{shape}]'
    found.append(Part(f'{role}, logits', size_of(logits), detail))
  return found


def total(parts: Iterable[Part]) -> int:
  """Bytes of all parts."""
  return sum(part.num_bytes for part in parts)


def size_of(tree: Any) -> int:
  """Bytes of a pytree of arrays or of their shapes."""
  return sum(
    math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize
    for leaf in jax.tree.leaves(tree)
  )


def by_dtype(tree: Any) -> str:
  """'76,961,152 bfloat16', largest part first."""
  counts: dict[str, int] = {}
  for leaf in jax.tree.leaves(tree):
    name = jnp.dtype(leaf.dtype).name
    counts[name] = counts.get(name, 0) + math.prod(leaf.shape)
  ordered = sorted(counts.items(), key=lambda item: -item[1])
  return ', '.join(f'{count:,} {name}' for name, count in ordered)


def by_shape(tree: Any) -> str:
  """'26 x float32[1x4x4097x256], ...': equal arrays together."""
  counts: dict[str, int] = {}
  for leaf in jax.tree.leaves(tree):
    shape = 'x'.join(map(str, leaf.shape))
    name = f'{jnp.dtype(leaf.dtype).name}[{shape}]'
    counts[name] = counts.get(name, 0) + 1
  return ', '.join(f'{count} x {name}' for name, count in counts.items())


def abstract_params(config: families.Config, dtype: str) -> base.Params:
  """Parameters of a model as shapes of one type."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype)),
    jax.eval_shape(functools.partial(families.init, config), _KEY),
  )


@functools.lru_cache(maxsize=64)
def _abstract_model(
  config: families.Config, size: int, weights: str | None = None
) -> pairs.Model:
  params = abstract_params(config, config.dtype)
  if weights is not None:
    params = jax.eval_shape(int8.quantised, params)
  if config.vocab_size != size:
    cut = functools.partial(loading.cut_vocabulary, size=size)
    params = jax.eval_shape(lambda p: cut(config, p)[1], params)
    config = dataclasses.replace(config, vocab_size=size)
  return pairs.Model(families.step_model(config), params, config)


# Tracing a model of 46 layers takes seconds; the runs of a sweep share shapes.
@functools.lru_cache(maxsize=256)
def _started(
  config: families.Config, room: Room, extent: Extent
) -> tuple[base.Cache, jax.ShapeDtypeStruct]:
  """A model's cache and its logits `[B, K, V]`, as shapes."""
  model = _abstract_model(config, config.vocab_size)
  tokens = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
  begun = jax.eval_shape(
    lambda params, inputs: model.step.start(
      params, inputs, room.tokens, room.widest
    ),
    model.params,
    tokens((extent.batch, extent.input_length)),
  )
  logits, _ = jax.eval_shape(
    model.step.extend,
    model.params,
    begun.cache,
    tokens((extent.batch, room.scored)),
    begun.lengths,
  )
  return begun.cache, logits


_KEY = jax.eval_shape(lambda: jax.random.key(0))
