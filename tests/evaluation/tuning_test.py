"""The search, on a generator whose qualities and times are known."""

import dataclasses
import json

import pytest

from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import operating_point
from speccascade_jax.evaluation import sweep
from speccascade_jax.evaluation import tuning
from tests.evaluation import scripted

_ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


class _Worse(scripted.Scripted):
  """The larger alpha, the faster, and wrong on a share of alpha of the rows."""

  def generate(self, texts, *, row_ids, key, model, **settings):
    alpha = settings.get('alpha') or 0.0
    self.seconds['pair'] = 0.010 * (1 - alpha)
    out = super().generate(
      texts, row_ids=row_ids, key=key, model=model, **settings
    )
    (row,) = row_ids
    # The same rows are hard for all.
    wrong = model == 'pair' and (row * 37 % 100) / 100 < alpha - 0.25
    return dataclasses.replace(out, texts=['?'] if wrong else out.texts)


def _points(**settings):
  grid = [
    methods.Method(model='verifier'),
    methods.Method(rule=scripted.chow, alphas=_ALPHAS),
  ]
  return methods.expand(
    grid, **{'gammas': (4,), 'temperatures': (0.0,), **settings}
  )


@pytest.fixture
def generator(monkeypatch):
  clock = scripted.Clock(monkeypatch)
  return _Worse({'verifier': 0.020}, sleep=clock.sleep)


def _search(run_dir, generator, points=None, examples=60, **changes):
  constraint = {'quality': 0.99} | changes.pop('constraint', {})
  return tuning.search(
    generator,
    scripted.examples(examples),
    points or _points(),
    [scripted.agreement],
    run_dir,
    **{
      **scripted.SWEEP,
      'constraint': operating_point.Constraint(**constraint),
      'rungs': (10, 30, 60),
      'keep': 0.5,
      'replicates': 100,
      **changes,
    },
  )


def _lines(run_dir):
  return {
    json.loads((path / 'config.json').read_text())['alpha']: (
      path / 'examples.jsonl'
    ).read_text()
    for path in (run_dir / 'runs').iterdir()
  }


def test_the_fastest_that_is_good_enough_is_found(tmp_path, generator):
  rungs = _search(tmp_path, generator)
  assert [r.num_examples for r in rungs] == [10, 30, 60]
  # The verifier is on every rung, and half of the others go on.
  assert [len(r.candidates) for r in rungs] == [7, 4, 3]
  assert [r.kept for r in rungs[:2]] == [3, 2]
  last = rungs[-1].candidates
  constraint = operating_point.Constraint(quality=0.99)
  chosen = operating_point.choose(last, constraint)
  assert chosen.point.alpha == 0.2  # 0.3 is wrong on a twentieth.
  assert chosen.latency == pytest.approx(0.4)
  assert chosen.quality == 100.0


def test_only_what_goes_on_is_run_on_more_examples(tmp_path, generator):
  rungs = _search(tmp_path, generator)
  counts = {a: text.count('\n') for a, text in _lines(tmp_path).items()}
  on = {c.point.alpha for c in rungs[-1].candidates}
  assert {a for a, count in counts.items() if count == 60} == on
  assert sorted(counts.values()) == [10, 10, 10, 30, 60, 60, 60]
  # Three warm-up calls a program, and one call a line.
  assert len(generator.calls) == 2 * 3 + sum(counts.values())


def test_another_constraint_begins_with_what_is_there(tmp_path, generator):
  _search(tmp_path, generator)
  before, calls = _lines(tmp_path), len(generator.calls)
  rungs = _search(
    tmp_path, generator, constraint={'quality': None, 'latency': 0.3}
  )
  after = _lines(tmp_path)
  assert all(after[a].startswith(before[a]) for a in before)
  best = operating_point.choose(
    rungs[-1].candidates, operating_point.Constraint(latency=0.3)
  )
  assert best.point.alpha == 0.4
  # And once more: nothing is left to run.
  assert len(generator.calls) > calls
  calls = len(generator.calls)
  again = _search(
    tmp_path, generator, constraint={'quality': None, 'latency': 0.3}
  )
  assert len(generator.calls) == calls
  assert [r.wins for r in again] == [r.wins for r in rungs]


def test_a_search_begins_with_a_sweep_over_the_same_examples(
  tmp_path, generator
):
  sweep.sweep(
    generator,
    scripted.examples(60),
    _points(),
    [scripted.agreement],
    tmp_path,
    **scripted.SWEEP,
  )
  calls = len(generator.calls)
  rungs = _search(tmp_path, generator)
  assert len(generator.calls) == calls
  assert len(rungs) == 3


def test_what_was_killed_goes_on_to_the_same_end(
  tmp_path, generator, monkeypatch
):
  whole = _search(tmp_path / 'whole', generator)
  calls = 0
  generate = generator.generate

  def killed(*args, **kwargs):
    nonlocal calls
    calls += 1
    if calls == 60:
      raise KeyboardInterrupt
    return generate(*args, **kwargs)

  monkeypatch.setattr(generator, 'generate', killed)
  with pytest.raises(KeyboardInterrupt):
    _search(tmp_path / 'killed', generator)
  resumed = _search(tmp_path / 'killed', generator)
  assert [r.wins for r in resumed] == [r.wins for r in whole]


def test_the_choice_is_measured_on_examples_held_out(tmp_path, generator):
  (verifier, *others) = _points()
  point = next(p for p in others if p.alpha == 0.3)
  found = tuning.confirm(
    generator,
    scripted.examples(100),
    [verifier, point],
    [scripted.agreement],
    tmp_path,
    replicates=100,
    **scripted.SWEEP,
  )
  assert found.point == point
  assert found.latency == pytest.approx(0.35)
  assert found.reference == 100.0 and 90 < found.quality < 100
  # A sweep's directory like any other, ready for a report.
  assert len([*tmp_path.glob('runs/*/summary.json')]) == 2
  alone = tuning.confirm(
    generator,
    scripted.examples(100),
    [verifier],
    [scripted.agreement],
    tmp_path,
    replicates=100,
    **scripted.SWEEP,
  )
  assert alone.point.is_reference and alone.latency == 1.0


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'rungs': ()}, 'rungs are'),
    ({'rungs': (30, 10)}, 'rungs are'),
    ({'rungs': (10, 61)}, 'needs 61 examples; there are 60'),
    ({'keep': 1.0}, 'keep is 1.0'),
    ({'clock': 'sun'}, "clock is 'sun'"),
    ({'replicates': 0}, 'replicates is 0'),
    ({'points': _points()[1:]}, 'the verifier alone, once'),
    ({'points': _points()[:1]}, 'candidates beside'),
    ({'points': _points(temperatures=(0.0, 1.0))}, 'the verifier alone, once'),
    ({'clock': 'model'}, 'cost model needs'),
  ],
)
def test_bad_settings_are_refused(tmp_path, generator, changes, said):
  with pytest.raises(ValueError, match=said):
    _search(tmp_path, generator, **changes)
