import json

import pytest

from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import running
from speccascade_jax.evaluation import summaries
from speccascade_jax.evaluation import sweep
from speccascade_jax.reports import page
from speccascade_jax.reports import runs
from speccascade_jax.reports import tables
from tests.evaluation import scripted


def _sweep(run_dir, generator=None, count=5, points=None, **changes):
  return sweep.sweep(
    generator or scripted.Scripted(),
    scripted.examples(count),
    points or scripted.points(),
    [scripted.agreement],
    run_dir,
    **{**scripted.SWEEP, **changes},
  )


def _lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def _runs(run_dir):
  """(config, rows, summary) of every run, in the order of display."""
  header = json.loads((run_dir / 'sweep.json').read_text())
  for key in header['runs']:
    folder = run_dir / 'runs' / key
    yield (
      json.loads((folder / 'config.json').read_text()),
      _lines(folder / 'examples.jsonl'),
      json.loads((folder / 'summary.json').read_text()),
    )


def test_rotated():
  assert list(running.rotated('abc', 4)) == ['b', 'c', 'a']
  assert list(running.rotated([], 1)) == []


def test_every_point_has_every_example_once(tmp_path):
  _sweep(tmp_path)
  found = list(_runs(tmp_path))
  assert [(c['label'], c['alpha']) for c, _, _ in found] == [
    ('Verifier', None),
    ('Drafter', None),
    ('SpecCascade [tests.evaluation.scripted.chow]', 0.1),
    ('SpecCascade [tests.evaluation.scripted.chow]', 0.5),
  ]
  for config, rows, summary in found:
    assert [row['example'] for row in rows] == [3, 10, 17, 24, 31]
    for i, row in enumerate(rows):
      words = row['prediction'].split()
      assert words[:2] == [config['model'], str(config['alpha'])]
      assert row['prediction'].endswith(f'satz {i}')
    assert summary['quality'] == {'agreement': 100.0}
    assert summary['signatures'] == {'agreement': 'ends|v1'}


def test_methods_take_turns_example_by_example(tmp_path):
  generator = scripted.Scripted()
  points = scripted.points(temperatures=(0.0, 1.0))
  _sweep(tmp_path, generator, count=3, points=points)
  calls = [
    (c['model'], c.get('alpha'), c['temperature'], c['row_ids'][0])
    for c in generator.calls
  ]
  names = [('verifier', None), ('drafter', None), ('pair', 0.1), ('pair', 0.5)]
  timed = []
  for temperature in (0.0, 1.0):
    # Three programs, three calls each: the alphas share one.
    warm = [c for c in calls if c[2] == temperature][:9]
    assert [c[0] for c in warm] == 3 * ['verifier'] + 3 * ['drafter'] + (
      3 * ['pair']
    )
    timed.append([c for c in calls if c[2] == temperature][9:])
    order = [
      (*names[(i + j) % 4], temperature, 7 * i + 3)
      for i in range(3)
      for j in range(4)
    ]
    assert timed[-1] == order
  # And one temperature after the other.
  assert calls[9:21] == timed[0]
  assert len(calls) == 2 * (9 + 12)


def test_random_numbers_are_common_to_methods_and_fresh_per_trial(tmp_path):
  generator = scripted.Scripted()
  _sweep(tmp_path, generator, count=2, points=scripted.points(trials=2))
  keys = {tuple(c['key']) for c in generator.calls}
  assert len(keys) == 2  # One a trial; the generator folds in the example.
  other = scripted.Scripted()
  points = scripted.points(trials=2, seed=1)
  _sweep(tmp_path / 'other', other, count=2, points=points)
  assert keys.isdisjoint(tuple(c['key']) for c in other.calls)


def test_latencies_are_relative_to_the_verifier_s(tmp_path, monkeypatch):
  generator = scripted.Scripted(
    {'verifier': 0.020, 'drafter': 0.002, 'pair': 0.010},
    sleep=scripted.Clock(monkeypatch).sleep,
  )
  _sweep(tmp_path, generator, count=8)
  found = {c['model']: s for c, _, s in _runs(tmp_path)}
  for model, ratio in ('verifier', 1.0), ('pair', 0.5), ('drafter', 0.1):
    assert found[model]['relative_latency'] == pytest.approx(ratio)
    assert found[model]['latency_ms_mean'] == pytest.approx(20 * ratio)
    assert found[model]['relative_latency_sem'] == pytest.approx(0, abs=1e-6)


