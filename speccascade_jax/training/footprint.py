"""What training keeps in a device's memory, from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from speccascade_jax import base
from speccascade_jax.training import train_state
from speccascade_jax.training import train_step


def state(
  trained: base.Params,
  optimizer: optax.GradientTransformation,
  *,
  averaged: bool,
) -> train_state.TrainState:
  """The state of a run, as shapes.

  Args:
    trained: the parameters that it trains, likewise.
    optimizer: its state comes with them.
    averaged: whether a moving average of them is kept.
  """
  create = functools.partial(
    train_state.create,
    optimizer=optimizer,
    cooldown_start=0,
    averaged=averaged,
  )
  return jax.eval_shape(create, trained)


def gradients(trained: base.Params, microbatches: int) -> base.Params:
  """Of the parameters; with microbatches their sum is there beside them."""
  return trained if microbatches == 1 else (trained, trained)


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
