"""What `speccascade tune` says, on candidates made by hand."""

import numpy as np
import pytest

from speccascade_jax.evaluation import candidates
from speccascade_jax.evaluation import choosing
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import tuning
from speccascade_jax.launch import tuning_texts
from tests.evaluation import scripted


def _candidate(qualities, latencies, reference=10.0, **changes):
  (point,) = methods.expand(
    [methods.Method(rule=scripted.chow, alphas=(0.1,), label='Chow')],
    gammas=(4,),
    temperatures=(0.0,),
  )
  return candidates.Candidate(
    **{
      'key': 'k',
      'point': point,
      'quality': float(np.mean(qualities)),
      'reference': reference,
      'latency': float(np.mean(latencies)),
      'qualities': np.array(qualities),
      'references': np.full(len(qualities), reference),
      'latencies': np.array(latencies),
      **changes,
    }
  )


_QUALITY = choosing.Constraint(quality=0.9)


@pytest.mark.parametrize(
  ('qualities', 'verdict', 'said'),
  [
    ([9.5] * 50, 'met', 'meets the constraint (100% of replicates)'),
    ([8.9] * 45 + [9.1] * 5, 'within_interval', 'by less than its 95 %'),
    ([5.0] * 50, 'missed', 'MISSES the constraint: raise tune.confidence'),
  ],
)
def test_the_verdict_on_held_out_examples(qualities, verdict, said):
  found = _candidate(qualities, [0.5] * 50)
  assert tuning_texts.verdict(found, _QUALITY) == verdict
  lines = tuning_texts.confirmed(found, _QUALITY, 'wall', 7)
  assert said in lines[-1]
  assert '0.500 [0.500, 0.500] of its latency, by the wall clock' in lines[1]


def test_that_candidates_were_timed_hours_apart_is_said():
  one = _candidate([9.0] * 4, [0.5] * 4, starts=frozenset({0}))
  other = _candidate([9.0] * 4, [0.5] * 4, starts=frozenset({0, 2}))
  said = tuning_texts.rung(_rung(one, one), _QUALITY, 'bleu')
  assert 'Caution' not in said
  said = tuning_texts.rung(_rung(one, other), _QUALITY, 'bleu')
  assert 'timed in 2 starts' in said


def test_a_verifier_without_quality_has_no_share():
  found = _candidate([1.0] * 4, [0.5] * 4, reference=0.0)
  constraint = choosing.Constraint(latency=0.6)
  lines = tuning_texts.confirmed(found, constraint, 'model', 7)
  assert lines[0].startswith('no share of the verifier')
  assert 'by the cost model' in lines[1]


def _rung(*found, undefined=()):
  return tuning.Rung(
    num_examples=7,
    candidates=found,
    wins={c.key: 1.0 for c in found},
    kept=frozenset(),
    undefined=undefined,
  )


def test_times_of_two_starts_and_what_is_out_are_told():
  found = _candidate([9.5] * 4, [0.5] * 4, timed_apart=2)
  said = tuning_texts.rung(
    _rung(found, undefined=(found.point,)), _QUALITY, 'm'
  )
  assert 'Caution: 2 of 7 latencies of Chow T=0 alpha=0.1 gamma=4' in said
  assert 'Chow T=0 alpha=0.1 gamma=4 is out: its m is not a finite' in said
  lines = tuning_texts.confirmed(found, _QUALITY, 'wall', 7)
  assert lines[2].startswith('caution: 2 of 7')


def test_why_there_is_no_choice():
  missed = _candidate([5.0] * 4, [0.5] * 4)
  said = tuning_texts.nothing(_rung(missed), _QUALITY)
  assert 'it misses it as measured. Ask for less' in said
  # Met as measured, though not surely.
  unsure = _candidate([9.9, 9.9, 9.9, 8.0], [0.5] * 4)
  said = tuning_texts.nothing(_rung(missed, unsure), _QUALITY)
  assert (
    'in 75.0% of the replicates where tune.confidence asks for 80.0%' in said
  )
  # Often met, but not as measured.
  skewed = _candidate([9.1] * 9 + [1.0], [0.5] * 10)
  assert _QUALITY.trust(skewed) == 0.9
  said = tuning_texts.nothing(_rung(skewed), _QUALITY)
  assert 'it misses it as measured' in said


def test_the_verifier_is_shown_however_many_candidates_there_are():
  found = [
    _candidate([9.0] * 4, [0.1 * i] * 4, key=f'k{i}') for i in range(1, 9)
  ]
  (point,) = methods.expand(
    [methods.Method(model='verifier')], gammas=(), temperatures=(0.0,)
  )
  verifier = _candidate([10.0] * 4, [1.0] * 4, key='v', point=point)
  rows = tuning_texts.rung(_rung(*found, verifier), _QUALITY, 'm').splitlines()
  assert sum('Chow' in row for row in rows) == 5
  assert sum('Verifier' in row for row in rows) == 1
