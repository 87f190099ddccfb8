"""A pair whose drafter is right as often as one likes.

Speed depends on the models' sizes and on how many drafted tokens are kept, not
on what they say. So the verifier first writes its text, greedily, and the
drafter is given a script: at each position the verifier's token, or with
probability `1 - acceptance` another one. The drafter still computes what it
always does; only then the script's token is made its favourite. Under the
lossless rule each drafted token is kept with probability `acceptance`,
independently, and the text stays the verifier's own::

  verifier's text   a b c d e f        acceptance 0.5
  script            a b x d x f        x is another token
  round 1 drafts    a b x d            a b are kept, c is the verifier's
  round 2 drafts    d x f .            d is kept, e is the verifier's

Nobody ends: every text has `max_length` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base
from speccascade_jax import pair as pairs
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax.models import families
from speccascade_jax.models import products
from speccascade_jax.models import protocol

_FIRST = 3  # In front of it lie padding, the end and the unknown token.


@dataclasses.dataclass
class _Numbers:
  """A vocabulary in which a text is its token ids."""

  size: int
  eos_id: int | None = 1
  bos_id: int | None = None
  unk_id: int | None = 2

  def encode(self, text: str) -> list[int]:
    return [int(number) for number in text.split()]

  def decode(self, ids: Sequence[int]) -> str:
    return ' '.join(map(str, ids))

  def piece(self, token: int) -> str:
    return str(token)

  def is_special(self, token: int) -> bool:
    return token < _FIRST

  def save(self, folder: pathlib.Path) -> pathlib.Path:
    raise ValueError(
      f'A vocabulary of token ids has no file to write into {folder}.'
    )


def random_pair(
  drafter: families.Config, verifier: families.Config, seed: int
) -> pairs.Pair:
  """A pair of these shapes with random weights."""
  if drafter.vocab_size != verifier.vocab_size:
    raise ValueError(
      'The models must have one vocabulary, got vocab_size '
      f'{drafter.vocab_size} and {verifier.vocab_size}.'
    )
  keys = jax.random.split(jax.random.key(seed))
  small, large = (
    pairs.Model(
      families.step_model(config),
      products.lay_out(families.init(config, key)),
      config,
    )
    for config, key in zip((drafter, verifier), keys)
  )
  return endless(pairs.Pair(small, large, _vocabulary(verifier.vocab_size)))


def endless(pair: pairs.Pair) -> pairs.Pair:
  """The same models without an end of sequence, over token ids as texts."""

  def without_end(model: pairs.Model) -> pairs.Model:
    step = dataclasses.replace(model.step, end_ids=())
    return dataclasses.replace(model, step=step)

  if pair.drafter is None:
    raise ValueError('A benchmark needs a drafter beside the verifier.')
  return pairs.Pair(
    without_end(pair.drafter),
    without_end(pair.verifier),
    _vocabulary(pair.verifier.step.vocab_size),
  )


def inputs(pair: pairs.Pair, batch: int, length: int, seed: int) -> list[str]:
  """Random texts of `length` tokens, the end of sequence included."""
  rng = np.random.default_rng(seed)
  size = (batch, length - 1)
  rows = rng.integers(_FIRST, pair.verifier.step.vocab_size, size)
  return [pair.vocabulary.decode(row.tolist()) for row in rows]


def scripted(
  pair: pairs.Pair, text: np.ndarray, acceptance: float, seed: int
) -> pairs.Pair:
  """The pair with a drafter that is right at that rate.

  Args:
    pair: from `endless` or `random_pair`.
    text: `[B, T]` what the verifier writes greedily to these inputs.
    acceptance: share of the drafter's proposals that are the verifier's.
    seed: of where they are; a position that is right at one acceptance is so
      at every higher one.
  """
  assert pair.drafter is not None
  right = np.random.default_rng(seed).random(text.shape) < acceptance
  other = (text + 1) % pair.verifier.step.vocab_size
  params = {
    'model': pair.drafter.params,
    'script': jnp.asarray(np.where(right, text, other), jnp.int32),
  }
  step = _following(pair.drafter.step)
  drafter = dataclasses.replace(pair.drafter, step=step, params=params)
  return dataclasses.replace(pair, drafter=drafter)


# Cached, so that two acceptances run one program.
@functools.cache
def _following(model: protocol.StepModel) -> protocol.StepModel:
  """`model` with the next token of `params['script']` as its favourite."""

  def start(
    params: base.Params, inputs: base.Array, max_length: int, widest: int = 1
  ) -> protocol.Start:
    begun = model.start(params['model'], inputs, max_length, widest)
    return dataclasses.replace(begun, cache=(begun.cache, begun.lengths))

  def extend(
    params: base.Params,
    cache: base.Cache,
    tokens: base.Array,
    lengths: base.Array,
  ) -> tuple[base.Array, base.Cache]:
    inner, first = cache
    logits, inner = model.extend(params['model'], inner, tokens, lengths)
    script = params['script']
    place = (lengths - first)[:, None] + jnp.arange(tokens.shape[1])
    place = jnp.clip(place, 0, script.shape[1] - 1)
    favourite = jnp.take_along_axis(script, place, axis=1)
    is_favourite = jnp.arange(model.vocab_size) == favourite[..., None]
    best = logits.max(axis=-1, keepdims=True)
    return jnp.where(is_favourite, best + 1.0, logits), (inner, first)

  return dataclasses.replace(model, start=start, extend=extend)


def _vocabulary(size: int) -> vocabularies.Vocabulary:
  return vocabularies.Vocabulary(_Numbers(size))
