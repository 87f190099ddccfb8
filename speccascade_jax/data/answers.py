"""Metrics of answers to questions, by the convention of `metrics`.

Predictions are a model's texts as they are, cut at stop sequences; what of
them is the answer is each metric's own business and said there. All values are
in percent, and every metric has `statistics`.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Sequence
import decimal
import re
import string

import numpy as np

from speccascade_jax.data import metrics

# A minus is a sign where nothing stands before it that it could be taken from.
_NUMBER = re.compile(
  r'(?P<sign>(?<![\w)\].])[-\u2212])?(?:\\?\$\s?(?P<minus>[-\u2212])?)?'
  r'(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?'
  r'|(?<![0-9])\.[0-9]+)'
)
_MARKS = (
  # 'The final answer is', '**Final answer:**'; not 'Answer:' alone, behind
  # which a model may begin to think.
  re.compile(r'\banswer is\b|\bfinal answer[*_ ]*:', re.IGNORECASE),
  re.compile('####'),
)

# What says, once normalised, that a question has no answer: the empty text of
# SQuAD's own format, and what prompts commonly ask for.
NO_ANSWER = frozenset(
  {
    '',
    'unanswerable',
    'question is unanswerable',
    'not answerable',
    'no answer',
    'na',  # N/A
  }
)

_PREFIX = re.compile(
  r'(?:answer\s*:|a\s*:|the answer is\b\s*:?)', re.IGNORECASE
)
_ARTICLES = re.compile(r'\b(?:a|an|the)\b')
_PUNCTUATION = str.maketrans('', '', string.punctuation)


def _gsm8k_statistics(targets, predictions) -> metrics.Statistics:
  metrics.check_lengths(targets, predictions)
  rows = []
  for target, prediction in zip(targets, predictions, strict=True):
    wanted = final_number(target.rpartition('####')[2])
    if wanted is None:
      raise ValueError(
        f'The target {target!r} has no number: GSM8K solutions end in a line '
        'like "#### 72".'
      )
    rows.append([100.0 * (final_number(prediction) == wanted)])
  return _means(('gsm8k_accuracy',), rows)


@metrics.statistics_of(_gsm8k_statistics)
def gsm8k(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """Share of the word problems whose number is right.

  Args:
    targets: the data set's solutions, which end in a line like '#### 1,234',
      or bare numbers.
    predictions: chains of thought, see `final_number`.

  Returns:
    {'gsm8k_accuracy': 0 to 100}.

  Raises:
    ValueError: if a target has no number, there are no texts, or not one
      prediction a target.
  """
  return _of_all(_gsm8k_statistics(targets, predictions))


def final_number(text: str) -> decimal.Decimal | None:
  """The number that a chain of thought comes to; None if it has none.

  The first behind '[The final] answer is' or 'Final answer:', else the first
  behind '####' (each from its first place that a number follows), else the
  last of the text. Dollars, percent signs, thousands' commas and a period at
  the end do not count, and 18.00 is 18. An expression is not computed: 'The
  answer is 3 + 4' is 3.

  There is no one way to read an answer. GSM8K's authors take the first behind
  '#### ', the style of their solutions. EleutherAI's harness has two figures
  for chains of thought (task gsm8k_cot): 'strict-match', the first behind 'The
  answer is ' in just these words, and 'flexible-extract', the last number of
  the text; to both 18.00 is not 18. These two and this agree on '... The
  answer is 18.', which the prompts here ask for.
  """
  for mark in _MARKS:
    for match in mark.finditer(text):
      found = _numbers(text[match.end() :])
      if found:
        return found[0]
  found = _numbers(text)
  return found[-1] if found else None


def _numbers(text: str) -> list[decimal.Decimal]:
  found = []
  for match in _NUMBER.finditer(text):
    sign = '-' if match['sign'] or match['minus'] else ''
    found.append(decimal.Decimal(sign + match['number'].replace(',', '')))
  return found


def _squad_statistics(
  targets, predictions, *, no_answer: Collection[str] = NO_ANSWER
) -> metrics.Statistics:
  metrics.check_lengths(targets, predictions)
  rows = []
  for i, (answers, prediction) in enumerate(zip(targets, predictions)):
    _check_answers(i, answers)
    text = normalized(answer_text(prediction))
    if text in no_answer:
      text = ''
    # The official script's order: what is an answer is asked before they are
    # normalised, and those that are nothing then are left out.
    known = [known for known in map(normalized, answers) if known] or ['']
    exact, overlap = _best(known, text)
    has = bool(answers)
    rows.append(
      [exact, overlap, has, has * exact, has * overlap, (not has) * exact]
    )

  def finish(sums: np.ndarray, count: int) -> dict[str, float]:
    exact, overlap, has, has_exact, has_overlap, no_exact = map(float, sums)
    return {
      'squad_em': exact / count,
      'squad_f1': overlap / count,
      'squad_has_answer_em': _ratio(has_exact, has),
      'squad_has_answer_f1': _ratio(has_overlap, has),
      'squad_no_answer_accuracy': _ratio(no_exact, count - has),
    }

  return metrics.Statistics(np.array(rows, float), finish)


@metrics.statistics_of(_squad_statistics)
def squad_v2(
  targets: Sequence[Sequence[str]],
  predictions: Sequence[str],
  *,
  no_answer: Collection[str] = NO_ANSWER,
) -> dict[str, float]:
  """Exact match and F1 of SQuAD 2.0, as its evaluation script has them.

  Args:
    targets: the answers to each question; [] where it has none.
    predictions: texts, see `answer_text`.
    no_answer: texts, `normalized`, that say that there is no answer.

  Returns:
    {'squad_em': 0 to 100, 'squad_f1', 'squad_has_answer_em',
    'squad_has_answer_f1': of the questions that have an answer,
    'squad_no_answer_accuracy': of those that have none}; NaN where there are
    no such questions.

  Raises:
    ValueError: if a target is a bare text, there are no texts, or not one
      prediction a target.
  """
  return _of_all(_squad_statistics(targets, predictions, no_answer=no_answer))


def _open_domain_statistics(targets, predictions) -> metrics.Statistics:
  metrics.check_lengths(targets, predictions)
  rows = []
  for i, (answers, prediction) in enumerate(zip(targets, predictions)):
    _check_answers(i, answers)
    if not answers:
      raise ValueError(
        f'Target {i} has no answer: a question needs one, or several.'
      )
    text = normalized(answer_text(prediction))
    rows.append(_best([normalized(answer) for answer in answers], text))
  return _means(('exact_match', 'f1'), rows)


@metrics.statistics_of(_open_domain_statistics)
def open_domain(
  targets: Sequence[Sequence[str]], predictions: Sequence[str]
) -> dict[str, float]:
  """Exact match and F1 with the best of the aliases.

  For WebQuestions, NaturalQuestions and TriviaQA, by SQuAD's normalisation.
  (TriviaQA's own script differs in making a space of punctuation.)

  Args:
    targets: the answers to each question, aliases among them.
    predictions: texts, see `answer_text`.

  Returns:
    {'exact_match': 0 to 100, 'f1': 0 to 100}.

  Raises:
    ValueError: if a target has no answer or is a bare text, there are no
      texts, or not one prediction a target.
  """
  return _of_all(_open_domain_statistics(targets, predictions))


def answer_text(prediction: str) -> str:
  """The answer in a model's text.

  Its first line that is not blank, without 'Answer:', 'A:' or 'The answer is'
  at the start (and the line behind that, if nothing else is on it).
  """
  lines = [line.strip() for line in prediction.splitlines() if line.strip()]
  for line in lines[:2]:
    match = _PREFIX.match(line)
    rest = line[match.end() :].strip() if match else line
    if rest:
      return rest
  return ''


def normalized(text: str) -> str:
  """SQuAD's form of a text for comparisons.

  In lower case, without ASCII punctuation, the articles a, an and the, and
  white space beside single spaces between words; in this order.
  """
  text = text.lower().translate(_PUNCTUATION)
  return ' '.join(_ARTICLES.sub(' ', text).split())


def _best(answers: Sequence[str], text: str) -> tuple[float, float]:
  """Exact match and F1 with the best of the answers, all normalised."""
  exact = 100.0 * any(answer == text for answer in answers)
  return exact, 100.0 * max(_overlap(answer, text) for answer in answers)


def _overlap(answer: str, text: str) -> float:
  """F1 of the words, each as often as it occurs; of nothing, equality."""
  wanted, given = answer.split(), text.split()
  if not wanted or not given:
    return float(wanted == given)
  common = collections.Counter(wanted) & collections.Counter(given)
  return 2 * common.total() / (len(wanted) + len(given))


def _means(
  names: Sequence[str], rows: Sequence[Sequence[float]]
) -> metrics.Statistics:
  """Statistics of values that are means over the examples."""
  return metrics.Statistics(
    np.array(rows, float),
    lambda sums, count: {
      name: float(total) / count
      for name, total in zip(names, sums, strict=True)
    },
  )


def _of_all(statistics: metrics.Statistics) -> dict[str, float]:
  rows = statistics.rows
  return dict(statistics.finish(rows.sum(axis=0), len(rows)))


def _ratio(numerator: float, denominator: float) -> float:
  return numerator / denominator if denominator else float('nan')


def _check_answers(i: int, answers: Sequence[str]) -> None:
  if isinstance(answers, (str, bytes)):
    raise ValueError(
      f'Target {i} is {answers!r}; it must be a list of answers.'
    )