def test_relative_latency_is_null_without_a_verifier(tmp_path):
  points = [p for p in scripted.points() if p.model != 'verifier']
  _sweep(tmp_path, points=points)
  assert {s['relative_latency'] for _, _, s in _runs(tmp_path)} == {None}
  # Added later, the verifier completes the summaries that stood without it.
  _sweep(tmp_path)
  assert None not in {s['relative_latency'] for _, _, s in _runs(tmp_path)}


def test_summary_by_hand():
  rows = [
    dict(
      latency_ms=10.0,
      output_tokens=6,
      drafter_steps=10,
      verifier_calls=2,
      drafted=8,
      accepted=3,
      resampled=1,
      deferred=1.5,
      truncated=True,
    ),
    dict(
      latency_ms=30.0,
      output_tokens=14,
      drafter_steps=20,
      verifier_calls=3,
      drafted=16,
      accepted=12,
      resampled=0,
      deferred=0.5,
      truncated=False,
    ),
  ]
  summary = summaries.summarise(rows, judged=True, deferring=True)
  assert summary == {
    'latency_ms_mean': 20.0,
    'latency_ms_p50': 20.0,
    'latency_ms_p95': 29.0,
    'tokens_per_s': 500.0,
    'acceptance_rate': 15 / 16,
    'rejection_rate': 1 / 16,
    'deferral_rate': 2.0 / 20,
    'block_efficiency': 4.0,
    'verifier_calls_per_example': 2.5,
    'drafter_steps_per_example': 15.0,
    'num_examples': 2,
    'num_truncated': 1,
  }
  undefined = [row | {'deferred': None} for row in rows]
  assert summaries.summarise(
    undefined, judged=True, deferring=True
  ) == summary | {'deferral_rate': None}
  alone = summaries.summarise(rows, judged=False, deferring=False)
  assert alone['acceptance_rate'] is None
  assert alone['rejection_rate'] is None
  assert alone['deferral_rate'] is None
  assert alone['block_efficiency'] == 4.0


def test_inputs_that_were_cut_are_counted_and_told(tmp_path):
  _sweep(tmp_path, scripted.Scripted(longest=6), count=12)
  for _, rows, summary in _runs(tmp_path):
    # Of 'satz 0' to 'satz 11' the last two are too long.
    assert [row['truncated'] for row in rows] == [False] * 10 + [True] * 2
    assert summary['num_truncated'] == 2
  loaded = runs.load(tmp_path)
  said = 'Inputs cut to the input length: 2 of 12.'
  assert said in tables.text(loaded, 200)
  assert said in tables.markdown(loaded)
  assert said in page.render(loaded)
  _sweep(tmp_path / 'whole', count=12)
  whole = runs.load(tmp_path / 'whole')
  assert 'Inputs cut' not in tables.text(whole) + page.render(whole)


def test_a_finished_sweep_runs_nothing_again(tmp_path):
  _sweep(tmp_path)
  before = list(_runs(tmp_path))
  generator = scripted.Scripted()
  _sweep(tmp_path, generator)
  assert generator.calls == []
  assert list(_runs(tmp_path)) == before


def test_more_alphas_run_alone(tmp_path):
  _sweep(tmp_path)
  generator = scripted.Scripted()
  grid = [methods.Method(rule=scripted.chow, alphas=(0.1, 0.3, 0.5))]
  points = methods.expand(grid, gammas=(4,), temperatures=(0,))
  _sweep(tmp_path, generator, points=points)
  assert {c['alpha'] for c in generator.calls} == {0.3}
  header = json.loads((tmp_path / 'sweep.json').read_text())
  assert len(header['runs']) == 5


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path):
  class Failing(scripted.Scripted):
    def generate(self, *args, **kwargs):
      if len(self.calls) == 9 + 7:
        raise KeyboardInterrupt
      return super().generate(*args, **kwargs)

  with pytest.raises(KeyboardInterrupt):
    _sweep(tmp_path, Failing())
  assert not list(tmp_path.glob('runs/*/summary.json'))
  generator = scripted.Scripted()
  _sweep(tmp_path, generator)
  assert len(generator.calls) == 9 + 20 - 7
  _sweep(tmp_path / 'whole')
  for (c1, rows, _), (c2, whole, _) in zip(
    _runs(tmp_path), _runs(tmp_path / 'whole'), strict=True
  ):
    assert c1 == c2
    assert list(map(_untimed, rows)) == list(map(_untimed, whole))


