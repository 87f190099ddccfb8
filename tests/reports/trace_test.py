"""The trace page: boxes, words, hover texts, escaping."""

import html
import math
import re

import pytest

from speccascade_jax import base
from speccascade_jax.reports import trace

_PIECES = ('▁Ein', '▁Text', 'editor', '.', '</s>')


def _row(**changes):
  fields = dict(
    source='A text editor.',
    text='Ein Texteditor.',
    pieces=_PIECES,
    provenance=(1, 1, 2, 3, 1),
    drafter_probs=(0.91, 0.5, 0.00001, math.nan, 1.0),
    verifier_probs=(0.95, 0.042, 0.8, 0.7, 0.9999),
    counters={'verifier_calls': 2, 'accepted': 3, 'deferral_rate': math.nan},
  )
  return trace.Row(**fields | changes)


def _tokens(text):
  """(leading space, classes, hover lines, box) of every token."""
  found = re.findall(
    r'( *)<span class="(token [^"]*)" tabindex="0" data-tip="([^"]*)">([^<]*)<',
    text,
  )
  return [
    (space, classes.split()[1:], html.unescape(tip).split('\n'), box)
    for space, classes, tip, box in found
  ]


def test_provenance_is_that_of_the_loops():
  assert (trace.DRAFTER, trace.RESAMPLED, trace.VERIFIER) == (
    base.Provenance.DRAFTER,
    base.Provenance.RESAMPLED,
    base.Provenance.VERIFIER,
  )


def test_tokens_are_coloured_and_stand_as_words():
  tokens = _tokens(trace.render([_row()], {}))
  assert [t[1][0] for t in tokens] == [
    *('drafter', 'drafter', 'resampled', 'verifier', 'drafter'),
  ]
  assert ''.join(t[0] + t[3] for t in tokens) == 'Ein Texteditor.end'
  assert tokens[-1][1] == ['drafter', 'special']


def test_the_hover_text_has_both_probabilities():
  tips = [t[2] for t in _tokens(trace.render([_row()], {}))]
  assert tips[1] == [
    '2. “▁Text”',
    'Drafter: drafted, and kept',
    'drafter: 50.0%',
    'verifier: 4.20%',
  ]
  assert 'drafter: < 0.01%' in tips[2]
  assert 'drafter: did not score it' in tips[3]
  assert tips[4][0] == '5. end of sequence'
  assert tips[4][2:] == ['drafter: 100.00%', 'verifier: 99.99%']


def test_without_probabilities_the_hover_text_is_short():
  page = trace.render([_row(drafter_probs=None, verifier_probs=None)], {})
  assert [len(t[2]) for t in _tokens(page)] == [2] * 5


def test_bytes_name_the_character_they_belong_to():
  pieces = ('▁', '<0xE4>', '<0xBD>', '<0xA0>', '<0x41>', 'x', '<0xFF>')
  row = _row(
    pieces=pieces,
    provenance=(1,) * 7,
    drafter_probs=None,
    verifier_probs=None,
  )
  tokens = _tokens(trace.render([row], {}))
  assert [t[3] for t in tokens] == ['␣', 'E4', 'BD', 'A0', '41', 'x', 'FF']
  firsts = [t[2][0] for t in tokens]
  assert firsts[1:5] == [
    "2. byte 0xE4 of '你'",
    "3. byte 0xBD of '你'",
    "4. byte 0xA0 of '你'",
    "5. byte 0x41 of 'A'",
  ]
  assert firsts[6] == '7. byte 0xFF'


def test_counters_are_shown_and_missing_ones_left_out():
  page = trace.render([_row()], {'alpha': 0.2, 'top_k': None, 'rule': 'opt'})
  assert '<li>2 verifier calls</li>' in page and '<li>5 tokens</li>' in page
  assert 'deferred' not in page and 'top_k' not in page
  assert '<span>alpha <b>0.2</b></span>' in page


def test_the_legend_is_that_of_the_model():
  both = trace.render([_row()], {})
  assert 'drawn in place of a rejected draft' in both
  row = _row(provenance=(3,) * 5)
  alone = trace.render([row], {}, model='verifier')
  assert 'the verifier decodes alone' in alone
  assert 'rejected draft' not in alone and 'drafter decodes' not in alone


def test_hostile_text_is_shown_and_not_run():
  hostile = '"><script>alert(1)</script>'
  row = _row(source=hostile, text=hostile, pieces=(hostile, *_PIECES[1:]))
  page = trace.render([row], {hostile: hostile})
  assert page.count('<script>') == trace.render([_row()], {}).count('<script>')
  assert '&lt;script&gt;alert(1)&lt;/script&gt;' in page
  assert hostile not in page
  assert "default-src 'none'" in page and not re.search('https?:', page)


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    (dict(provenance=(1, 1)), 'provenance has 2 entries for 5 pieces'),
    (dict(drafter_probs=(0.5,)), 'drafter_probs has 1 entries'),
    (dict(provenance=(1, 1, 2, 3, 0)), r'provenance \[0\] is none of'),
  ],
)
def test_lists_that_do_not_fit_are_refused(changes, said):
  with pytest.raises(ValueError, match=said):
    _row(**changes)
