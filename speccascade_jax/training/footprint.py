"""What training keeps in a device's memory, from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from speccascade_jax import base
from speccascade_jax.models import families
from speccascade_jax.training import train_state
from speccascade_jax.training import train_step


@dataclasses.dataclass(frozen=True)
class Shapes:
  """Arrays of a training step, as shapes.

  Attributes:
    state: see `TrainState`.
    gradients: of the parameters; with microbatches there is a sum beside them.
    frozen: the teacher's parameters; None without.
  """

  state: train_state.TrainState
  gradients: base.Params
  frozen: base.Params


def shapes(
  model: families.Config,
  optimizer: optax.GradientTransformation,
  *,
  averaged: bool,
  microbatches: int,
  teacher: families.Config | None = None,
) -> Shapes:
  """What there is besides the activations.

  Args:
    model: that is trained, in float32.
    optimizer: its state comes with the parameters.
    averaged: whether a moving average of the parameters is kept.
    microbatches: parts that a batch is cut into.
    teacher: whose parameters are there as well.
  """
  params = _params(model)
  create = functools.partial(
    train_state.create,
    optimizer=optimizer,
    cooldown_start=0,
    averaged=averaged,
  )
  return Shapes(
    jax.eval_shape(create, params),
    params if microbatches == 1 else (params, params),
    None if teacher is None else _params(teacher),
  )


def activations(
  loss: train_step.Loss,
  params: base.Params,
  frozen: base.Params,
  batch: train_step.Batch,
) -> list[jax.ShapeDtypeStruct]:
  """What differentiation keeps of the forward pass on a batch, as shapes.

  The compiler may keep less, by computing some of it again, and needs room of
  its own: an estimate.

  Args:
    loss: that is minimised.
    params: as shapes.
    frozen: likewise.
    batch: likewise; one microbatch.
  """

  def pull_back(params, frozen, batch, key):
    return jax.vjp(lambda p: loss(p, frozen, batch, key)['loss'], params)[1]

  key = jax.eval_shape(lambda: jax.random.key(0, impl='rbg'))
  kept = jax.tree.leaves(jax.eval_shape(pull_back, params, frozen, batch, key))
  # Weights are kept for the way back too, but they are there anyway.
  given = [
    (leaf.shape, leaf.dtype) for leaf in jax.tree.leaves((params, frozen))
  ]
  found = []
  for leaf in kept:
    if (leaf.shape, leaf.dtype) in given:
      given.remove((leaf.shape, leaf.dtype))
    else:
      found.append(leaf)
  return found


def abstract_batch(
  rows: int, lengths: Mapping[str, int]
) -> dict[str, jax.ShapeDtypeStruct]:
  """A batch as shapes, see `train_step.Batch`."""
  names: dict[str, tuple[str, Any]] = {
    'encoder_inputs': ('inputs', jnp.int32),
    'decoder_inputs': ('targets', jnp.int32),
    'decoder_targets': ('targets', jnp.int32),
    'loss_weights': ('targets', jnp.float32),
  }
  return {
    name: jax.ShapeDtypeStruct((rows, lengths[side]), dtype)
    for name, (side, dtype) in names.items()
  }


def _params(config: families.Config) -> base.Params:
  init = functools.partial(families.init, config)
  return jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))
