"""The text, Markdown and CSV tables."""

import csv
import io

import pytest

from speccascade_jax.reports import runs
from speccascade_jax.reports import tables
from tests.reports import run_dir


@pytest.fixture(scope='module')
def sweep(tmp_path_factory):
  return runs.load(run_dir.build(tmp_path_factory.mktemp('run')))


def _line(text, *starts):
  """The cells of the one line that begins with these."""
  lines = [line.split() for line in text.splitlines()]
  (line,) = (line for line in lines if line[: len(starts)] == [*starts])
  return line


def test_a_row_has_the_runs_figures(tmp_path):
  sweep = runs.load(
    run_dir.build(tmp_path, temperatures=(0.0,), rules=('opt',))
  )
  text = tables.text(sweep, 200)
  heads = text.splitlines()[3].split()
  assert heads == [
    *('method', 'alpha', 'gamma', 'BLEU', 'chrF', 'rel.lat', 'model'),
    *('ms', 'accept', 'reject', 'defer', 'tok/call', 'calls'),
  ]
  assert _line(text, 'SpecCascade', '[OPT]', '0.2')[2:] == [
    *('0.2', '4', '23.72', '49.81', '0.54', '0.54', '32.9'),
    *('83.6%', '16.4%', '41.0%', '3.61', '6.8'),
  ]
  # What a model alone does not have is a dash, never a zero.
  assert _line(text, 'V', 'Verifier')[2:] == [
    *('-', '-', '24.60', '51.66', '1.00', '1.00', '61.3'),
    *('-', '-', '-', '-', '24.6'),
  ]
  assert _line(text, '*', 'SpecCascade', '[OPT]')[3] == '0'
  assert _line(text, '+', 'SpecDecode', '[lossless]')
  assert "* fastest at the verifier's quality or better" in text


@pytest.mark.parametrize('width', [60, 80, 100, 120, 200])
def test_the_text_table_fits(sweep, width):
  text = tables.text(sweep, width)
  assert max(map(len, text.splitlines()[1:])) <= width
  assert text.count('Verifier  ') == 2
  for column in ('BLEU', 'rel.lat', 'alpha'):
    assert column in text
  assert ('Left out to fit' in text) == (width < 115)


def test_the_least_important_columns_go_first(sweep):
  def heads(width):
    return tables.text(sweep, width).splitlines()[3].split()

  assert heads(200)[-1] == 'calls'
  assert 'calls' not in heads(100) and 'ms' in heads(100)
  assert heads(72)[-1] == 'defer' and 'reject' in heads(72)


def test_unfinished_runs_are_named(tmp_path):
  sweep = runs.load(
    run_dir.build(tmp_path, temperatures=(0.0,), unfinished=(4,))
  )
  said = 'SpecDecode [lossy], T 0, alpha 0.6, gamma 4 (33 of 100 examples done)'
  assert said in tables.text(sweep, 100)
  assert said.replace('[', '\\[').replace(']', '\\]') in tables.markdown(sweep)
  assert 'Left out, unfinished: 1 of 18 runs.' in tables.text(sweep, 100)


def test_many_unfinished_runs_are_counted(tmp_path):
  build = run_dir.build(tmp_path, rules=('opt',), unfinished=(6, 7, 8, 9, 10))
  said = ' '.join(tables.text(runs.load(build), 100).split())
  assert 'Left out, unfinished: 5 of 12 runs.' in said
  assert 'Unfinished: 5 runs at T 1 (165 of 500 examples done), of' in said


def test_trials_get_a_column_only_if_there_are_several(tmp_path, sweep):
  assert 'trial' not in tables.text(sweep, 200)
  twice = runs.load(run_dir.build(tmp_path, temperatures=(0.0,), trials=2))
  text = tables.text(twice, 200)
  assert 'trial' in text
  # Both trials of the operating point carry its mark.
  assert sum(line.startswith('* SpecCascade') for line in text.split('\n')) == 2


