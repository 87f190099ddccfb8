"""T5 as a `StepModel`, the view that the decoding loops have of it."""

from __future__ import annotations

import functools

import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax.models import protocol
from speccascade_jax.models.t5 import config as t5_config
from speccascade_jax.models.t5 import network


def step_model(
  config: t5_config.T5Config, end_ids: tuple[int, ...] = (1,)
) -> protocol.StepModel:
  """The pure functions of a T5 of this shape; parameters come with each call.

  `params` is the plain pytree of arrays under 'params' (no axis metadata).
  """
  return _step_model(config, end_ids)


# Cached, so that loading a model twice gives the same functions and a jitted
# loop that takes them as static arguments is compiled once. Apart from
# `step_model`, because a cache takes `f(c)` and `f(c, end_ids=(1,))` for
# different calls.
@functools.cache
def _step_model(
  config: t5_config.T5Config, end_ids: tuple[int, ...]
) -> protocol.StepModel:
  model = network.Transformer(config)

  def start(
    params: base.Params, inputs: base.Array, max_length: int, widest: int = 1
  ) -> protocol.Start:
    del widest  # There is a slot for every token.
    batch = inputs.shape[0]
    return protocol.Start(
      cache=model.apply(
        {'params': params}, inputs, max_length, method=model.start
      ),
      token=jnp.full((batch,), network.PAD_ID, jnp.int32),
      lengths=jnp.zeros((batch,), jnp.int32),
    )

  def extend(
    params: base.Params,
    cache: base.Cache,
    tokens: base.Array,
    lengths: base.Array,
  ) -> tuple[base.Array, base.Cache]:
    return model.apply(
      {'params': params}, cache, tokens, lengths, method=model.extend
    )

  return protocol.StepModel(start, extend, config.vocab_size, end_ids)
