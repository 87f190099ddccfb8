"""Reading run directories: whole, half-finished, foreign and damaged ones."""

import ast
import json
import math
import pathlib

import pytest

from speccascade_jax import reports
from speccascade_jax.reports import operating_point
from speccascade_jax.reports import runs
from speccascade_jax.reports import series
from speccascade_jax.reports import tables
from tests.reports import run_dir


@pytest.fixture
def path(tmp_path):
  return run_dir.build(tmp_path / 'run')


def test_everything_is_read(path):
  sweep = runs.load(path)
  assert len(sweep.runs) == 2 * (2 + 1 + 5 * 3) and not sweep.unfinished
  assert sweep.metrics == ('bleu', 'chrf')
  assert 'sweep.task' in sweep.operative_config
  run = next(r for r in sweep.runs if (r.rule, r.alpha) == ('opt', 0.2))
  stored = json.loads((path / 'runs' / run.key / 'summary.json').read_text())
  assert run.quality == stored['quality']
  assert run.relative_latency == stored['relative_latency']
  assert (run.gamma, run.temperature, run.model) == (4, 0.0, 'pair')


def test_groups_begin_with_the_models_alone_and_sort_by_alpha(path):
  # The order of display may be any.
  header = json.loads((path / 'sweep.json').read_text())
  run_dir.edit(path / 'sweep.json', runs=header['runs'][::-1])
  cold, warm = runs.load(path).groups()
  assert (cold.title, warm.title) == ('T = 0', 'T = 1')
  assert [run.label for run in cold.runs[:2]] == ['Verifier', 'Drafter']
  assert cold.verifier.quality['bleu'] == 24.6
  assert [r.alpha for r in cold.runs if r.rule == 'diff'] == [0.0, 0.2, 0.4]


def test_truncation_makes_groups_of_its_own(path):
  header = json.loads((path / 'sweep.json').read_text())
  config = path / 'runs' / header['runs'][-1] / 'config.json'
  run_dir.edit(config, top_p=0.9, top_k=50)
  titles = [group.title for group in runs.load(path).groups()]
  assert titles == ['T = 0', 'T = 1', 'T = 1, top-k 50, top-p 0.9']


@pytest.mark.parametrize('exists', [True, False])
def test_another_folder_is_refused(tmp_path, exists):
  folder = tmp_path if exists else tmp_path / 'nothing'
  with pytest.raises(runs.RunDirError, match='not a run directory') as info:
    runs.load(folder)
  assert str(folder) in str(info.value)


def test_a_truncated_verifier_is_a_curve_beside_the_verifier(tmp_path):
  path = run_dir.build(tmp_path, temperatures=(1.0,))
  configs = sorted(path.glob('runs/*/config.json'))
  for config in configs:
    if json.loads(config.read_text())['rule'] == 'chow':
      label = dict(rule=None, model='verifier', gamma=None, label='TopP')
      run_dir.edit(config, truncation='top_p', **label)
  sweep = runs.load(path)
  (group,) = sweep.groups()
  assert group.verifier.label == 'Verifier'
  found = [run for run in group.runs if run.truncation]
  assert [r.strength for r in found] == ['top_p 0.3', 'top_p 0.5', 'top_p 0.7']
  assert 'top_p 0.5' in tables.text(sweep, 200)
  names = [curve.name for curve in series.of_group(group, sweep)]
  assert 'TopP' in names


def test_a_calibrated_rule_looks_like_the_rule_but_hollow(tmp_path):
  path = run_dir.build(tmp_path, temperatures=(0.0,), rules=('opt',))
  plain = runs.load(path)
  # Of the three OPT points one gets temperatures, as a method of its own.
  (changed, *_) = [r for r in plain.runs if r.rule == 'opt']
  file = path / 'runs' / changed.key / 'config.json'
  config = json.loads(file.read_text())
  config |= {'label': 'OPT, calibrated', 'confidence_temperatures': [0.95, 1]}
  file.write_text(json.dumps(config))
  sweep = runs.load(path)
  run = next(r for r in sweep.runs if r.key == changed.key)
  assert run.confidence_temperatures == '0.95, 1'
  other = next(r for r in sweep.runs if r.rule == 'opt' and r != run)
  hollow, filled = (series.style_of(r, sweep) for r in (run, other))
  assert hollow.hollow and not filled.hollow
  assert (hollow.light, hollow.marker) == (filled.light, filled.marker)


def test_a_sweep_without_a_finished_run_is_refused(tmp_path):
  path = run_dir.build(
    tmp_path, temperatures=(0.0,), rules=(), unfinished=(0, 1, 2)
  )
  with pytest.raises(runs.RunDirError, match='no finished run') as info:
    runs.load(path)
  assert 'Of its 3 runs 99 examples' in str(info.value)


def test_half_finished_runs_are_listed_and_left_out(tmp_path):
  path = run_dir.build(tmp_path, temperatures=(0.0,), unfinished=(2, 4))
  # One was killed before its folder was made; a line of another is torn.
  keys = json.loads((path / 'sweep.json').read_text())['runs']
  run_dir.edit(path / 'sweep.json', runs=[*keys, 'ffffffffffff'])
  with open(path / 'runs' / keys[4] / 'examples.jsonl', 'a') as file:
    file.write('{"example": 33, "predi')
  sweep = runs.load(path)
  assert len(sweep.runs) == len(keys) - 2
  lossless, lossy, nothing = sweep.unfinished
  assert (lossless.label, lossless.alpha) == ('SpecDecode [lossless]', None)
  assert (lossy.alpha, lossy.done, lossy.total) == (0.6, 33, 100)
  assert (nothing.done, nothing.label) == (0, '(not begun)')


