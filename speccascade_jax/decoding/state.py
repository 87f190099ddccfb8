"""The text of a batch while it is being decoded: init, commit, stop.

One function, `commit`, puts tokens behind a row's text, whoever chose them. It
alone knows about the end-of-sequence token, the stop sequences and the length
limit, so a block that runs over any is cut in the same way in every loop.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax.decoding import stopping
from speccascade_jax.models import protocol


@base.pytree_dataclass
class TextState:
  """B rows of text; the caches of the models are carried beside it."""

  tokens: base.Array  # [B, T] int32 output so far, 0 behind it.
  provenance: base.Array  # [B, T] int32 `Provenance`.
  emitted: base.Array  # [B] int32, output tokens so far.
  finished: base.Array  # [B] bool, EOS or a stop emitted, or T reached.
  pending: base.Array  # [B] int32, last token of the text, not in the caches.
  lengths: base.Array  # [B] int32, tokens in the caches.
  # [B] int32 state of the stop sequences' automaton; not read without any.
  matched: base.Array
  counters: base.Counters
  drafter_probs: base.Array | None  # [B, T] float32, when traced.
  verifier_probs: base.Array | None  # [B, T] float32, when traced.


@base.pytree_dataclass
class Block:
  """K candidate tokens a row, of which the first `count` are wanted."""

  tokens: base.Array  # [B, K] int32.
  count: base.Array  # [B] int32, 1 .. K.
  provenance: base.Array  # [B, K] int32 `Provenance`.
  deferral: base.Array  # [B, K] float32.
  drafter_probs: base.Array | None = None  # [B, K] float32.
  verifier_probs: base.Array | None = None  # [B, K] float32.


def init(start: protocol.Start, max_length: int, trace: bool) -> TextState:
  """An empty text of at most `max_length` (T) tokens behind `start`."""
  batch = start.token.shape[0]
  count = jnp.zeros((batch,), jnp.int32)
  return TextState(
    tokens=jnp.zeros((batch, max_length), jnp.int32),
    provenance=jnp.zeros((batch, max_length), jnp.int32),
    emitted=count,
    finished=jnp.zeros((batch,), bool),
    pending=start.token,
    lengths=start.lengths,
    matched=count,
    counters=base.Counters(
      drafter_steps=count,
      verifier_calls=count,
      drafted=count,
      accepted=count,
      resampled=count,
      deferred=jnp.zeros((batch,), jnp.float32),
    ),
    drafter_probs=jnp.full((batch, max_length), jnp.nan) if trace else None,
    verifier_probs=jnp.full((batch, max_length), jnp.nan) if trace else None,
  )


def commit(
  state: TextState,
  block: Block,
  end_ids: Sequence[int],
  stops: stopping.StopTable | None = None,
  *,
  drafter_steps: int | base.Array = 0,
  verifier_calls: int | base.Array = 0,
  drafted: int | base.Array = 0,
) -> TextState:
  """Appends a block to every unfinished row, up to its end and the limit T.

  With T = 6, `|` behind the text, EOS = e, and the caches below it::

    before    a b c | . . .    pending c, caches [<bos> a b], length 3
    block     d e x            count 3: wanted are d e x
    after     a b c d e | .    finished; x is cut, 2 tokens are committed

  The calls that made the block have put `pending` and all its tokens but the
  last into the caches. Committing n tokens therefore moves `lengths` by n:
  what lies behind is free again, which is all there is to a rollback.

  Args:
    state: the text before.
    block: candidates, shapes `[B, K]`.
    end_ids: end a row; the EOS itself is kept in the text.
    stops: likewise, what else does: the token that completes a stop sequence
      is kept, and all that it brings along.
    drafter_steps: what an unfinished row paid for this block, `[B]` where
      rows differ; likewise `verifier_calls` and `drafted`.

  Returns:
    The text after. Finished rows are unchanged, counters included.
  """
  batch, k = block.tokens.shape
  limit = state.tokens.shape[1]
  active = ~state.finished
  position = jnp.arange(k)
  ends = jnp.zeros(block.tokens.shape, bool)
  for end_id in end_ids:
    ends |= block.tokens == end_id
  if stops is not None:
    matched = stopping.follow(stops, state.matched, block.tokens)
    ends |= stopping.found(stops, matched)
  ends &= position < block.count[:, None]
  has_end = ends.any(axis=1)
  until_end = jnp.where(has_end, ends.argmax(axis=1) + 1, k)
  n = jnp.minimum(block.count, until_end)
  n = jnp.where(active, jnp.minimum(n, limit - state.emitted), 0)

  # Where a candidate lands in the text; unwanted ones land outside.
  wanted = position < n[:, None]
  slots = jnp.where(wanted, state.emitted[:, None] + position, limit)
  rows = jnp.arange(batch)[:, None]

  def put(text: base.Array | None, new: base.Array | None):
    if text is None or new is None:
      return text
    return text.at[rows, slots].set(new.astype(text.dtype), mode='drop')

  def tally(mask: base.Array) -> base.Array:
    return (mask & wanted).sum(axis=1, dtype=jnp.int32)

  last = jnp.maximum(n - 1, 0)[:, None]

  def newest(of: base.Array, before: base.Array) -> base.Array:
    there = jnp.take_along_axis(of, last, axis=1)[:, 0]
    return jnp.where(active, there, before)

  emitted = state.emitted + n
  counters = state.counters
  spent = active.astype(jnp.int32)
  return dataclasses.replace(
    state,
    tokens=put(state.tokens, block.tokens),
    provenance=put(state.provenance, block.provenance),
    emitted=emitted,
    finished=state.finished | (has_end & (until_end <= n)) | (emitted >= limit),
    pending=newest(block.tokens, state.pending),
    lengths=state.lengths + n,
    matched=state.matched if stops is None else newest(matched, state.matched),
    counters=base.Counters(
      drafter_steps=counters.drafter_steps + drafter_steps * spent,
      verifier_calls=counters.verifier_calls + verifier_calls * spent,
      drafted=counters.drafted + drafted * spent,
      accepted=counters.accepted
      + tally(block.provenance == base.Provenance.DRAFTER),
      resampled=counters.resampled
      + tally(block.provenance == base.Provenance.RESAMPLED),
      deferred=counters.deferred
      + jnp.where(wanted, block.deferral, 0.0).sum(axis=1),
    ),
    drafter_probs=put(state.drafter_probs, block.drafter_probs),
    verifier_probs=put(state.verifier_probs, block.verifier_probs),
  )


def generation(state: TextState) -> base.Generation:
  """The finished text, without the loop's own bookkeeping."""
  return base.Generation(
    tokens=state.tokens,
    lengths=state.emitted,
    provenance=state.provenance,
    counters=state.counters,
    drafter_probs=state.drafter_probs,
    verifier_probs=state.verifier_probs,
  )
