r"""Stop sequences: a text ends inside the loop where one of them is complete.

A stop sequence is text ('\n\nQ:'), and tokens cut text where they like: '\n'
and '\nQ', or '\n\n' and 'Q:', or one token for all of it, with more behind. So
what is looked for is not a list of tokens. All stop sequences together make an
automaton over bytes (Aho and Corasick, 1975), whose state is the longest
beginning of a stop sequence that the text ends with; fed with a token's bytes
it goes from state to state, which is tabulated once for every state and token::

  stops 'ab'     state 0   nothing        token 'xa'  0 -> 1, 1 -> 1
                 state 1   '..a'          token 'b'   0 -> 0, 1 -> 2
                 state 2   found          token 'abx' 0 -> 2, 1 -> 2

In the loop a token then costs one look-up, `[N, V]` bytes are all that is kept
(N is the number of letters of the stop sequences and a few more), and the text
ends with exactly the token that completes a stop sequence, whoever chose it and
wherever in a block it lies.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base


@base.pytree_dataclass
class StopTable:
  """Where a token leads from a state; the last state is 'found', and stays."""

  after: base.Array  # [N, V] uint8, or uint16 with more than 256 states.


def build(
  stops: Sequence[bytes], surfaces: Sequence[bytes], vocab_size: int
) -> StopTable:
  """Tabulates the automaton for a vocabulary, on the host.

  Args:
    stops: what ends a text; none of them empty.
    surfaces: what each token adds to a text.
    vocab_size: V of the models, which may be padded: the ids behind the
      vocabulary break every match.

  Raises:
    ValueError: if there is no stop sequence or one is empty.
  """
  moves = _byte_moves(stops)
  states = len(moves)
  dtype = np.uint8 if states <= 256 else np.uint16
  after = np.zeros((states, vocab_size), dtype)
  after[-1] = states - 1
  # Sorted by length, so that column i of the tokens' bytes is a tail of them.
  surfaces = surfaces[:vocab_size]
  order = sorted(range(len(surfaces)), key=lambda i: len(surfaces[i]))
  lengths = np.array([len(surfaces[i]) for i in order], np.int64)
  letters = np.zeros((len(order), lengths.max(initial=0)), np.uint8)
  for row, i in enumerate(order):
    letters[row, : lengths[row]] = np.frombuffer(surfaces[i], np.uint8)
  for state in range(states - 1):
    now = np.full(len(order), state, dtype)
    for column in range(letters.shape[1]):
      long = np.searchsorted(lengths, column, side='right')
      now[long:] = moves[now[long:], letters[long:, column]]
    after[state, order] = now
  return StopTable(jnp.asarray(after))


def follow(
  table: StopTable, state: base.Array, tokens: base.Array
) -> base.Array:
  """States `[B, K]` behind each of `tokens [B, K]`, from `state [B]`."""

  def step(state, token):
    state = table.after[state, token].astype(jnp.int32)
    return state, state

  _, states = jax.lax.scan(step, state, tokens.T, unroll=True)
  return states.T


def found(table: StopTable, states: base.Array) -> base.Array:
  """Which states have seen a stop sequence, of any shape."""
  return states == table.after.shape[0] - 1


def _byte_moves(stops: Sequence[bytes]) -> np.ndarray:
  """[N, 256] states behind a byte; state 0 is the start, N - 1 'found'."""
  if not stops or not all(stops):
    raise ValueError(
      f'The stop sequences are {list(stops)!r}; there has to be one, and none '
      'may be empty.'
    )
  # Every proper beginning of a stop sequence, the empty one first.
  beginnings = sorted({s[:n] for s in stops for n in range(len(s))}, key=len)
  # One that holds a whole stop sequence is never reached.
  beginnings = [b for b in beginnings if not any(s in b for s in stops)]
  number = {beginning: i for i, beginning in enumerate(beginnings)}
  end = len(beginnings)
  moves = np.full((end + 1, 256), end, np.int64)
  for beginning, i in number.items():
    for letter in range(256):
      text = beginning + bytes([letter])
      if not any(text.endswith(stop) for stop in stops):
        starts = (text[k:] for k in range(len(text) + 1))
        moves[i, letter] = next(number[t] for t in starts if t in number)
  return moves
