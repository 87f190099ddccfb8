"""The interface between decoding loops and models.

A loop sees a model as two pure functions over a cache that is addressed by
explicit per-row lengths. Rolling back is only a smaller length: slots at or
beyond a row's length are never attended to and are overwritten by the next
call that reaches them.

At any time a row has `length` tokens inside the cache and exactly one
*pending* token that is not in it yet: the last token of the text so far. A
step feeds the pending token and gets the distribution of the one after it::

  encoder-decoder, after start:   cache [ ]            pending <bos>  length 0
  decoder-only, prompt a b c:     cache [a b]          pending c      length 2
  after extend(c) and choosing x: cache [a b c]        pending x      length 3
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

from speccascade_jax import base


@base.pytree_dataclass
class Start:
  """A model's state at the beginning of generation."""

  cache: base.Cache
  token: base.Array  # [B] int32, the pending token.
  lengths: base.Array  # [B] int32, tokens in the cache.


@dataclasses.dataclass(frozen=True)
class StepModel:
  """A language model as pure functions; hashable, so jit-static.

  Attributes:
    start: `(params, inputs [B, S] int32, max_length, widest=1) -> Start`.
      `inputs` are right-padded with 0: the source text of an encoder-decoder
      model, the prompt of a decoder-only one (ragged rows included).
      `max_length` is the static number of tokens that will be generated at
      most; the cache gets as many slots as that and the prompt need. `widest`
      (static) is how many tokens are written at most, by one call of `extend`
      or by several, before a rollback to the first of them: gamma + 1. A
      layer that sees a window of the text keeps so many slots more.
    extend: `(params, cache, tokens [B, K] int32, lengths [B]) ->
      (logits [B, K, V] float32, cache)`. Writes `tokens` at the slots
      `lengths .. lengths + K - 1` of each row and scores them: `logits[:, i]`
      is the prediction behind `tokens[:, i]`, given the slots before it.
      Writes past the last slot are dropped.
    vocab_size: V.
    end_ids: the tokens that end a row, the EOS first; none for a row without
      end.
  """

  start: Callable[..., Start]
  extend: Callable[
    [base.Params, base.Cache, base.Array, base.Array],
    tuple[base.Array, base.Cache],
  ]
  vocab_size: int
  end_ids: tuple[int, ...] = (1,)
