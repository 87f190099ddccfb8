"""Metrics of answers: by hand, by a naive reference, by others' figures."""

import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from speccascade_jax.data import answers
from speccascade_jax.data import metrics
from tests.references import answers as reference

_METRICS = {
  answers.gsm8k: (['#### 1', '#### 2'], ['1', '3']),
  answers.squad_v2: ([['a b', 'b c'], []], ['b', 'd']),
  answers.open_domain: ([['a b', 'b c'], ['d']], ['b', 'd']),
  metrics.rouge_lsum: (['one\ntwo two', 'a'], ['two\none', 'b']),
}

# From the data set's README, https://github.com/openai/grade-school-math.
_SOLUTION = (
  'Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = '
  '<<48+24=72>>72 clips altogether in April and May.\n#### 72'
)


@pytest.mark.parametrize(
  ('target', 'prediction', 'right'),
  [
    (_SOLUTION, 'She sold 48 + 24 = 72 clips. The answer is 72.', True),
    (_SOLUTION, _SOLUTION, True),
    (_SOLUTION, 'The answer is 24.', False),
    ('#### 1,234', 'The answer is 1234', True),
    ('1234', 'the answer is $1,234.', True),
    ('#### 18', 'The answer is 18.00 dollars.', True),
    ('#### 18', 'The answer is 18.01', False),
    ('#### -5', 'The answer is -5.', True),
    ('#### -5', 'The answer is -$5.', True),
    ('#### -5', 'The answer is $-5.', True),
    ('#### -5', 'The answer is \u22125.', True),
    ('#### 5', 'The answer is -5.', False),
    ('#### 50', 'The answer is 50%.', True),
    ('#### 0.5', 'The answer is .5', True),
    ('#### 7', 'The answer is **7**', True),
    ('#### 7', r'The answer is \boxed{7}', True),
    ('#### 7', r'The answer is $\$7$.', True),
    # The first number behind the words, whatever follows.
    ('#### 8', 'The answer is 8.\n\nQ: 3?\nA: The answer is 3.', True),
    ('#### 8', 'The answer is not easy.\nSo: the answer is: 8 of 9', True),
    ('#### 8', 'The answer is unknown.\n#### 8\n9', True),
    # In other words.
    ('#### 18', 'The final answer is 18 dollars for 3 days.', True),
    ('#### 18', '**Final Answer:** $18 for 3 days', True),
    ('#### 18', 'So my answer is 18, of 20.', True),
    # Behind these a model begins to think, or goes on.
    ('#### 7', 'Answer: 3 and 4 make 7.', True),
    ('#### 7', 'For the final answer add 3 and 4: 7', True),
    # No words: the last number, and a difference is not a sign.
    ('#### 3', '10-7 = 3', True),
    ('#### 7', '3 from 10-7', True),
    ('#### 3', 'It is 2, then 3.', True),
    ('#### 3', '', False),
    ('#### 3', 'three', False),
    # What a float would confuse.
    ('#### 9007199254740993', 'The answer is 9007199254740992', False),
  ],
)
def test_gsm8k_by_hand(target, prediction, right):
  found = answers.gsm8k([target], [prediction])
  assert found == {'gsm8k_accuracy': 100.0 * right}


_NUMBERS = st.decimals(-(10**9), 10**9, allow_nan=False, places=2)


@hypothesis.given(
  _NUMBERS,
  _NUMBERS,
  st.sampled_from(['{:,}', '${:,}', '{}', '{:.3f}', '{:,}%', '\u20ac{}']),
  st.sampled_from(['.', '', ' apples.', ', not 4.', '\n']),
)
@hypothesis.settings(max_examples=100, deadline=None)
def test_gsm8k_finds_a_number_however_it_is_written(number, other, form, end):
  text = f'First {other}. The answer is {form.format(number)}{end}'
  assert answers.final_number(text) == number
  assert answers.gsm8k([f'x\n#### {number:,}'], [text])['gsm8k_accuracy'] == 100
  wrong = answers.gsm8k([f'#### {number + 1}'], [text])
  assert wrong['gsm8k_accuracy'] == 0


def test_a_solution_without_a_number_is_named():
  with pytest.raises(ValueError, match="'#### none' has no number"):
    answers.gsm8k(['#### none'], ['1'])


