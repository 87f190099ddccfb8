"""Gemma as a `StepModel`, the view that the decoding loops have of it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax.models import protocol
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.gemma import network


def step_model(
  config: gemma_config.GemmaConfig,
  end_ids: tuple[int, ...] = (1,),
  prefill_chunk: int = 1024,
) -> protocol.StepModel:
  """The pure functions of a Gemma of this shape; parameters come by call.

  Args:
    config: the shape.
    end_ids: the tokens that end a row.
    prefill_chunk: prompts are read in parts of at most so many tokens, which
      bounds the memory of their attention, [B, H, chunk, L].

  `params` is the plain pytree of arrays under 'params' (no axis metadata).
  """
  if prefill_chunk < 1:
    raise ValueError(f'prefill_chunk must be at least 1, got {prefill_chunk}.')
  return _step_model(config, end_ids, prefill_chunk)


# Cached, so that loading a model twice gives the same functions and a jitted
# loop that takes them as static arguments is compiled once.
@functools.cache
def _step_model(
  config: gemma_config.GemmaConfig, end_ids: tuple[int, ...], prefill_chunk: int
) -> protocol.StepModel:
  model = network.Transformer(config)

  def start(
    params: base.Params, inputs: base.Array, max_length: int, widest: int = 1
  ) -> protocol.Start:
    batch, width = inputs.shape
    # All but the last token of a prompt, which stays pending.
    lengths = network.prompt_lengths(inputs) - 1
    token = jnp.take_along_axis(inputs, lengths[:, None], axis=1)[:, 0]
    cache = model.apply(
      {}, batch, width - 1 + max_length, widest, method=model.empty
    )

    def read(cache, part):
      tokens, first = part
      cache = model.apply(
        {'params': params},
        cache,
        tokens,
        jnp.full((batch,), first, jnp.int32),
        lengths,
        method=model.prefill,
      )
      return cache, None

    count = -(-(width - 1) // prefill_chunk)
    if count == 1:
      cache, _ = read(cache, (inputs[:, :-1], 0))
    elif count > 1:
      chunk = -(-(width - 1) // count)  # Equal parts, the last one padded.
      padded = jnp.pad(inputs[:, :-1], ((0, 0), (0, count * chunk - width + 1)))
      parts = padded.reshape(batch, count, chunk).swapaxes(0, 1)
      firsts = chunk * jnp.arange(count, dtype=jnp.int32)
      cache, _ = jax.lax.scan(read, cache, (parts, firsts))
    return protocol.Start(cache, token.astype(jnp.int32), lengths)

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
