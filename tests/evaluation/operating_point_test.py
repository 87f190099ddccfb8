"""Choosing under a constraint, on candidates made by hand."""

import numpy as np
import pytest

from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import operating_point as lib
from tests.evaluation import scripted


def _candidate(name, qualities, latencies, reference=10.0):
  points = {
    'verifier': methods.Method(model='verifier'),
    'other': methods.Method(rule=scripted.chow, alphas=(0.1,)),
  }
  method = points['verifier' if name == 'verifier' else 'other']
  (point,) = methods.expand([method], gammas=(4,), temperatures=(0.0,))
  qualities, latencies = np.array(qualities), np.array(latencies)
  return lib.Candidate(
    key=name,
    point=point,
    quality=float(qualities.mean()),
    reference=reference,
    latency=float(latencies.mean()),
    qualities=qualities,
    references=np.full(qualities.shape, reference),
    latencies=latencies,
  )


_VERIFIER = _candidate('verifier', [10.0] * 4, [1.0] * 4)
# Faster and as good in three replicates of four.
_FAST = _candidate('fast', [9.9, 9.9, 9.9, 5.0], [0.3] * 4)
_SAFE = _candidate('safe', [10.0] * 4, [0.6, 0.6, 0.6, 0.6])
_BAD = _candidate('bad', [1.0] * 4, [0.1] * 4)
_ALL = [_VERIFIER, _FAST, _SAFE, _BAD]


def test_wins_are_counted_replicate_by_replicate():
  constraint = lib.Constraint(quality=0.99)
  assert lib.wins(_ALL, constraint) == {
    'verifier': 0.0,
    'fast': 0.75,
    'safe': 0.25,
    'bad': 0.0,
  }
  # Within 0.5 of the latency, `fast` is the best in every replicate.
  assert lib.wins(_ALL, lib.Constraint(latency=0.5))['fast'] == 1.0


def test_a_replicate_that_nothing_meets_goes_to_the_closest():
  found = lib.wins([_FAST, _BAD], lib.Constraint(quality=2.0))
  assert found == {'fast': 1.0, 'bad': 0.0}


def test_the_choice_is_one_that_can_be_trusted():
  def chosen(**constraint):
    found = lib.choose(_ALL, lib.Constraint(**constraint))
    return found and found.key

  assert chosen(quality=0.99) == 'safe'
  # As measured `fast` has 8.675 of 10, and 0.8 in three of four replicates.
  assert chosen(quality=0.8, confidence=0.7) == 'fast'
  assert chosen(quality=0.8, confidence=0.9) == 'safe'
  assert chosen(latency=0.6) == 'safe'  # On the edge is within.
  assert chosen(latency=0.5) == 'fast'
  assert chosen(latency=0.05) is None
  # More than the verifier's is a constraint like any other.
  assert chosen(quality=1.1) is None


def test_the_most_promising_come_first():
  found = lib.ranked(_ALL, lib.Constraint(quality=0.99))
  assert [c.key for c in found] == ['fast', 'safe', 'verifier', 'bad']


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    ({}, 'either quality'),
    ({'quality': 0.9, 'latency': 0.5}, 'either quality'),
    ({'quality': 0.0}, 'quality is 0.0'),
    ({'latency': -1}, 'latency is -1'),
    ({'quality': 0.9, 'confidence': 95}, 'confidence is 95'),
  ],
)
def test_bad_constraints_are_refused(arguments, said):
  with pytest.raises(ValueError, match=said):
    lib.Constraint(**arguments)
