"""The search, on a generator whose qualities and times are known."""

import dataclasses
import json
import math

import numpy as np
import pytest

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import choosing
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import sweep
from speccascade_jax.evaluation import tuning
from speccascade_jax.reports import runs
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
    changes.pop('metric_fns', [scripted.agreement]),
    run_dir,
    **{
      **scripted.SWEEP,
      'constraint': choosing.Constraint(**constraint),
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
  assert [len(r.kept) for r in rungs[:2]] == [3, 2]
  last = rungs[-1].candidates
  constraint = choosing.Constraint(quality=0.99)
  chosen = choosing.choose(last, constraint)
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
  best = choosing.choose(rungs[-1].candidates, choosing.Constraint(latency=0.3))
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
    ({'rungs': 50}, 'rungs are 50'),
    ({'rungs': (2.5,)}, 'rungs are'),
    ({'rungs': (1, 10)}, 'rungs are'),
    ({'rungs': (30, 10)}, 'rungs are'),
    ({'rungs': (10, 61)}, 'needs 61 examples; there are 60'),
    ({'keep': 1.0}, 'keep is 1.0'),
    ({'clock': 'sun'}, "clock is 'sun'"),
    ({'replicates': 0}, 'replicates is 0'),
    ({'points': _points()[1:]}, 'the verifier alone, once'),
    ({'points': _points()[:1]}, 'candidates beside'),
    ({'points': _points(temperatures=(0.0, 1.0))}, 'temperature 0.0, 1.0'),
    ({'clock': 'model'}, 'cost model needs'),
  ],
)
def test_bad_settings_are_refused(tmp_path, generator, changes, said):
  with pytest.raises(ValueError, match=said):
    _search(tmp_path / 'run', generator, **changes)
  assert not (tmp_path / 'run').exists() and not generator.calls


def test_numpy_numbers_are_rungs_like_any():
  assert tuning.checked_rungs(np.array([2, 5])) == (2, 5)


class _Quick(scripted.Scripted):
  """As fast as said; wrong on the rows that are said, by alpha."""

  def __init__(self, seconds, wrong, sleep):
    super().__init__({'verifier': 0.020}, sleep=sleep)
    self._by_alpha, self._wrong = seconds, wrong

  def generate(self, texts, *, row_ids, key, model, **settings):
    alpha = settings.get('alpha')
    if model == 'pair':
      self.seconds['pair'] = self._by_alpha[alpha]
    out = super().generate(
      texts, row_ids=row_ids, key=key, model=model, **settings
    )
    (row,) = row_ids
    wrong = model == 'pair' and self._wrong(alpha, row)
    return dataclasses.replace(out, texts=['?'] if wrong else out.texts)


def test_the_one_that_can_be_trusted_goes_on_without_many_wins(
  tmp_path, monkeypatch
):
  """Fast ones, each wrong on one example, share most of the replicates."""
  clock = scripted.Clock(monkeypatch)
  examples = scripted.examples(12)
  # As `search` shuffles them: the first five spoil a candidate each.
  first = [
    examples[i].example for i in np.random.default_rng(0).permutation(12)
  ]
  wrong = dict(zip(_ALPHAS, first[:5]))
  seconds = {a: 0.004 + 0.001 * a for a in _ALPHAS} | {0.6: 0.010}
  generator = _Quick(seconds, lambda a, row: row == wrong.get(a), clock.sleep)
  rungs = _search(tmp_path, generator, examples=12, rungs=(6, 12), keep=0.2)
  constraint = choosing.Constraint(quality=0.99)
  (chosen,) = (c for c in rungs[0].candidates if c.point.alpha == 0.6)
  by_wins = [c.point.alpha for c in rungs[0].candidates]
  assert {*by_wins[:2]} == {0.1, 0.2} and rungs[0].wins[chosen.key] < 0.2
  assert rungs[0].kept == {c.key for c in rungs[0].candidates[:2]} | {
    chosen.key
  }
  assert choosing.choose(rungs[-1].candidates, constraint).point.alpha == 0.6


def test_a_verifier_without_quality_is_no_measure(tmp_path, generator):
  def none(targets, predictions):
    return {'agreement': 0.0}

  arguments = dict(metric_fns=[none])
  with pytest.raises(
    ValueError, match="agreement of the verifier's texts is 0"
  ):
    _search(tmp_path, generator, **arguments)
  # A latency asks for no share of it.
  rungs = _search(
    tmp_path,
    generator,
    constraint={'quality': None, 'latency': 0.6},
    **arguments,
  )
  assert rungs[-1].candidates[0].share is None


