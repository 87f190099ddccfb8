"""The architectures that there are, and what a model of each is made of."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

from flax import linen as nn
from flax.core import meta
import jax
import numpy as np

from speccascade_jax import base
from speccascade_jax.models import protocol
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.gemma import network as gemma_network
from speccascade_jax.models.gemma import step_model as gemma_step_model
from speccascade_jax.models.t5 import config as t5_config
from speccascade_jax.models.t5 import network as t5_network
from speccascade_jax.models.t5 import step_model as t5_step_model

Config = t5_config.T5Config | gemma_config.GemmaConfig


@dataclasses.dataclass(frozen=True)
class Family:
  """One architecture.

  Attributes:
    config: the class of its shapes.
    network: the Flax module of a shape; called with inputs `[B, S]` and
      targets `[B, T]` that are shifted right, it gives logits `[B, T, V]`.
    step_model: `(config, end_ids) -> StepModel`.
    decoder_only: whether inputs are the beginning of the text.
  """

  config: type
  network: Callable[[Any], nn.Module]
  step_model: Callable[[Any, tuple[int, ...]], protocol.StepModel]
  decoder_only: bool


# By the name that stands in a native checkpoint's config.json.
FAMILIES: dict[str, Family] = {
  't5': Family(
    t5_config.T5Config,
    t5_network.Transformer,
    t5_step_model.step_model,
    decoder_only=False,
  ),
  'gemma': Family(
    gemma_config.GemmaConfig,
    gemma_network.Transformer,
    gemma_step_model.step_model,
    decoder_only=True,
  ),
}


def name_of(config: Config) -> str:
  """The family's name of a model of this shape.

  Raises:
    TypeError: if it is no config.
  """
  for name, family in FAMILIES.items():
    if isinstance(config, family.config):
      return name
  known = ' or '.join(f.config.__name__ for f in FAMILIES.values())
  raise TypeError(f'Expected a {known}, got {config!r}.')


def family_of(config: Config) -> Family:
  """The family of a model of this shape; errors as in `name_of`."""
  return FAMILIES[name_of(config)]


def step_model(
  config: Config, end_ids: tuple[int, ...] = (1,)
) -> protocol.StepModel:
  """The pure functions of a model of this shape; `end_ids` end a row."""
  return family_of(config).step_model(config, end_ids)


def init(config: Config, key: base.Array) -> base.Params:
  """Fresh parameters of a model, as plain float32 arrays."""
  return meta.unbox(_jitted_initializer(config)(key))


def abstract_params(config: Config) -> base.Params:
  """What `init` gives as `ShapeDtypeStruct`s boxed with their logical axes."""
  return jax.eval_shape(_initializer(config), jax.random.key(0))


def num_parameters(config: Config) -> int:
  """How many numbers a model of this shape has."""
  leaves = jax.tree.leaves(abstract_params(config))
  return sum(math.prod(leaf.shape) for leaf in leaves)


# Kept, so that two models of one shape compile it once.
@functools.lru_cache(maxsize=8)
def _jitted_initializer(config: Config) -> Callable[[base.Array], base.Params]:
  return jax.jit(_initializer(config))


def _initializer(config: Config) -> Callable[[base.Array], base.Params]:
  tokens = np.ones((1, 1), np.int32)
  model = family_of(config).network(config)
  return lambda key: model.init(key, tokens, tokens)['params']
