"""Whether models are right as often as they say, and what makes them so.

A rule such as Chow's takes `max q` for the probability that the drafter is
right. Of all positions where it says 0.7 the likeliest token should then be
the reference's in 70 %: a *reliability diagram* shows by how much it is not,
and the *expected calibration error* (ECE; Naeini et al., 2015) is the mean
distance, positions weighted equally::

  ECE = sum_b n_b / N  | accuracy_b - confidence_b |      b: bins of confidence

*Temperature scaling* (Guo et al., 2017) divides a model's logits by the one
number at which held-out texts are likeliest. It moves no arg max; here it moves
confidences alone, never what is sampled. What it minimises is the surprisal of
all tokens, not the ECE, which is of the likeliest token: that may well rise.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np
from scipy import interpolate
from scipy import optimize

from speccascade_jax.evaluation import bootstrap

BINS = 15  # As in Guo et al.
# Where the temperature is looked for: 9 % apart, which a spline bridges.
GRID = tuple(float(f'{t:.6g}') for t in np.geomspace(0.25, 4.0, 33))


@dataclasses.dataclass(frozen=True)
class Judged:
  """What a model says of E texts of N tokens in all, at K temperatures."""

  temperatures: tuple[float, ...]
  tokens: np.ndarray  # [E] int, of each text.
  truncated: np.ndarray  # [E] bool, the text or its source was cut.
  surprisal: np.ndarray  # [E, K] nats, sum over a text's tokens.
  # Of every token, in the order of the texts; without any, only `fit` is to be
  # had.
  confidence: np.ndarray  # [K, N], of the likeliest token.
  correct: np.ndarray  # [N] bool, the likeliest token is the text's own.


@dataclasses.dataclass(frozen=True)
class Fitted:
  """A model's temperature."""

  temperature: float
  interval: list[float] | None  # 95 %, over texts.


def fit(judged: Judged, counts: np.ndarray) -> Fitted:
  """The temperature at which the texts are likeliest.

  Their mean surprisal is smooth and, in 1/t, convex: a cubic spline through
  the grid has its minimum to well under 1 %.

  Args:
    judged: at the temperatures of a grid, which rises.
    counts: `[replicates, E]`, see `bootstrap.draws`. A replicate whose
      minimum lies beyond the grid counts with the grid's end.

  Raises:
    ValueError: if it lies at an end of the grid.
  """
  grid = judged.temperatures
  mean = judged.surprisal.sum(axis=0) / judged.tokens.sum()
  if not 0 < mean.argmin() < len(grid) - 1:
    raise ValueError(
      f'The texts are likeliest at temperature {grid[int(mean.argmin())]:g}, '
      f'an end of what was tried ({grid[0]:g} to {grid[-1]:g}): the model is '
      'not one of this task, or its inputs are not what it expects.'
    )
  replicates = (counts @ judged.surprisal) / (counts @ judged.tokens)[:, None]
  return Fitted(
    _likeliest(grid, mean),
    bootstrap.interval([_likeliest(grid, row) for row in replicates]),
  )


def _likeliest(grid: Sequence[float], surprisal: np.ndarray) -> float:
  """Where the curve through `surprisal [K]` is lowest, to four digits."""
  best = int(surprisal.argmin())
  at = np.log(grid)
  spline = interpolate.CubicSpline(at, surprisal)
  ends = at[max(best - 1, 0)], at[min(best + 1, len(at) - 1)]
  minimum = optimize.minimize_scalar(spline, bounds=ends, method='bounded')
  return float(f'{np.exp(minimum.x):.4g}')


def reliability(
  judged: Judged, index: int, counts: np.ndarray, bins: int = BINS
) -> tuple[dict[str, Any], np.ndarray]:
  """How reliable a model is at one of the temperatures.

  The ECE of a finite number of positions is above that of infinitely many, the
  more the fewer there are in a bin, and its replicates are once more above it.

  Args:
    judged: with confidences.
    index: of the temperature.
    counts: `[replicates, E]`, see `bootstrap.draws`.
    bins: of equal width, (0, 1/bins], (1/bins, 2/bins] and so on.

  Returns:
    As JSON: 'temperature', 'tokens', 'accuracy', 'confidence' and 'surprisal'
    (means; nats a token), 'ece' with 'ece_interval' (95 %, over texts; None
    without replicates), 'ece_equal_mass' with as many positions in every bin,
    and 'bins', each {'low', 'high', 'tokens', 'confidence', 'accuracy'}. And
    the replicates of the ECE, `[replicates]`.
  """
  confidence = judged.confidence[index].astype(np.float64)
  right = judged.correct.astype(np.float64)
  edges = np.linspace(0.0, 1.0, bins + 1)
  number = np.clip(np.searchsorted(edges, confidence) - 1, 0, bins - 1)
  tokens, sure, hits = (
    np.bincount(number, weights, minlength=bins)
    for weights in (np.ones_like(right), confidence, right)
  )
  order = np.argsort(confidence, kind='stable')
  equal = np.empty(len(order), np.int64)
  equal[order] = np.arange(len(order)) * bins // len(order)
  gap = np.bincount(equal, right - confidence, minlength=bins)
  replicates = _replicates(judged, number, right - confidence, counts, bins)
  return {
    'temperature': judged.temperatures[index],
    'tokens': len(right),
    'accuracy': float(right.mean()),
    'confidence': float(confidence.mean()),
    'surprisal': float(judged.surprisal[:, index].sum() / len(right)),
    # |sum of differences| is n_b |difference of means|.
    'ece': float(np.abs(hits - sure).sum() / len(right)),
    'ece_interval': bootstrap.interval(replicates),
    'ece_equal_mass': float(np.abs(gap).sum() / len(right)),
    'bins': [
      {
        'low': float(edges[b]),
        'high': float(edges[b + 1]),
        'tokens': int(n),
        'confidence': float(sure[b] / n) if n else None,
        'accuracy': float(hits[b] / n) if n else None,
      }
      for b, n in enumerate(tokens)
    ],
  }, replicates


def _replicates(judged, number, gap, counts, bins) -> np.ndarray:
  """The ECE, `[replicates]`, of texts drawn anew."""
  texts = len(judged.tokens)
  cell = np.repeat(np.arange(texts), judged.tokens) * bins + number
  gaps = np.bincount(cell, gap, minlength=texts * bins).reshape(texts, bins)
  return np.abs(counts @ gaps).sum(axis=1) / (counts @ judged.tokens)