def test_what_has_no_quality_is_left_out_by_name(tmp_path, generator):
  def undefined(targets, predictions):
    score = scripted.agreement(targets, predictions)['agreement']
    # The two largest alphas write '?' on some of the rows.
    return {'agreement': score if '?' not in predictions else math.nan}

  rungs = _search(tmp_path, generator, metric_fns=[undefined])
  out = {p.alpha for rung in rungs for p in rung.undefined}
  assert out and all(alpha > 0.25 for alpha in out)
  constraint = choosing.Constraint(quality=0.99)
  assert choosing.choose(rungs[-1].candidates, constraint).point.alpha == 0.2

  def never(targets, predictions):
    return {'agreement': math.nan}

  with pytest.raises(ValueError, match="agreement of the verifier's texts"):
    _search(tmp_path / 'b', generator, metric_fns=[never])


def test_times_of_two_starts_are_told(tmp_path, generator, monkeypatch):
  """A kill between a candidate's line and the verifier's of one example."""
  calls = 0
  generate = generator.generate

  def killed(*args, model, **kwargs):
    nonlocal calls
    calls += model == 'verifier'
    # Three warm-up calls, and example 1 is the last that it is timed on first.
    if calls == 5:
      raise KeyboardInterrupt
    return generate(*args, model=model, **kwargs)

  monkeypatch.setattr(generator, 'generate', killed)
  with pytest.raises(KeyboardInterrupt):
    _search(tmp_path, generator, rungs=(10,), examples=10)
  monkeypatch.setattr(generator, 'generate', generate)
  (rung,) = _search(tmp_path, generator, rungs=(10,), examples=10)
  assert {c.timed_apart for c in rung.candidates} == {0, 1}
  apart = {c.point.alpha for c in rung.candidates if c.timed_apart}
  assert None not in apart  # The verifier is compared with itself.


def test_a_sweep_keeps_its_record_when_a_search_goes_on_in_it(
  tmp_path, generator
):
  sweep.sweep(
    generator,
    scripted.examples(60),
    _points(),
    [scripted.agreement],
    tmp_path,
    **scripted.SWEEP,
    operative_config='of = "the sweep"\n',
  )
  before = (tmp_path / 'operative_config.gin').read_text()
  _search(tmp_path, generator, operative_config='of = "the search"\n')
  assert (tmp_path / 'operative_config.gin').read_text() == before
  later = (tmp_path / 'operative_config-1.gin').read_text()
  assert later == 'of = "the search"\n'


def test_what_has_all_examples_can_be_reported(tmp_path, generator):
  rungs = _search(tmp_path, generator)
  summaries = {p.parent.name for p in tmp_path.glob('runs/*/summary.json')}
  assert summaries == {c.key for c in rungs[-1].candidates}
  assert len(runs.load(tmp_path).groups()[0].runs) == len(summaries)


def test_replicates_of_the_verifier_are_of_the_same_draws(tmp_path, generator):
  # A metric by which texts differ, so that a draw of the examples matters.
  def length(targets, predictions):
    del targets
    return {'agreement': float(np.mean([len(p) for p in predictions]))}

  examples = [
    dataclasses.replace(e, source='x' * (1 + e.example % 7))
    for e in scripted.examples(60)
  ]
  rung = tuning.search(
    generator,
    examples,
    _points(),
    [length],
    tmp_path,
    **scripted.SWEEP,
    constraint=choosing.Constraint(latency=2.0),
    rungs=(60,),
    replicates=50,
  )[-1]
  own = next(c for c in rung.candidates if c.point.is_reference)
  assert own.qualities.std() > 0
  for candidate in rung.candidates:
    np.testing.assert_array_equal(candidate.references, own.qualities)


def test_the_cost_model_is_a_clock_too(tmp_path, generator, monkeypatch):
  monkeypatch.setattr(
    type(generator),
    'call_times',
    lambda self, widths, **lengths: {
      'drafter_1': 1.0,
      'drafter_start': 1.0,
      'verifier_start': 1.0,
      **{f'verifier_{width}': 10.0 for width in widths},
    },
    raising=False,
  )
  rung = _search(tmp_path, generator, clock='model')[-1]
  own = next(c for c in rung.candidates if c.point.is_reference)
  assert own.latency == 1.0
  assert all(math.isfinite(c.latency) for c in rung.candidates)
  # It counts calls; the scripted seconds, which depend on alpha, it ignores.
  assert len({c.latency for c in rung.candidates}) <= 2


def test_held_out_examples_are_others():
  seen = scripted.examples(10)
  shared = [base.Example(99, seen[3].source, seen[3].target)]
  other = [base.Example(3, seen[3].source, 'another'), *shared]
  assert [e.target for e in tuning.apart(other, seen)] == ['another']
