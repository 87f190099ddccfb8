"""Stop sequences against plain text search, and through every loop."""

import functools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import speccascade_jax as sc
from speccascade_jax import deferral
from speccascade_jax.decoding import autoregressive
from speccascade_jax.decoding import sequence_cascade
from speccascade_jax.decoding import speculative
from speccascade_jax.decoding import stopping
from speccascade_jax.decoding import token_cascade
from speccascade_jax.models import tabular

# What the tokens of the tabular models add to a text; 1 is their EOS.
SURFACES = [b'', b'</s>', b'a', b'b', b'ba', b'aab']
V, LENGTH, ROWS = len(SURFACES), 12, 64
STOPS = (b'bab', b'aaa', b'bb')
PARAMS = tuple(
  tabular.init_params(jax.random.key(seed), V, order).at[..., 1].add(-1.5)
  for seed, order in ((1, 1), (2, 2))
)
MODEL = tabular.step_model(V, decoder_only=True)
ARGUMENTS = (
  jnp.full((ROWS, 1), 2),
  jax.random.split(jax.random.key(0), ROWS),
)

_letters = st.sampled_from([b'a', b'b', b'\n'])
_text = st.lists(_letters, max_size=4).map(b''.join)


def until_a_stop(tokens, stops=STOPS):
  """The tokens up to the one that completes a stop sequence, by searching."""
  for n in range(1, len(tokens) + 1):
    text = b''.join(SURFACES[token] for token in tokens[:n])
    if any(stop in text for stop in stops):
      return tokens[:n]
  return tokens


