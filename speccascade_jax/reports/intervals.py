"""Intervals from the bootstrap replicates that a sweep has stored.

Replicate r of every run of a sweep is of the same examples, so that whatever
is computed from replicates r alone (a difference of two runs, a mean over
trials, a point between two points of a curve) is replicate r of the outcome.
An infinite replicate stands for something that was not reached in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math

# By name: 'quality.METRIC', 'relative_latency', 'modelled_relative_latency'.
Replicates = Mapping[str, tuple[float, ...]]

_OUTER = 0.025  # Of the replicates, on either side of an interval.


@dataclasses.dataclass(frozen=True)
class Interval:
  """The middle 95 % of the replicates."""

  low: float
  high: float


def mean(trials: Sequence[Replicates]) -> dict[str, tuple[float, ...]]:
  """Replicates of the trials' mean, of what every trial has as many of."""
  names = [
    name
    for name, values in trials[0].items()
    if {len(trial.get(name, ())) for trial in trials} == {len(values)}
  ]
  return {
    name: tuple(
      sum(values) / len(trials)
      for values in zip(*(trial[name] for trial in trials), strict=True)
    )
    for name in names
  }


def interval(replicates: Sequence[float] | None) -> Interval | None:
  """The interval, its ends interpolated as numpy's percentiles are."""
  if not replicates:
    return None
  ordered = sorted(replicates)
  return Interval(_quantile(ordered, _OUTER), _quantile(ordered, 1 - _OUTER))


def difference(
  replicates: Sequence[float] | None, others: Sequence[float] | None
) -> Interval | None:
  """The interval of a paired difference; None if either has no replicates."""
  if not replicates or not others or len(replicates) != len(others):
    return None
  return interval([a - b for a, b in zip(replicates, others, strict=True)])


def _quantile(ordered: Sequence[float], share: float) -> float:
  place = share * (len(ordered) - 1)
  low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
  if low == high:  # Both may be infinite.
    return low
  return low + (place - math.floor(place)) * (high - low)