@pytest.mark.parametrize(
  ('file', 'content', 'said'),
  [
    ('sweep.json', '{', 'not JSON'),
    ('sweep.json', '{"runs": []}', 'primary_metric, metrics'),
    ('sweep.json', '[]', 'has no'),
    ('runs/000000000001/config.json', '{"label": "x"}', 'model, temperature'),
    ('runs/000000000001/config.json', None, 'is missing'),
    ('runs/000000000001/summary.json', '{}', 'has no quality'),
  ],
)
def test_a_damaged_file_is_named(path, file, content, said):
  if content is None:
    (path / file).unlink()
  else:
    (path / file).write_text(content)
  with pytest.raises(runs.RunDirError, match=said) as info:
    runs.load(path)
  assert str(path / file) in str(info.value)


def test_values_that_are_no_measurements_are_none(path):
  summary = path / 'runs' / '000000000003' / 'summary.json'
  run_dir.edit(
    summary, rejection_rate=math.nan, block_efficiency=math.inf, compile_s=None
  )
  (run,) = (r for r in runs.load(path).runs if r.key == '000000000003')
  assert run.rejection_rate is run.block_efficiency is run.compile_s is None
  assert run.deferral_rate == 1.0


def test_trials_are_averaged(tmp_path):
  path = run_dir.build(tmp_path, temperatures=(0.0,), trials=2)
  sweep = runs.load(path)
  means = runs.trial_means(sweep.runs)
  assert len(means) == len(sweep.runs) / 2
  mean = next(r for r in means if (r.rule, r.alpha) == ('opt', 0.2))
  both = [r for r in sweep.runs if (r.rule, r.alpha) == ('opt', 0.2)]
  qualities = [run.quality['bleu'] for run in both]
  assert qualities[0] != qualities[1]
  assert mean.quality['bleu'] == pytest.approx(sum(qualities) / 2)
  assert mean.relative_latency_sem == pytest.approx(0.012 / math.sqrt(2))
  # What one trial lacks, the mean does not have.
  run_dir.edit(path / 'runs' / both[1].key / 'summary.json', tokens_per_s=None)
  again = runs.trial_means(runs.load(path).runs)
  assert next(r for r in again if r.key == mean.key).tokens_per_s is None


def test_the_operating_point_is_the_fastest_good_run(path):
  cold, _ = runs.load(path).groups()
  point = operating_point.find(cold, 'bleu')
  good = [
    run
    for run in cold.runs
    if run.quality['bleu'] >= 24.6 and run.relative_latency < 1
  ]
  assert len(good) == 2
  assert point.fastest == min(good, key=lambda run: run.relative_latency)
  assert point.best.quality['bleu'] == max(
    run.quality['bleu'] for run in cold.runs
  )
  said = operating_point.sentence(point, 'BLEU')
  assert said.startswith('T = 0: SpecCascade [OPT], alpha 0, gamma 4 is 1.58x')


def test_equal_quality_counts_and_equal_latency_does_not(path):
  for summary in path.glob('runs/*/summary.json'):
    label = json.loads((summary.parent / 'config.json').read_text())['label']
    lossless = label == 'SpecDecode [lossless]'
    if label not in ('Verifier', 'Drafter') and not lossless:
      run_dir.edit(summary, relative_latency=1.0, quality={'bleu': 30.0})
  cold, _ = runs.load(path).groups()
  point = operating_point.find(cold, 'bleu')
  assert point.fastest.label == 'SpecDecode [lossless]'
  assert point.fastest.quality['bleu'] == point.group.verifier.quality['bleu']
  assert point.best.quality['bleu'] == 30.0


def test_no_operating_point_is_said_so(tmp_path):
  alone = runs.load(
    run_dir.build(tmp_path / 'a', temperatures=(0.0,), references=('drafter',))
  )
  (group,) = alone.groups()
  point = operating_point.find(group, 'bleu')
  assert point.fastest is point.best is None
  assert 'no verifier run' in operating_point.sentence(point, 'BLEU')
  path = run_dir.build(tmp_path / 'b', temperatures=(0.0,), rules=('chow',))
  run_dir.edit(
    path / 'runs' / '000000000003' / 'summary.json', relative_latency=1.2
  )
  (group,) = runs.load(path).groups()
  point = operating_point.find(group, 'bleu')
  assert point.fastest is None and point.best.rule == 'chow'
  assert 'no run is both' in operating_point.sentence(point, 'BLEU')


def test_reports_read_files_alone():
  folder = pathlib.Path(reports.__file__).parent
  files = sorted(folder.glob('*.py'))
  assert len(files) > 5
  for file in files:
    for node in ast.walk(ast.parse(file.read_text())):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [node.module]
      for name in names:
        top = name.split('.')[0]
        assert top not in ('jax', 'numpy', 'gin', 'flax'), file
        assert top != 'speccascade_jax' or name.startswith(
          'speccascade_jax.reports'
        ), file
