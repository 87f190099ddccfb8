"""Intervals of replicates, of their differences and of trials' means."""

import math
import statistics

import pytest

from speccascade_jax.reports import intervals


def test_the_middle_ninety_five_percent():
  assert intervals.interval(range(41)) == intervals.Interval(1.0, 39.0)
  values = [0.3, 2.0, -1.0, 7.5, 4.0, 4.1]
  cuts = statistics.quantiles(values, n=40, method='inclusive')
  found = intervals.interval(values)
  assert (found.low, found.high) == pytest.approx((cuts[0], cuts[-1]))
  assert intervals.interval([]) is intervals.interval(None) is None


def test_what_is_not_reached_is_an_infinite_end():
  missed = [1.0] * 90 + [math.inf] * 10
  assert intervals.interval(missed) == intervals.Interval(1.0, math.inf)
  few = [1.0] * 99 + [math.inf]
  assert intervals.interval(few) == intervals.Interval(1.0, 1.0)
  none = [-math.inf] * 5
  assert intervals.interval(none) == intervals.Interval(-math.inf, -math.inf)


def test_equal_runs_differ_by_exactly_nothing():
  values = [20.1, 18.333333, 0.1]
  found = intervals.difference(values, list(values))
  assert found == intervals.Interval(0.0, 0.0)
  # Pairs, not intervals, are subtracted.
  shifted = [value + 1 for value in values]
  assert intervals.difference(shifted, values).low == pytest.approx(1.0)
  assert intervals.difference(values, values[:2]) is None
  assert intervals.difference(values, None) is None


def test_trials_are_averaged_replicate_by_replicate():
  trials = [{'a': (1.0, 2.0), 'b': (1.0,)}, {'a': (3.0, 6.0)}]
  assert intervals.mean(trials) == {'a': (2.0, 4.0)}
  # Trials of two starts that asked for different numbers of replicates.
  assert intervals.mean([{'a': (1.0, 2.0)}, {'a': (3.0,)}]) == {}