def test_a_sweep_that_is_half_done_can_be_reported(tmp_path):
  class Failing(scripted.Scripted):
    def generate(self, *args, **kwargs):
      if kwargs['temperature'] == 1 and len(self.calls) == 29 + 9 + 6:
        raise KeyboardInterrupt
      return super().generate(*args, **kwargs)

  points = scripted.points(temperatures=(0.0, 1.0))
  with pytest.raises(KeyboardInterrupt):
    _sweep(tmp_path, Failing(), points=points)
  # What keeps company was done together and is scored; the rest is named.
  half = runs.load(tmp_path)
  assert {run.temperature for run in half.runs} == {0.0}
  assert len(half.runs) == len(half.unfinished) == 4
  before = _files(tmp_path, 'summary.json')
  said = 'Left out, unfinished: 4 of 8 runs.'
  assert said in tables.text(half, 200) and said in page.render(half)
  generator = scripted.Scripted()
  _sweep(tmp_path, generator, points=points)
  assert {c['temperature'] for c in generator.calls} == {1.0}
  whole = runs.load(tmp_path)
  assert len(whole.runs) == 8 and not whole.unfinished
  assert before.items() <= _files(tmp_path, 'summary.json').items()


def test_a_truncated_verifier_is_compared_with_the_verifier(
  tmp_path, monkeypatch
):
  class Slowing(scripted.Scripted):
    """A verifier that thinks twice about what it leaves out."""

    def generate(self, *args, top_p=None, **kwargs):
      self.sleep(0.010 if top_p is None else 0.020)
      return super().generate(*args, **kwargs)

  cut = methods.Method(model='verifier', truncation='top_p', alphas=(0.5, 0.9))
  grid = [cut, methods.Method(model='verifier'), cut]
  clock = scripted.Clock(monkeypatch)
  for number, chosen in enumerate((grid[:2], grid[1:])):
    points = methods.expand(chosen, gammas=(4,), temperatures=(1.0,))
    folder = tmp_path / str(number)
    _sweep(folder, Slowing(sleep=clock.sleep), points=points)
    for config, _, summary in _runs(folder):
      ratio = 2.0 if 'truncation' in config else 1.0
      assert summary['relative_latency'] == pytest.approx(ratio)
    (group,) = runs.load(folder).groups()
    for run in group.runs:
      assert group.verifier_of(run).label == 'Verifier'


def _untimed(row):
  return {k: v for k, v in row.items() if k not in ('latency_ms', 'start')}


def _files(run_dir, name):
  return {p.parent.name: p.read_text() for p in run_dir.glob(f'runs/*/{name}')}


def test_a_resumed_sweep_has_the_replicates_of_a_whole_one(tmp_path):
  class Failing(scripted.Scripted):
    def generate(self, *args, **kwargs):
      if len(self.calls) == 9 + 7:
        raise KeyboardInterrupt
      return super().generate(*args, **kwargs)

  with pytest.raises(KeyboardInterrupt):
    _sweep(tmp_path, Failing(), recompute_metrics=True)
  _sweep(tmp_path, recompute_metrics=True)
  before = _files(tmp_path, 'replicates.json')
  _sweep(tmp_path, recompute_metrics=True)
  assert _files(tmp_path, 'replicates.json') == before
  _sweep(tmp_path / 'whole', recompute_metrics=True)
  whole = _files(tmp_path / 'whole', 'replicates.json')
  assert len(whole) == 4 and whole.keys() == before.keys()
  for key, text in whole.items():
    replicates = json.loads(text)
    assert len(replicates['relative_latency']) == 1000
    assert json.loads(before[key])['quality'] == replicates['quality']