@given(
  stops=st.lists(_text.filter(bool), min_size=1, max_size=3),
  surfaces=st.lists(_text, min_size=1, max_size=6),
  data=st.data(),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_automaton_finds_what_a_search_finds(stops, surfaces, data):
  table = stopping.build(stops, surfaces, len(surfaces))
  after = np.asarray(table.after)
  tokens = st.lists(st.integers(0, len(surfaces) - 1), max_size=12)
  state, text = 0, b''
  for token in data.draw(tokens):
    state = after[state, token]
    text += surfaces[token]
    assert (state == len(after) - 1) == any(stop in text for stop in stops)


def test_ids_behind_the_vocabulary_break_a_match():
  table = stopping.build([b'ab'], [b'a', b'b'], vocab_size=3)
  found = functools.partial(stopping.follow, table, jnp.zeros((1,), jnp.int32))
  assert stopping.found(table, found(jnp.array([[0, 1]]))).tolist() == [
    [False, True]
  ]
  assert not stopping.found(table, found(jnp.array([[0, 2, 1]]))).any()


@pytest.mark.parametrize('stops', [[], [b''], [b'a', b'']])
def test_nothing_to_look_for_is_refused(stops):
  with pytest.raises(ValueError, match='stop sequences are'):
    stopping.build(stops, SURFACES, V)


def of_pair(decode, **options):
  return functools.partial(
    decode, MODEL, MODEL, *PARAMS, *ARGUMENTS, 0.3, **options
  )


@pytest.mark.parametrize(
  'decode',
  [
    functools.partial(autoregressive.decode, MODEL, PARAMS[1], *ARGUMENTS),
    of_pair(speculative.decode, rule=deferral.opt, gamma=3),
    of_pair(speculative.decode, rule=deferral.token_v3, gamma=1),
    of_pair(
      speculative.decode,
      rule=deferral.verifier_only,
      gamma=5,
      verify=sc.verify_block,
    ),
    of_pair(
      speculative.decode, rule=deferral.bild_fixed, gamma=4, fallback=0.4
    ),
    of_pair(token_cascade.decode, rule=deferral.chow),
    of_pair(token_cascade.decode, rule=deferral.diff, oracle=True),
  ],
  ids=['alone', 'opt', 'token_v3', 'block', 'bild', 'token_cascade', 'oracle'],
)
def test_a_row_is_what_it_would_have_been_up_to_its_stop(decode):
  whole = decode(max_length=LENGTH)
  table = stopping.build(STOPS, SURFACES, V)
  stopped = decode(max_length=LENGTH, stops=table)
  shorter = 0
  for row in range(ROWS):
    text = np.asarray(whole.tokens[row, : whole.lengths[row]]).tolist()
    expected = until_a_stop(text)
    n = int(stopped.lengths[row])
    assert stopped.tokens[row, :n].tolist() == expected
    assert not stopped.tokens[row, n:].any()
    shorter += n < len(text)
  # Most rows have a stop, some of them inside a block, and some have none.
  assert ROWS // 2 < shorter < ROWS
  counted = stopped.counters.accepted + stopped.counters.resampled
  assert (counted <= stopped.lengths).all()
  assert stopped.counters.deferred.sum() <= whole.counters.deferred.sum()


@pytest.mark.parametrize(
  'decode',
  [
    lambda model, **options: autoregressive.decode(
      model, PARAMS[1], *ARGUMENTS, **options
    ),
    lambda model, **options: speculative.decode(
      *(model, model, *PARAMS, *ARGUMENTS, 0.3),
      **options,
      rule=deferral.opt,
      gamma=3,
    ),
    lambda model, **options: token_cascade.decode(
      *(model, model, *PARAMS, *ARGUMENTS, 0.3), **options, rule=deferral.chow
    ),
  ],
  ids=['alone', 'opt', 'token_cascade'],
)
def test_a_row_ends_at_the_first_of_several_ends(decode):
  """As an instruction-tuned Gemma's, which has an end of turn besides."""
  whole, cut = (
    decode(tabular.step_model(V, True, ends), max_length=LENGTH)
    for ends in ((1,), (1, 5))
  )
  shorter = 0
  for row in range(ROWS):
    tokens = whole.tokens[row, : whole.lengths[row]].tolist()
    n = tokens.index(5) + 1 if 5 in tokens else len(tokens)
    assert cut.lengths[row] == n
    assert cut.tokens[row].tolist() == tokens[:n] + [0] * (LENGTH - n)
    shorter += n < len(tokens)
  assert 0 < shorter < ROWS


def test_a_sequence_cascade_judges_the_stopped_text():
  table = stopping.build(STOPS, SURFACES, V)
  alone = autoregressive.decode(
    MODEL, PARAMS[0], *ARGUMENTS, max_length=LENGTH, stops=table, trace=True
  )
  sure = sequence_cascade.confidence(alone.verifier_probs, alone.lengths)
  alpha = 1 - float(jnp.exp(jnp.median(sure)))
  defers = jnp.exp(sure) < 1 - alpha
  out = sequence_cascade.decode(
    *(MODEL, MODEL, *PARAMS, *ARGUMENTS, alpha), max_length=LENGTH, stops=table
  )
  assert 0 < defers.sum() < ROWS
  kept = np.flatnonzero(~np.asarray(defers))
  np.testing.assert_array_equal(out.tokens[kept], alone.tokens[kept])
  assert ((out.counters.verifier_calls == 0) == ~defers).all()
  for row in np.flatnonzero(defers):
    tokens = out.tokens[row, : out.lengths[row]].tolist()
    assert until_a_stop(tokens) == tokens


def test_texts_are_cut_in_front_of_the_stop():
  pair = sc.load_pair('debian')
  sources = [
    'translate English to German: It is a text editor, and a viewer.',
    'translate English to German: This package has the documentation.',
  ]
  whole = pair.generate(sources, max_length=32)
  words = whole.texts[0].split()
  stop = ' '.join(words[2:4])[1:-1]  # Begins and ends inside of words.
  stopped = pair.generate(sources, max_length=32, stop=[stop, 'no such text'])
  assert stopped.texts[0] == whole.texts[0][: whole.texts[0].index(stop)]
  assert stopped.texts[1] == whole.texts[1]
  assert stopped.lengths[0] < whole.lengths[0]
  calls = 'verifier_calls'
  assert stopped.stats[calls][0] < whole.stats[calls][0]
  # A text alone is one stop, not one a letter.
  assert pair.generate(sources, max_length=32, stop=stop).texts == stopped.texts
  with pytest.raises(ValueError, match='ends nothing'):
    pair.generate(sources, stop=['x', ''])


def test_surfaces_add_up_to_the_text():
  vocabulary = sc.load_pair('debian').vocabulary
  for text in ('Größe: 7 % of it, «quoted»', 'plain text'):
    surfaces = [vocabulary.surfaces[i] for i in vocabulary.encode(text)]
    assert b''.join(surfaces).decode() == ' ' + vocabulary.decode(
      vocabulary.encode(text)
    )