# qa_utils_test.py of text-to-text-transfer-transformer.
@pytest.mark.parametrize(
  ('text', 'form'),
  [
    (
      "`Needs\tA_LOT of the 'normalization'.\"\u2018",
      'needs alot of normalization\u2018',
    ),
    ('needs no normalization', 'needs no normalization'),
    ('The-end of an A.', 'theend of'),
    ('Another  theory, a', 'another theory'),
  ],
)
def test_normalisation_by_published_cases(text, form):
  assert answers.normalized(text) == form
  assert reference.normalized(text) == form


# metrics_test.py and qa_utils_test.py of the same.
@pytest.mark.parametrize(
  ('targets', 'predictions', 'em', 'f1'),
  [
    (
      [['big moose', 'hippo'], ['correct1']]
      + [['correct2.1', 'correct2.2'], ['a', 'b']],
      ['\u2018a big  Moose!\u2018', 'wrong', 'correct2.2', 'c'],
      *(25, 35),
    ),
    ([['abc abd', '$$$$']], ['abd'], 0, 200 / 3),
    ([['', 'this is a string']], ['this is a string'], 100, 100),
    ([['this is a string']] * 2, ['', ''], 0, 0),
  ],
)
def test_published_cases_of_t5(targets, predictions, em, f1):
  found = answers.open_domain(targets, predictions)
  assert found == pytest.approx({'exact_match': em, 'f1': f1})
  squad = answers.squad_v2(targets, predictions)
  assert squad['squad_has_answer_em'] == pytest.approx(em)
  assert squad['squad_has_answer_f1'] == pytest.approx(f1)


def test_squad_by_hand():
  targets = [['the cat sat'], ['red', 'dark red'], [], [], [], ['no answer']]
  predictions = ['A cat', 'Dark red.', 'Unanswerable.', 'blue', '', 'N/A']
  # F1: precision 1, recall 1/2 is 2/3; exact; right; wrong; right; wrong, as
  # it is taken for no answer.
  found = answers.squad_v2(targets, predictions)
  assert found == pytest.approx(
    {
      'squad_em': 300 / 6,
      'squad_f1': 100 * (2 / 3 + 1 + 1 + 1) / 6,
      'squad_has_answer_em': 100 / 3,
      'squad_has_answer_f1': 100 * (2 / 3 + 1) / 3,
      'squad_no_answer_accuracy': 200 / 3,
    }
  )


def test_squad_without_questions_of_a_kind():
  found = answers.squad_v2([['a b']], ['a b'])
  assert found['squad_has_answer_em'] == 100
  assert math.isnan(found['squad_no_answer_accuracy'])
  found = answers.squad_v2([[]], ['nothing of the kind'])
  assert found['squad_no_answer_accuracy'] == 0
  assert math.isnan(found['squad_has_answer_f1'])


def test_what_says_that_there_is_no_answer_can_be_chosen():
  said = answers.squad_v2([[]], ['Keine Antwort!'], no_answer={'keine antwort'})
  assert said['squad_no_answer_accuracy'] == 100
  assert answers.squad_v2([[]], ['Keine Antwort!'])['squad_em'] == 0


# Few words, so that texts share some; punctuation and articles between them.
_TEXTS = st.lists(
  st.sampled_from(
    ['the', 'a', 'An', 'cat', 'Cat', 'red', 'red.', '-', '!', 'x-y', 'theory']
    + ['\u2026', 'the\u2026cat', '\u00c4', "cat's", '\u3000', '18', 'one two']
  ),
  max_size=5,
).map(' '.join)
_BATCHES = st.lists(
  st.tuples(st.lists(_TEXTS, max_size=3), _TEXTS), min_size=1, max_size=6
)


@hypothesis.given(_BATCHES)
@hypothesis.settings(max_examples=200, deadline=None)
def test_squad_is_that_of_the_reference(batch):
  targets, predictions = map(list, zip(*batch))
  ours = answers.squad_v2(targets, predictions)
  # The rest of the metric, what a model says for "no answer", is not SQuAD's.
  given = [answers.answer_text(text) for text in predictions]
  theirs = reference.squad_v2(targets, given)
  for name, key in {
    'squad_em': 'exact',
    'squad_f1': 'f1',
    'squad_has_answer_em': 'HasAns_exact',
    'squad_has_answer_f1': 'HasAns_f1',
    'squad_no_answer_accuracy': 'NoAns_exact',
  }.items():
    expected = theirs.get(key, float('nan'))
    assert ours[name] == pytest.approx(expected, nan_ok=True)


