"""Metrics of text by seqio's convention: metric_fn(targets, predictions).

Every function takes two lists of texts, of the same length and order, and
returns values by name, all of them percentages. The libraries are imported
where they are used, as each takes a while.
"""

from __future__ import annotations

from collections.abc import Sequence

import seqio


class Signature(str, seqio.metrics.Text):
  """How a value came about: a text to JSON, a `Text` to seqio's loggers."""


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


def rouge(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """ROUGE-1, ROUGE-2 and ROUGE-L of rouge-score, with stemming.

  F-measures, averaged over the examples. T5's task reports ROUGE-L by
  sentence (Lsum) for summaries of several; a synopsis is a single one.

  Returns:
    {'rouge1': 0 to 100, 'rouge2': 0 to 100, 'rougeL': 0 to 100}.

  Raises:
    ValueError: if there are no texts, or not one prediction a target.
  """
  from rouge_score import rouge_scorer

  _check(targets, predictions)
  names = ['rouge1', 'rouge2', 'rougeL']
  scorer = rouge_scorer.RougeScorer(names, use_stemmer=True)
  scores = [scorer.score(t, p) for t, p in zip(targets, predictions)]
  return {
    name: 100 * sum(score[name].fmeasure for score in scores) / len(scores)
    for name in names
  }


def _sacrebleu(
  name: str, metric, targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float | Signature]:
  _check(targets, predictions)
  score = metric.corpus_score(list(predictions), [list(targets)]).score
  signature = str(metric.get_signature())
  return {name: score, f'{name}_signature': Signature(signature)}


def _check(targets: Sequence[str], predictions: Sequence[str]) -> None:
  if not targets or len(targets) != len(predictions):
    raise ValueError(
      f'{len(targets)} targets and {len(predictions)} predictions: there must '
      'be as many, and at least one.'
    )
