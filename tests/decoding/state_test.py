"""The drawing in `state.commit`, and every way in which a block ends."""

import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import base
from speccascade_jax.decoding import state as text_state
from speccascade_jax.models import protocol

EOS = 1
A, B, C, D, X = 2, 3, 4, 5, 6
DRAFTER, RESAMPLED = base.Provenance.DRAFTER, base.Provenance.RESAMPLED
VERIFIER = base.Provenance.VERIFIER


def make_state(texts, limit=6, trace=False):
  """Rows that already hold `texts`, one token a verifier call."""
  batch = len(texts)
  start = protocol.Start(
    cache=None,
    token=jnp.zeros((batch,), jnp.int32),
    lengths=jnp.zeros((batch,), jnp.int32),
  )
  state = text_state.init(start, limit, trace)
  width = max(map(len, texts))
  for i in range(width):
    # Shorter rows are padded with a zero-length block.
    block = make_block([text[i : i + 1] or [A] for text in texts])
    count = jnp.array([int(i < len(text)) for text in texts])
    block = text_state.Block(
      block.tokens, count, block.provenance, block.deferral
    )
    state = text_state.commit(state, block, (EOS,), verifier_calls=1)
  return state


def make_block(rows, provenance=None):
  tokens = jnp.array(rows, jnp.int32)
  if provenance is None:
    provenance = [[DRAFTER] * (len(row) - 1) + [VERIFIER] for row in rows]
  return text_state.Block(
    tokens=tokens,
    count=jnp.full((tokens.shape[0],), tokens.shape[1]),
    provenance=jnp.array(provenance, jnp.int32),
    deferral=jnp.ones(tokens.shape, jnp.float32) * 0.5,
  )


def test_the_drawing():
  before = make_state([[A, B, C]])
  assert before.pending.tolist() == [C]
  assert before.lengths.tolist() == [3]
  after = text_state.commit(before, make_block([[D, EOS, X]]), (EOS,))
  assert after.tokens.tolist() == [[A, B, C, D, EOS, 0]]
  assert after.emitted.tolist() == [5]
  assert after.finished.tolist() == [True]
  assert after.lengths.tolist() == [5]
  assert after.pending.tolist() == [EOS]


def test_limit_cuts_a_block():
  before = make_state([[A, B, C, D]])
  after = text_state.commit(before, make_block([[B, C, D]]), (EOS,))
  assert after.tokens.tolist() == [[A, B, C, D, B, C]]
  assert after.finished.tolist() == [True]
  # The third token never counts: neither as a token nor as work.
  assert after.counters.accepted.tolist() == [2]
  assert after.counters.deferred.tolist() == [4 * 0.5 + 2 * 0.5]


def test_eos_beyond_the_limit_does_not_count_as_eos():
  before = make_state([[A, B, C, D]])
  after = text_state.commit(before, make_block([[B, C, EOS]]), (EOS,))
  assert after.tokens.tolist() == [[A, B, C, D, B, C]]
  assert after.finished.tolist() == [True]


def test_eos_behind_the_wanted_tokens_is_ignored():
  before = make_state([[A]])
  block = make_block([[B, EOS, C]])
  block = text_state.Block(
    block.tokens, jnp.array([1]), block.provenance, block.deferral
  )
  after = text_state.commit(before, block, (EOS,))
  assert after.tokens.tolist() == [[A, B, 0, 0, 0, 0]]
  assert after.finished.tolist() == [False]


def test_rows_advance_independently_and_finished_rows_stay():
  before = make_state([[A, EOS], [A, B], [C, D]])
  block = make_block([[X, X], [C, D], [EOS, X]])
  after = text_state.commit(
    before, block, (EOS,), drafter_steps=2, verifier_calls=1, drafted=1
  )
  assert after.tokens.tolist() == [
    [A, EOS, 0, 0, 0, 0],
    [A, B, C, D, 0, 0],
    [C, D, EOS, 0, 0, 0],
  ]
  assert after.finished.tolist() == [True, False, True]
  assert after.lengths.tolist() == [2, 4, 3]
  assert after.counters.drafter_steps.tolist() == [0, 2, 2]
  assert after.counters.drafted.tolist() == [0, 1, 1]
  assert after.counters.verifier_calls.tolist() == [2, 3, 3]


def test_provenance_and_probabilities_follow_their_tokens():
  before = make_state([[A]], trace=True)
  block = make_block([[B, C, D]], [[DRAFTER, RESAMPLED, 0]])
  block = text_state.Block(
    block.tokens,
    jnp.array([2]),
    block.provenance,
    block.deferral,
    drafter_probs=jnp.array([[0.5, 0.25, 0.125]]),
  )
  after = text_state.commit(before, block, (EOS,))
  assert after.provenance.tolist() == [[VERIFIER, DRAFTER, RESAMPLED, 0, 0, 0]]
  np.testing.assert_array_equal(
    after.drafter_probs, [[np.nan, 0.5, 0.25] + [np.nan] * 3]
  )
  assert np.isnan(after.verifier_probs).all()
  assert after.counters.resampled.tolist() == [1]


@pytest.mark.parametrize('count', [1, 2, 3, 4])
def test_counters_add_up_to_the_text(count):
  block = make_block([[B, C, D, A]], [[DRAFTER, DRAFTER, RESAMPLED, VERIFIER]])
  block = text_state.Block(
    block.tokens, jnp.array([count]), block.provenance, block.deferral
  )
  state = text_state.commit(make_state([[A]]), block, (EOS,))
  by_verifier = int((state.provenance == VERIFIER).sum())
  counted = state.counters.accepted[0] + state.counters.resampled[0]
  assert int(counted) + by_verifier == int(state.emitted[0]) == 1 + count