def test_a_plain_metric_has_replicates_on_request(tmp_path):
  _sweep(tmp_path, replicates=30)
  for text in _files(tmp_path, 'replicates.json').values():
    found = json.loads(text)
    assert found['quality'] == {}
    assert len(found['relative_latency']) == 30
  _sweep(tmp_path / 'again', replicates=30, recompute_metrics=True)
  for text in _files(tmp_path / 'again', 'replicates.json').values():
    assert json.loads(text)['quality'] == {'agreement': [100.0] * 30}
  for _, _, summary in _runs(tmp_path / 'again'):
    assert summary['quality_interval'] == {'agreement': [100.0, 100.0]}


def test_another_number_of_replicates_runs_nothing_again(tmp_path):
  _sweep(tmp_path, replicates=30)
  generator = scripted.Scripted()
  _sweep(tmp_path, generator, replicates=20)
  assert generator.calls == []
  for text in _files(tmp_path, 'replicates.json').values():
    assert len(json.loads(text)['relative_latency']) == 20


class Changing(scripted.Scripted):
  """The verifier takes as long as it is told; a pair half of that."""

  def __init__(self, clock, seconds):
    times = {'verifier': seconds, 'pair': seconds / 2, 'drafter': seconds / 9}
    super().__init__(times, sleep=clock.sleep)


def test_runs_added_later_are_compared_with_a_verifier_of_their_start(
  tmp_path, monkeypatch
):
  clock = scripted.Clock(monkeypatch)
  grid = scripted.points()
  _sweep(tmp_path, Changing(clock, 0.010), points=grid[:3])
  verifier = _files(tmp_path, 'examples.jsonl')
  generator = Changing(clock, 0.080)  # The machine is slower now.
  _sweep(tmp_path, generator, points=grid)
  # Each example: the new run, and the verifier beside it; two programs warm.
  assert len(generator.calls) == 2 * 3 + 2 * 5
  for config, rows, summary in _runs(tmp_path):
    if config['model'] == 'pair':
      assert summary['relative_latency'] == pytest.approx(0.5)
      assert {row['start'] for row in rows} == {int(config['alpha'] == 0.5)}
    assert summary['timed_apart'] == 0
  kept = _files(tmp_path, 'examples.jsonl')
  assert verifier.items() <= kept.items()
  (again,) = tmp_path.glob('runs/*/retimed-*.jsonl')
  assert again.name == 'retimed-1.jsonl'
  assert _lines(again) == [
    {'example': 7 * i + 3, 'latency_ms': 80.0, 'start': 1} for i in range(5)
  ]


def test_a_verifier_added_later_is_marked_as_timed_apart(tmp_path):
  grid = scripted.points()
  _sweep(tmp_path, points=grid[1:])
  _sweep(tmp_path, points=grid)
  found = {c['label']: s['timed_apart'] for c, _, s in _runs(tmp_path)}
  assert found.pop('Verifier') == 0
  assert set(found.values()) == {5}


class Timed(scripted.Scripted):
  """Also tells what its calls take."""

  def call_times(self, widths, **lengths):
    self.timed = getattr(self, 'timed', []) + [(widths, lengths)]
    times = {'drafter_start': 1.0, 'drafter_1': 0.5, 'verifier_start': 4.0}
    return times | {f'verifier_{width}': 1.0 + width for width in widths}


def test_calls_are_timed_once_and_again_for_other_gammas(tmp_path):
  generator = Timed()
  _sweep(tmp_path, generator)
  lengths = {'input_length': 8, 'max_length': 16}
  assert generator.timed == [([1, 5], lengths)]
  for config, rows, summary in _runs(tmp_path):
    if config['model'] == 'verifier':
      # The scripted verifier counts drafter steps as well.
      expected = [4 + 2 * 2 + 0.5 * row['drafter_steps'] for row in rows]
      assert summary['modelled_latency_ms'] == sum(expected) / 5
      assert summary['modelled_relative_latency'] == 1.0
    if config['model'] == 'pair':
      expected = [5 + 2 * 6 + 0.5 * row['drafter_steps'] for row in rows]
      assert summary['modelled_latency_ms'] == sum(expected) / 5
  _sweep(tmp_path, generator)
  assert len(generator.timed) == 1
  _sweep(tmp_path, generator, points=scripted.points(gammas=(2, 4)))
  assert generator.timed[1][0] == [1, 3, 5]
  stored = json.loads((tmp_path / 'call_times.json').read_text())
  assert stored['start'] == 2 and stored['ms']['verifier_3'] == 4.0


