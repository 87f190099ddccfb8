"""A key/value cache addressed by per-row lengths.

One layer's cache is a pair of arrays `[B, H, L, D]`: heads before slots, so
that attention reads each head's keys as one contiguous matrix. A row of length
`n` owns the slots `0 .. n-1`; whatever lies behind them is never attended to
and is overwritten by the next write that reaches it. So a rollback is a smaller
length and nothing else::

  length 3                    a b c . . . .
  write (d e f) at length 3   a b c d e f .
  keep d alone: length 4      a b c d e f .    e, f are now free slots
  write (x y) at length 4     a b c d x y .
"""

from __future__ import annotations

import jax.numpy as jnp

from speccascade_jax import base

# A finite stand-in for -inf in attention biases: a row of nothing but -inf
# would turn the softmax into NaN, and -inf - -inf is NaN in its max-shift.
MASKED = -1e9


def empty(
  batch: int, heads: int, slots: int, head_dim: int, dtype: jnp.dtype
) -> tuple[base.Array, base.Array]:
  """Keys and values `[B, H, L, D]` of one layer without any content."""
  shape = (batch, heads, slots, head_dim)
  return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)


def write(
  cache: base.Array, new: base.Array, lengths: base.Array
) -> base.Array:
  """Overwrites the slots `lengths .. lengths + K - 1` of every row.

  Args:
    cache: `[B, H, L, D]` keys or values.
    new: `[B, H, K, D]` what to write.
    lengths: `[B]` int32.

  Returns:
    `[B, H, L, D]`. Slots at or past L are dropped rather than clamped:
    clamping would shift the block back over slots that are still valid.
  """
  return write_at(cache, new, lengths[:, None] + jnp.arange(new.shape[2]))


def write_at(
  cache: base.Array, new: base.Array, slots: base.Array
) -> base.Array:
  """As `write`, to the slots `[B, K]`, no two of a row the same."""
  batch, _, k, _ = new.shape
  rows = jnp.arange(batch)[:, None]
  if batch * k == 1:
    # XLA turns a scatter of one update into a conditional slice update, which
    # on a CPU copies the whole cache four times a layer and step (59 copies
    # in the optimised loop of the shipped verifier, 11 with two updates). The
    # second one lies past the end and is dropped.
    dropped = jnp.maximum(slots + 1, cache.shape[2])
    slots = jnp.concatenate([slots, dropped], axis=1)
    new = jnp.concatenate([new, new], axis=2)
  # The advanced indices stand around a slice, so they come first: [B, K, H, D].
  return cache.at[rows, :, slots].set(
    new.swapaxes(1, 2).astype(cache.dtype), mode='drop', unique_indices=True
  )


def attention_mask(lengths: base.Array, k: int, slots: int) -> base.Array:
  """Which slots each of K new tokens may see: `[B, K, L]` bool.

  Token `i` of the block stands in slot `lengths + i` and sees that slot and
  all before it.
  """
  position = lengths[:, None] + jnp.arange(k)
  return jnp.arange(slots) <= position[:, :, None]
