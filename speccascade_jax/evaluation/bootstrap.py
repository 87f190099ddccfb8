"""Bootstrap replicates: what a figure would be on other draws of the examples.

All runs of a sweep are resampled by the same draws. Replicate r of two runs is
therefore of the same examples, and the difference of the two is a replicate of
the difference: what the runs have in common (hard examples, long ones, and
with equal seeds the very random numbers) cancels, and two runs that wrote the
same texts differ by exactly 0 in every replicate.

With several trials, a run of each trial has replicates of its own by the same
draws. The mean of the trials' figures has the mean of their replicates: an
example is drawn together with what every trial made of it, so that intervals
have both the spread of the examples and that of the sampled tokens and times,
the latter the smaller the more trials there are. A drift that lasts for a
whole trial is not in them.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import numpy as np

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import scoring

# More would be digits of chance: 1,000 replicates tell the ends of an interval
# to about a tenth of its width.
_DIGITS = 6


def draws(num_examples: int, replicates: int, seed: int) -> np.ndarray:
  """How often each replicate has each example: `[replicates, examples]`.

  Drawn with replacement, as many as there are; the same for equal arguments.
  """
  generator = np.random.default_rng((num_examples, replicates, seed))
  even = np.full(num_examples, 1 / num_examples)
  return generator.multinomial(num_examples, even, size=replicates)


def quality(
  metric_fns: Sequence[base.MetricFn],
  targets: Sequence[Any],
  predictions: Sequence[str],
  counts: np.ndarray,
  *,
  recompute: bool = False,
) -> dict[str, list[float]]:
  """Replicates of every metric that has them, by name.

  A metric with an attribute `statistics`, see `base.Statistics`, is resampled
  by those: a product of matrices. A plain function would have to score every
  replicate's texts anew, which it does on request.

  Args:
    metric_fns: see `base.MetricFn`.
    targets: one an example.
    predictions: likewise.
    counts: see `draws`.
    recompute: also resample the metrics without statistics, in as many calls
      as there are replicates. Otherwise they are left out.

  Returns:
    Replicates in the order of `counts`. A metric that is not defined on some
    of them (is NaN, say) is left out.
  """
  found: dict[str, list[float]] = {}
  if not len(counts):
    return found
  for metric_fn in metric_fns:
    resample = getattr(metric_fn, 'statistics', None)
    if resample is not None:
      statistics = resample(list(targets), list(predictions))
      # In float64 the sums of counts of n-grams are exact.
      sums = counts.astype(np.float64) @ np.asarray(statistics.rows, np.float64)
      values = [statistics.finish(row, len(predictions)) for row in sums]
    elif recompute:
      values = [
        scoring.score(
          [metric_fn],
          [targets[i] for i in chosen],
          [predictions[i] for i in chosen],
        )[0]
        for chosen in map(_chosen, counts)
      ]
    else:
      continue
    for name in values[0]:
      replicates = [float(value[name]) for value in values]
      if all(map(math.isfinite, replicates)):
        found[name] = replicates
  return found


def ratio(
  numerator: np.ndarray, denominator: np.ndarray, counts: np.ndarray
) -> list[float]:
  """Replicates of a ratio of means over the same examples.

  Args:
    numerator: `[examples]`.
    denominator: `[examples]`, above 0.
    counts: see `draws`.
  """
  weights = counts.astype(np.float64)
  return ((weights @ numerator) / (weights @ denominator)).tolist()


def interval(
  replicates: Sequence[float] | np.ndarray,
) -> list[float] | None:
  """The middle 95 % of the replicates: [low, high]; None without any."""
  if not len(replicates):
    return None
  return np.percentile(replicates, [2.5, 97.5]).tolist()


def rounded(replicates: Sequence[float]) -> list[float]:
  """Short enough to store by the thousand; equal values stay equal."""
  return [float(f'{value:.{_DIGITS}g}') for value in replicates]


def _chosen(counts: np.ndarray) -> np.ndarray:
  """Positions of one replicate's examples, `[examples]`."""
  return np.repeat(np.arange(len(counts)), counts)
