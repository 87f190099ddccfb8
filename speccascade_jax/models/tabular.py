"""Exact toy models: a table of logits for every recent history.

Their next-token law can be read off for any prefix, so the law of whatever a
decoding loop emits is known in closed form. They come in both styles that the
protocol knows, and their cache is a real one: histories are read back from the
slots that earlier calls wrote, so wrong lengths or lost writes change the
output.

The parameters of a model of order n are one array of logits::

  table[condition, x_t, x_{t-1}, .., x_{t-n+1}] -> logits [V] of x_{t+1}

of shape `[C, V+1, .., V+1, V]`, n axes of V + 1 between the first and the last:
index V stands for "before the first token". Order and conditions are read off
the shape, so drafter and verifier may share a `StepModel` and differ in both.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base
from speccascade_jax.models import kv_cache
from speccascade_jax.models import protocol


@base.pytree_dataclass
class TabularCache:
  """The text so far, in slots that are addressed and dropped as in T5."""

  tokens: base.Array  # [B, 1, L, 1] int32: kv_cache's [B, H, L, D].
  condition: base.Array  # [B] int32, which of the C tables a row uses.


def init_params(
  key: base.Array,
  vocab_size: int,
  order: int,
  conditions: int = 1,
  scale: float = 1.0,
) -> base.Array:
  """Normal logits `[C, V+1, .., V+1, V]` with standard deviation `scale`."""
  shape = (conditions, *(vocab_size + 1,) * order, vocab_size)
  return scale * jax.random.normal(key, shape)


def condition_of(params: base.Params, inputs: base.Array) -> base.Array:
  """The table that encoder-decoder rows `inputs [B, S]` select: `[B]`.

  A sum modulo C, so that right-padding with 0 changes nothing.
  """
  return inputs.sum(axis=-1) % params.shape[0]


def next_probs(
  params: base.Params, prefix: Sequence[int], condition: int = 0
) -> np.ndarray:
  """The law `[V]` of the token behind `prefix`, in float64 NumPy.

  Args:
    params: the table.
    prefix: the text up to here, oldest first. It begins with the start token 0
      (encoder-decoder) or with the prompt (decoder-only).
    condition: which of the C tables; 0 for decoder-only models.
  """
  table = np.asarray(params, np.float64)
  order, none = table.ndim - 2, table.shape[-1]
  newest_first = [*prefix[::-1], *[none] * order][:order]
  logits = table[(condition, *newest_first)]
  weights = np.exp(logits - logits.max())
  return weights / weights.sum()


def step_model(
  vocab_size: int, decoder_only: bool = False, end_ids: tuple[int, ...] = (1,)
) -> protocol.StepModel:
  """A tabular model over V tokens in one of the two styles.

  The encoder-decoder style starts with token 0 pending and an empty cache, and
  its `inputs` only select a condition. The decoder-only style takes `inputs`
  for a prompt, which becomes the history; a row of nothing but padding counts
  as a prompt of the single token 0.
  """
  return _step_model(vocab_size, decoder_only, end_ids)


# Cached, so that equal arguments give the same functions and a jitted loop that
# takes them as static arguments is compiled once. Apart from `step_model`,
# because a cache takes `f(5)` and `f(5, end_ids=(1,))` for different calls.
@functools.cache
def _step_model(
  vocab_size: int, decoder_only: bool, end_ids: tuple[int, ...]
) -> protocol.StepModel:
  def start(
    params: base.Params, inputs: base.Array, max_length: int, widest: int = 1
  ) -> protocol.Start:
    del widest  # There is a slot for every token.
    batch = inputs.shape[0]
    if not decoder_only:
      zeros = jnp.zeros((batch,), jnp.int32)
      slots = jnp.zeros((batch, 1, max_length, 1), jnp.int32)
      condition = condition_of(params, inputs).astype(jnp.int32)
      return protocol.Start(TabularCache(slots, condition), zeros, zeros)
    lengths = jnp.maximum((inputs != 0).sum(axis=-1), 1) - 1
    token = jnp.take_along_axis(inputs, lengths[:, None], axis=1)[:, 0]
    # As in any prefill of ragged rows, the pending token and the padding lie
    # in the slots too, at or beyond the row's length.
    slots = jnp.pad(inputs, ((0, 0), (0, max_length - 1)))
    cache = TabularCache(
      slots.astype(jnp.int32)[:, None, :, None], jnp.zeros_like(lengths)
    )
    return protocol.Start(
      cache, token.astype(jnp.int32), lengths.astype(jnp.int32)
    )

  def extend(
    params: base.Params,
    cache: TabularCache,
    tokens: base.Array,
    lengths: base.Array,
  ) -> tuple[base.Array, TabularCache]:
    order = params.ndim - 2
    written = kv_cache.write(cache.tokens, tokens[:, None, :, None], lengths)
    slots = written[:, 0, :, 0]
    position = lengths[:, None] + jnp.arange(tokens.shape[1])  # [B, K]
    rows = jnp.arange(tokens.shape[0])[:, None]
    history = []
    for age in range(order):
      slot = position - age
      token = slots.at[rows, slot].get(mode='fill', fill_value=vocab_size)
      # A negative index would wrap around before 'fill' sees it.
      history.append(jnp.where(slot < 0, vocab_size, token))
    logits = params[(cache.condition[:, None], *history)]
    logits = jnp.broadcast_to(logits, (*tokens.shape, vocab_size))
    return logits.astype(jnp.float32), TabularCache(written, cache.condition)

  return protocol.StepModel(start, extend, vocab_size, end_ids)
