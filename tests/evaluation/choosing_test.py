"""Choosing under a constraint, on candidates made by hand."""

import numpy as np
import pytest

from speccascade_jax.evaluation import candidates
from speccascade_jax.evaluation import choosing as lib
from speccascade_jax.evaluation import methods
from tests.evaluation import scripted


def _candidate(name, qualities, latencies, reference=10.0, references=None):
  points = {
    'verifier': methods.Method(model='verifier'),
    'other': methods.Method(rule=scripted.chow, alphas=(0.1,)),
  }
  method = points['verifier' if name == 'verifier' else 'other']
  (point,) = methods.expand([method], gammas=(4,), temperatures=(0.0,))
  qualities, latencies = np.array(qualities), np.array(latencies)
  return candidates.Candidate(
    key=name,
    point=point,
    quality=float(qualities.mean()),
    reference=reference,
    latency=float(latencies.mean()),
    qualities=qualities,
    references=np.array(
      references if references is not None else [reference] * len(qualities)
    ),
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


def _ranked(candidates_, constraint):
  won = lib.wins(candidates_, constraint)
  return [c.key for c in lib.ranked(candidates_, constraint, won)]


def test_the_most_promising_come_first():
  constraint = lib.Constraint(quality=0.99)
  assert _ranked(_ALL, constraint) == ['fast', 'safe', 'verifier', 'bad']


def test_of_those_without_wins_the_best_that_is_trusted_comes_first():
  # `top` is better in every replicate; the slack of `poor` is the largest.
  top = _candidate('top', [9.0] * 4, [0.5] * 4)
  good = _candidate('good', [8.0] * 4, [0.5] * 4)
  poor = _candidate('poor', [1.0] * 4, [0.1] * 4)
  slow = _candidate('slow', [10.0] * 4, [0.9] * 4)
  every = [poor, slow, good, top]
  constraint = lib.Constraint(latency=0.6)
  assert _ranked(every, constraint) == ['top', 'good', 'poor', 'slow']


@pytest.mark.parametrize(
  ('quality', 'name'),
  [(0.99, 'quality_0.99'), (1, 'quality_1'), (0.9900001, 'quality_0.9900001')],
)
def test_a_name_tells_constraints_apart(quality, name):
  assert lib.Constraint(quality=quality).name == name


@pytest.mark.parametrize('turn', [1, -1])
def test_of_equally_good_ones_the_faster_is_chosen(turn):
  # Greedy lossless decoding writes the same texts whatever gamma is.
  slow = _candidate('slow', [10.0] * 4, [0.9] * 4)
  fast = _candidate('fast', [10.0] * 4, [0.5] * 4)
  constraint = lib.Constraint(latency=1.0)
  both = [slow, fast, _VERIFIER][::turn]
  assert lib.choose(both, constraint).key == 'fast'
  assert lib.wins(both, constraint)['fast'] == 1.0
  # And of equally fast ones the better, as by the cost model.
  better = _candidate('better', [11.0] * 4, [0.5] * 4)
  constraint = lib.Constraint(quality=0.9)
  both = [fast, better, _VERIFIER][::turn]
  assert lib.choose(both, constraint).key == 'better'
  assert lib.wins(both, constraint)['better'] == 1.0


def test_a_replicate_that_several_win_alike_is_shared():
  twins = [_candidate(name, [10.0] * 4, [0.5] * 4) for name in ('a', 'b')]
  found = lib.wins([*twins, _VERIFIER], lib.Constraint(quality=0.99))
  assert found == {'a': 0.5, 'b': 0.5, 'verifier': 0.0}


def test_a_share_of_nothing_is_not_met():
  found = _candidate(
    'found', [10.0] * 4, [0.5] * 4, references=[10.0, 0.0, -1.0, 10.0]
  )
  constraint = lib.Constraint(quality=0.5)
  assert constraint.trust(found) == 0.5
  assert found.share_interval() is None and found.share == 1.0
  # Nothing is divided by it for a latency.
  assert lib.Constraint(latency=0.6).trust(found) == 1.0
  assert lib.wins([found], constraint) == {'found': 1.0}


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