@hypothesis.given(_BATCHES)
@hypothesis.settings(max_examples=100, deadline=None)
def test_open_domain_is_that_of_the_reference(batch):
  targets = [aliases or ['x'] for aliases, _ in batch]
  predictions = [text for _, text in batch]
  given = [answers.answer_text(text) for text in predictions]
  found = answers.open_domain(targets, predictions)
  for name, score in (('exact_match', reference.exact), ('f1', reference.f1)):
    best = [
      max(score(alias, text) for alias in aliases)
      for aliases, text in zip(targets, given)
    ]
    assert found[name] == pytest.approx(100 * np.mean(best))


@pytest.mark.parametrize(
  ('prediction', 'answer'),
  [
    ('Paris', 'Paris'),
    ('\n  Paris \n\nQ: And Rome?', 'Paris'),
    ('Answer: Paris', 'Paris'),
    ('answer : Paris\nwhich is', 'Paris'),
    ('A: Paris', 'Paris'),
    ('Answer:\nParis\nRome', 'Paris'),
    ('The answer is Paris.', 'Paris.'),
    ('A cat', 'A cat'),
    ('Answers vary', 'Answers vary'),
    ('Answer:', ''),
    (' \n', ''),
    ('', ''),
  ],
)
def test_the_answer_in_a_text(prediction, answer):
  assert answers.answer_text(prediction) == answer


@pytest.mark.parametrize('metric', _METRICS)
def test_statistics_are_of_the_metric(metric):
  targets, predictions = _METRICS[metric]
  statistics = metric.statistics(targets, predictions)
  assert statistics.rows.shape[0] == 2
  for chosen in ([0, 1], [0], [1], [0, 0, 1]):
    found = metric(
      [targets[i] for i in chosen], [predictions[i] for i in chosen]
    )
    sums = statistics.rows[chosen].sum(axis=0)
    resampled = statistics.finish(sums, len(chosen))
    assert dict(resampled) == pytest.approx(found, nan_ok=True)


@pytest.mark.parametrize('metric', _METRICS)
def test_unequal_or_no_texts(metric):
  targets, predictions = _METRICS[metric]
  with pytest.raises(ValueError, match='2 targets and 1 predictions'):
    metric(targets, predictions[:1])
  with pytest.raises(ValueError, match='0 targets'):
    metric([], [])


def test_a_bare_text_is_no_list_of_answers():
  for metric in (answers.squad_v2, answers.open_domain):
    with pytest.raises(ValueError, match="Target 1 is 'Paris'"):
      metric([['Rome'], 'Paris'], ['a', 'b'])
  with pytest.raises(ValueError, match='Target 0 has no answer'):
    answers.open_domain([[]], ['a'])


def test_rouge_lsum_by_hand():
  # By sentence, the order of sentences does not count, that of words does.
  target = 'the cat sat . a dog ran'
  swapped = 'a dog ran . the cat sat'
  found = metrics.rouge_lsum([target], [swapped])['rougeLsum']
  assert found == pytest.approx(100)
  assert metrics.rouge([target], [swapped])['rougeL'] == pytest.approx(50)
  # Lin's example of union LCS: 4 of 5 words by two sentences of 4 and 5.
  found = metrics.rouge_lsum(
    ['w1 w2 w3 w4 w5'], ['w1 w2 w6 w7\nw1 w3 w8 w9 w5']
  )
  precision, recall = 4 / 9, 4 / 5
  expected = 200 * precision * recall / (precision + recall)
  assert found['rougeLsum'] == pytest.approx(expected)


_WORDS = st.lists(st.sampled_from('mop kit bun fog'.split()), max_size=4)
_SUMMARIES = st.lists(_WORDS, min_size=1, max_size=3)


@hypothesis.given(_SUMMARIES, _SUMMARIES, st.sampled_from(['\n', ' . ']))
@hypothesis.settings(max_examples=100, deadline=None)
def test_rouge_lsum_is_that_of_the_reference(target, prediction, end):
  texts = [
    end.join(map(' '.join, [s for s in text if s] or [[]]))
    for text in (target, prediction)
  ]
  found = metrics.rouge_lsum(texts[:1], texts[1:])['rougeLsum']
  expected = 100 * reference.rouge_lsum(target, prediction)
  assert found == pytest.approx(expected)
