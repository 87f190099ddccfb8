"""Runs beside the verifier: pairs of one start, and the cost model by hand."""

import pytest

from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import comparison
from tests.evaluation import scripted

TIMES = {
  'drafter_start': 1.0,
  'verifier_start': 5.0,
  'drafter_1': 0.5,
  'verifier_1': 2.0,
  'verifier_5': 3.0,
}
VERIFIER, DRAFTER, PAIR, _ = scripted.points()


def _row(example, ms, start=0, steps=0, calls=0):
  return {
    'example': example,
    'latency_ms': ms,
    'start': start,
    'drafter_steps': steps,
    'verifier_calls': calls,
  }


def _verifier(*rows, again=()):
  return comparison.Verifier(VERIFIER, rows, [*rows, *again])


def test_times_of_the_same_start_are_compared():
  rows = [_row(1, 10.0), _row(2, 30.0, start=1)]
  timings = [_row(1, 20.0), _row(2, 999.0), _row(2, 60.0, start=1)]
  assert comparison.beside(rows, timings) == ({1: 20.0, 2: 60.0}, 0)
  # The first measurement stands in where the start has none.
  assert comparison.beside(rows, timings[:2]) == ({1: 20.0, 2: 999.0}, 1)
  with pytest.raises(ValueError, match=r'\[2\]'):
    comparison.beside(rows, timings[:1])


def test_wall_clock_by_hand():
  verifier = _verifier(_row(1, 20.0), _row(2, 40.0), again=[_row(2, 80.0, 1)])
  rows = [_row(1, 10.0), _row(2, 40.0, start=1)]
  found = comparison.wall_clock(rows, verifier, bootstrap.draws(2, 50, 0))
  assert found.summary['relative_latency'] == 0.5
  assert found.summary['relative_latency_interval'] == [0.5, 0.5]
  assert found.summary['timed_apart'] == 0
  apart = comparison.wall_clock(
    rows, _verifier(*verifier.rows), bootstrap.draws(2, 50, 0)
  )
  assert apart.summary['relative_latency'] == pytest.approx(50 / 60)
  assert apart.summary['timed_apart'] == 1
  assert set(apart.replicates['relative_latency']) == {0.5, 0.833333, 1.0}


def test_the_verifier_is_exactly_as_slow_as_itself():
  rows = [_row(1, 20.3, calls=7), _row(2, 41.7, calls=9)]
  verifier = _verifier(*rows, again=[_row(1, 3.0, 1)])
  counts = bootstrap.draws(2, 50, 0)
  wall = comparison.wall_clock(rows, verifier, counts)
  model = comparison.modelled(
    rows, VERIFIER, verifier, TIMES, counts, max_length=9
  )
  assert wall.summary['relative_latency_interval'] == [1.0, 1.0]
  assert model.summary['modelled_relative_latency_interval'] == [1.0, 1.0]


def test_modelled_latency_by_hand():
  verifier = _verifier(_row(1, 0.0, calls=4), _row(2, 0.0, calls=10))
  rows = [_row(1, 9.0, steps=2, calls=1), _row(2, 9.0, steps=4, calls=2)]
  counts = bootstrap.draws(2, 50, 0)
  found = comparison.modelled(rows, PAIR, verifier, TIMES, counts, max_length=9)
  # 10 and 14 ms for the pair, 13 and 25 for the verifier.
  assert found.summary['modelled_latency_ms'] == 12.0
  assert found.summary['modelled_relative_latency'] == pytest.approx(24 / 38)
  assert set(found.replicates['modelled_relative_latency']) == {
    *bootstrap.rounded([10 / 13, 24 / 38, 14 / 25])
  }


def test_what_there_is_nothing_to_compare_with_is_none():
  rows = [_row(1, 10.0, steps=1)]
  counts = bootstrap.draws(1, 5, 0)
  found = [
    comparison.wall_clock(rows, None, counts),
    comparison.modelled(rows, DRAFTER, None, None, counts, max_length=9),
  ]
  assert all(set(f.summary.values()) == {None} for f in found)
  assert all(f.replicates == {} for f in found)
  alone = comparison.modelled(rows, DRAFTER, None, TIMES, counts, max_length=9)
  assert alone.summary['modelled_latency_ms'] == 1.5
  assert alone.summary['modelled_relative_latency'] is None