def test_a_generator_that_times_no_calls_has_no_modelled_latency(tmp_path):
  _sweep(tmp_path)
  assert not (tmp_path / 'call_times.json').exists()
  for _, _, summary in _runs(tmp_path):
    assert summary['modelled_latency_ms'] is None
    assert summary['modelled_relative_latency'] is None


def test_the_header_says_what_was_run(tmp_path):
  _sweep(tmp_path, operative_config='a.b = 1\n')
  header = json.loads((tmp_path / 'sweep.json').read_text())
  known = {k: header[k] for k in ('task', 'pair', 'split', 'seed')}
  assert known == {
    'task': 'scripted',
    'pair': 'none',
    'split': 'test',
    'seed': 0,
  }
  assert header['num_examples'] == 5
  assert header['metrics'] == ['agreement']
  assert header['primary_metric'] == 'agreement'
  assert {'jax', 'python'} <= set(header['versions'])
  assert header['device'] and header['host'] and header['created']
  assert (tmp_path / 'operative_config.gin').read_text() == 'a.b = 1\n'
  assert _lines(tmp_path / 'examples.jsonl')[1] == {
    'example': 10,
    'source': 'satz 1',
    'target': '1',
  }


def test_compile_and_warm_up_times_are_reported_apart(tmp_path, monkeypatch):
  class Compiling(scripted.Scripted):
    def generate(self, *args, **kwargs):
      if kwargs['model'] not in {c['model'] for c in self.calls}:
        self.sleep(3.0)
      return super().generate(*args, **kwargs)

  seconds = dict.fromkeys(('verifier', 'drafter', 'pair'), 0.01)
  clock = scripted.Clock(monkeypatch)
  _sweep(tmp_path, Compiling(seconds, sleep=clock.sleep))
  for _, rows, summary in _runs(tmp_path):
    # The second alpha shares the program, and with it the time.
    assert summary['compile_s'] == pytest.approx(3.0)
    assert summary['warmup_ms'] == pytest.approx(10.0)
    assert [row['latency_ms'] for row in rows] == pytest.approx([10.0] * 5)


@pytest.mark.parametrize(
  ('changes', 'named'),
  [
    ({'primary_metric': 'bleu'}, "'bleu'; the metrics report agreement"),
    ({'count': 0}, 'no examples'),
  ],
)
def test_bad_settings_fail_before_the_first_call(tmp_path, changes, named):
  generator = scripted.Scripted()
  with pytest.raises(ValueError, match=named):
    _sweep(tmp_path, generator, **changes)
  assert generator.calls == []


def test_a_directory_of_another_sweep_is_refused_by_name(tmp_path):
  _sweep(tmp_path)
  generator = scripted.Scripted()
  with pytest.raises(results.ResultsError, match='max_length is 16 there'):
    _sweep(tmp_path, generator, max_length=32)
  # The same name, but trained again.
  with pytest.raises(
    results.ResultsError, match="pair_digest is '0123' there and '4567' here"
  ):
    _sweep(tmp_path, generator, pair_digest='4567')
  assert generator.calls == []


def test_a_directory_that_does_not_say_its_pair_is_refused(tmp_path):
  """One that was begun before the digest was recorded."""
  _sweep(tmp_path)
  path = tmp_path / 'sweep.json'
  header = json.loads(path.read_text())
  del header['pair_digest']
  path.write_text(json.dumps(header))
  generator = scripted.Scripted()
  with pytest.raises(
    results.ResultsError, match='does not say pair_digest.*another run dir'
  ):
    _sweep(tmp_path, generator)
  assert generator.calls == []