def test_markdown_tables_are_rectangular_and_escaped(tmp_path):
  path = run_dir.build(tmp_path, temperatures=(0.0, 1.0), rules=('opt',))
  for config in path.glob('runs/*/config.json'):
    run_dir.edit(config, label='a|b*c <i>')
  lines = tables.markdown(runs.load(path)).splitlines()
  rows = [line for line in lines if line.startswith('|')]
  assert len(rows) == 2 * (2 + 6)
  assert {row.replace('\\|', '').count('|') for row in rows} == {14}
  assert any('a\\|b\\*c \\<i\\>' in row for row in rows)
  assert '## T = 1' in lines


def test_csv_has_every_run_unrounded(sweep):
  rows = list(csv.DictReader(io.StringIO(tables.csv(sweep))))
  assert len(rows) == len(sweep.runs)
  by_key = {run.key: run for run in sweep.runs}
  for row in rows:
    run = by_key[row['key']]
    assert float(row['quality.bleu']) == run.quality['bleu']
    assert float(row['temperature']) == run.temperature
    assert row['model'] == run.model and row['label'] == run.label
    if run.model == 'pair':
      assert float(row['rejection_rate']) == run.rejection_rate
    else:
      assert row['rejection_rate'] == row['gamma'] == ''


def test_a_metric_that_a_run_lacks_is_a_dash(tmp_path):
  path = run_dir.build(tmp_path, temperatures=(0.0,), rules=('opt',))
  summary = path / 'runs' / '000000000004' / 'summary.json'
  run_dir.edit(summary, quality={'chrf': 50.0}, relative_latency=None)
  sweep = runs.load(path)
  assert _line(tables.text(sweep, 200), 'SpecCascade', '[OPT]', '0')[4] == '-'
  (row,) = (
    row
    for row in csv.DictReader(io.StringIO(tables.csv(sweep)))
    if row['key'] == '000000000004'
  )
  assert row['quality.bleu'] == '' and row['quality.chrf'] == '50.0'


@pytest.fixture(scope='module')
def sampled(tmp_path_factory):
  return runs.load(
    run_dir.build(
      tmp_path_factory.mktemp('sampled'),
      temperatures=(0.0,),
      rules=('opt',),
      trials=2,
      replicates=60,
    )
  )


def test_intervals_and_paired_differences_are_in_the_tables(sampled):
  text = tables.text(sampled, 200)
  assert 'BLEU - V' in text and 'rel.lat 95%' in text
  verifiers = [line for line in text.split('\n') if line.startswith('V V')]
  assert len(verifiers) == 2
  assert all('+0.00 [0.00, 0.00]' in line for line in verifiers)
  narrow = tables.text(sampled, 80)
  assert 'Left out to fit 80 characters' in narrow
  assert 'BLEU - V' in narrow.split('Left out to fit')[1]
  rows = list(csv.DictReader(io.StringIO(tables.csv(sampled))))
  for run, row in zip(sampled.groups()[0].runs, rows, strict=True):
    found = run.interval('quality.bleu')
    ends = float(row['quality.bleu.low']), float(row['quality.bleu.high'])
    assert ends == (found.low, found.high)
    assert float(row['relative_latency.low']) <= float(row['relative_latency'])
    low, high = float(row['difference.low']), float(row['difference.high'])
    if run.model == 'verifier':
      assert low == high == float(row['difference']) == 0
    elif run.model == 'pair':
      # What the runs share is not in the paired interval.
      assert high - low < 0.6 * (found.high - found.low)


def test_runs_timed_apart_are_marked(tmp_path):
  path = run_dir.build(tmp_path, temperatures=(0.0,), rules=('opt',))
  run_dir.edit(path / 'runs' / '000000000004' / 'summary.json', timed_apart=7)
  sweep = runs.load(path)
  text = tables.text(sweep, 200)
  assert _line(text, '*', 'SpecCascade', '[OPT]', '0')[7].endswith('~')
  said = '~ 1 runs have up to 7 of 100 examples timed in another start'
  assert said in text and said in tables.markdown(sweep)
