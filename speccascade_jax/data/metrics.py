"""Metrics of text by seqio's convention: metric_fn(targets, predictions).

Every function takes two lists of texts, of the same length and order, and
returns values by name, all of them percentages. The libraries are imported
where they are used, as each takes a while.

A metric's attribute `statistics` is a function of the same arguments that
tells what each example adds to the value, see `Statistics`: sweeps resample it
for their intervals. It is not required of a metric; `statistics_of` gives it
to one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, TypeVar

import numpy as np
import seqio

_Metric = TypeVar('_Metric', bound=Callable[..., Any])


class Signature(str, seqio.metrics.Text):
  """How a value came about: a text to JSON, a `Text` to seqio's loggers."""


@dataclasses.dataclass(frozen=True)
class Statistics:
  """What every example adds to a metric.

  Attributes:
    rows: [examples, S] numbers that add up over examples.
    finish: (sums [S] over some examples, how many) -> {name: value}.
  """

  rows: np.ndarray
  finish: Callable[[np.ndarray, int], Mapping[str, float]]


def statistics_of(
  statistics: Callable[[Sequence[Any], Sequence[str]], Statistics],
) -> Callable[[_Metric], _Metric]:
  """Decorates a metric with the function that gives its `Statistics`."""

  def attach(metric_fn: _Metric) -> _Metric:
    setattr(metric_fn, 'statistics', statistics)  # noqa: B010 - for mypy.
    return metric_fn

  return attach


def _bleu_statistics(targets, predictions) -> Statistics:
  from sacrebleu.metrics import BLEU

  return _sacrebleu_statistics('bleu', BLEU(), targets, predictions)


def _chrf_statistics(targets, predictions) -> Statistics:
  from sacrebleu.metrics import CHRF

  return _sacrebleu_statistics('chrf', CHRF(), targets, predictions)


def _rouge_statistics(targets, predictions) -> Statistics:
  scores = _rouge_scores(targets, predictions)
  return Statistics(
    np.array([[score[name] for name in _ROUGE] for score in scores]),
    lambda sums, count: {
      name: float(total) / count
      for name, total in zip(_ROUGE, sums, strict=True)
    },
  )


@statistics_of(_bleu_statistics)
def bleu(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float | Signature]:
  """Corpus BLEU of sacrebleu with its defaults (13a tokens, mixed case).

  Returns:
    {'bleu': 0 to 100, 'bleu_signature': sacrebleu's own}.

  Raises:
    ValueError: if there are no texts, or not one prediction a target.
  """
  from sacrebleu.metrics import BLEU

  return _sacrebleu('bleu', BLEU(), targets, predictions)


@statistics_of(_chrf_statistics)
def chrf(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float | Signature]:
  """Corpus chrF of sacrebleu with its defaults (chrF2, characters alone).

  Returns:
    {'chrf': 0 to 100, 'chrf_signature': sacrebleu's own}.

  Raises:
    ValueError: if there are no texts, or not one prediction a target.
  """
  from sacrebleu.metrics import CHRF

  return _sacrebleu('chrf', CHRF(), targets, predictions)


@statistics_of(_rouge_statistics)
def rouge(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """ROUGE-1, ROUGE-2 and ROUGE-L of rouge-score, with stemming.

  F-measures, averaged over the examples. For summaries of several sentences
  T5's task reports ROUGE-L by sentence, see `rouge_lsum`.

  Returns:
    {'rouge1': 0 to 100, 'rouge2': 0 to 100, 'rougeL': 0 to 100}.

  Raises:
    ValueError: if there are no texts, or not one prediction a target.
  """
  scores = _rouge_scores(targets, predictions)
  return {
    name: sum(score[name] for score in scores) / len(scores) for name in _ROUGE
  }


def _rouge_lsum_statistics(targets, predictions) -> Statistics:
  return Statistics(
    np.array(_rouge_lsum_scores(targets, predictions))[:, None],
    lambda sums, count: {'rougeLsum': float(sums[0]) / count},
  )


@statistics_of(_rouge_lsum_statistics)
def rouge_lsum(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """ROUGE-Lsum: ROUGE-L by sentence, for summaries of several.

  Sentences end at line breaks and, since T5's vocabulary has no line break, at
  ' . ' with a space on both sides, as CNN/DailyMail's do: T5's own division.
  Stemmed, as `rouge` is and T5's scorer is not.

  Returns:
    {'rougeLsum': 0 to 100}, the mean F-measure of the examples.

  Raises:
    ValueError: if there are no texts, or not one prediction a target.
  """
  scores = _rouge_lsum_scores(targets, predictions)
  return {'rougeLsum': sum(scores) / len(scores)}


def _rouge_lsum_scores(targets, predictions) -> list[float]:
  def lines(texts):
    return [text.replace(' . ', ' .\n') for text in texts]

  scores = _rouge_scores(lines(targets), lines(predictions), ('rougeLsum',))
  return [score['rougeLsum'] for score in scores]


_ROUGE = ('rouge1', 'rouge2', 'rougeL')


def _rouge_scores(
  targets: Sequence[str],
  predictions: Sequence[str],
  names: Sequence[str] = _ROUGE,
) -> list[dict[str, float]]:
  """F-measures of every example, in percent."""
  from rouge_score import rouge_scorer

  check_lengths(targets, predictions)
  scorer = rouge_scorer.RougeScorer(list(names), use_stemmer=True)
  scores = [scorer.score(t, p) for t, p in zip(targets, predictions)]
  return [
    {name: 100 * score[name].fmeasure for name in names} for score in scores
  ]


def _sacrebleu(
  name: str, metric, targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float | Signature]:
  check_lengths(targets, predictions)
  score = metric.corpus_score(list(predictions), [list(targets)]).score
  signature = str(metric.get_signature())
  return {name: score, f'{name}_signature': Signature(signature)}


def _sacrebleu_statistics(
  name: str, metric, targets: Sequence[str], predictions: Sequence[str]
) -> Statistics:
  """Counts and lengths of every example, as sacrebleu's own bootstrap adds."""
  check_lengths(targets, predictions)
  # Private, and what `corpus_score(n_bootstrap=...)` is made of; that itself
  # draws anew for every system, which pairs nothing.
  rows = metric._extract_corpus_statistics(list(predictions), [list(targets)])
  return Statistics(
    np.array(rows),
    lambda sums, _: {
      name: metric._compute_score_from_stats(sums.tolist()).score
    },
  )


def check_lengths(targets: Sequence[Any], predictions: Sequence[str]) -> None:
  """Refuses no texts, and others than one prediction a target."""
  if not targets or len(targets) != len(predictions):
    raise ValueError(
      f'{len(targets)} targets and {len(predictions)} predictions: there must '
      'be as many, and at least one.'
    )
