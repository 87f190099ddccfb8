"""Everything a training run carries from one step to the next."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from speccascade_jax import base


@base.pytree_dataclass
class TrainState:
  """The whole state of a run: with the data's seed it determines the rest."""

  step: base.Array  # [] int32, optimizer steps done.
  cooldown_start: base.Array  # [] int32, the step the cool-down begins with.
  params: base.Params  # float32, whatever the model computes in.
  opt_state: base.Params
  average: base.Params | None  # Moving average of `params`; None without.

  @property
  def eval_params(self) -> base.Params:
    """What is validated and exported: the average where there is one."""
    return self.params if self.average is None else self.average


def create(
  params: base.Params,
  optimizer: optax.GradientTransformation,
  cooldown_start: int,
  averaged: bool,
) -> TrainState:
  """The state before the first step."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    cooldown_start=jnp.asarray(cooldown_start, jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    # A copy: the train step donates its argument, buffer by buffer.
    average=jax.tree.map(jnp.copy, params) if averaged else None,
  )


def update_average(
  average: base.Params, params: base.Params, step: base.Array, decay: float
) -> base.Params:
  """One step of an exponential moving average of the parameters.

  The decay grows as (1 + step) / (10 + step) up to its value, so that the
  average does not remember the initialisation.
  """
  step = step.astype(jnp.float32)
  decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  return jax.tree.map(lambda a, p: a + (1.0 - decay) * (p - a), average, params)
