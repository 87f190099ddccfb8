"""The key/value cache of a sliding-window layer: a ring that can roll back.

A layer that sees its last W tokens needs no slot for every token of a long
text. Token t goes to slot `t % L`, and overwrites token `t - L`, which must
then be out of sight of every query to come. Queries come back by a rollback:
after a call at length n that wrote K tokens, the next one may begin at n + 1,
and its window at `n + 2 - W`. So all is well when::

  L >= W + K - 1       W = 4, K = 3, L = 6:   slot     0 1 2 3 4 5
                       length 6               holds    0 1 2 3 4 5
                       write 6 7 8            holds    6 7 8 3 4 5
                       keep 6, length 7       query 7 sees 4 5 6 and itself

What lies in a slot follows from the length alone: the last token at or before
the end of the text that belongs there. After a rollback slots 1 and 2 above
hold 7 and 8 instead of 1 and 2, but neither is in the window of any query any
more, so the mask hides them whichever they are thought to be.
"""

from __future__ import annotations

import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax.models import kv_cache


def slots_for(window: int, widest: int, tokens: int) -> int:
  """L of a layer that sees `window` tokens.

  Args:
    window: W.
    widest: K, the most tokens that one call writes.
    tokens: that the whole text has at most, where a ring is not needed.
  """
  return min(tokens, window + widest - 1)


def positions(ends: base.Array, slots: int) -> base.Array:
  """The token in each slot of rows that end before `ends [B]`: `[B, L]`.

  Negative where no token has been.
  """
  last = ends[:, None] - 1
  return last - (last - jnp.arange(slots)) % slots


def write(
  cache: base.Array,
  new: base.Array,
  lengths: base.Array,
  limits: base.Array | None = None,
) -> base.Array:
  """Puts tokens `lengths .. lengths + K - 1` of every row into their slots.

  Args:
    cache: `[B, H, L, D]` keys or values.
    new: `[B, H, K, D]` what to write. Of more than L tokens the last L stay.
    lengths: `[B]` int32.
    limits: `[B]` int32; what lies at or beyond is padding and is dropped. In
      a ring it would overwrite tokens.

  Returns:
    `[B, H, L, D]`.
  """
  k, slots = new.shape[2], cache.shape[2]
  position = lengths[:, None] + jnp.arange(k)
  ends = lengths + k if limits is None else jnp.minimum(lengths + k, limits)
  stays = position < ends[:, None]
  if k > slots:
    stays &= position >= ends[:, None] - slots
  dropped = slots + jnp.arange(k)
  return kv_cache.write_at(
    cache, new, jnp.where(stays, position % slots, dropped)
  )
