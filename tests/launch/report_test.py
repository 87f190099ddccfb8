"""`speccascade report`, from the command line to the files."""

import csv
import json

import pytest

from speccascade_jax import __main__ as commands
from speccascade_jax.evaluation import sweep
from tests.evaluation import scripted
from tests.reports import run_dir

_FILES = {
  'table.md',
  'table.csv',
  'headline.md',
  'headline.csv',
  'quality_vs_deferral_rate.png',
  'quality_vs_latency.png',
  'quality_vs_rejection_rate.png',
  'index.html',
}


def test_report_prints_the_table_and_writes_the_files(
  tmp_path, capsys, monkeypatch
):
  monkeypatch.setenv('COLUMNS', '80')
  path = run_dir.build(
    tmp_path / 'run', temperatures=(0.0,), rules=('opt',), unfinished=(5,)
  )
  assert commands.main(['report', str(path)]) == 0
  out = capsys.readouterr().out
  assert 'SpecCascade [OPT]' in out and 'T = 0: ' in out
  table = out[: out.index('The report is in')]
  assert max(map(len, table.splitlines()[1:])) <= 80
  assert 'Left out, unfinished' in out
  assert f'The report is in {path / "report"}' in out
  assert {file.name for file in (path / 'report').iterdir()} == _FILES
  for file in (path / 'report').glob('*.png'):
    assert file.read_bytes().startswith(b'\x89PNG')
  rows = list(csv.DictReader((path / 'report/table.csv').open()))
  assert len(rows) == 5
  # Again: the report is drawn anew.
  assert commands.main(['report', str(path)]) == 0


def test_report_writes_where_it_is_told(tmp_path):
  path = run_dir.build(tmp_path / 'run', temperatures=(0.0,), rules=())
  output = tmp_path / 'a' / 'b'
  assert commands.main(['report', str(path), f'--output={output}']) == 0
  assert {file.name for file in output.iterdir()} == _FILES
  assert not (path / 'report').exists()


@pytest.mark.parametrize(
  ('prepare', 'said'),
  [
    (lambda path: path.mkdir(), 'not a run directory'),
    (lambda path: None, 'no such folder'),
    (
      lambda path: run_dir.build(
        path, temperatures=(0.0,), rules=(), unfinished=(0, 1, 2)
      ),
      'no finished run',
    ),
  ],
)
def test_nothing_to_report_ends_in_one_line(tmp_path, capsys, prepare, said):
  path = tmp_path / 'run'
  prepare(path)
  assert commands.main(['report', str(path)]) == 1
  err = capsys.readouterr().err
  assert said in err and str(path) in err
  assert err.count('\n') == 1


def test_report_reads_what_sweep_writes(tmp_path, capsys, monkeypatch):
  # The fixture of the other tests is held to the real writer here.
  monkeypatch.setenv('COLUMNS', '200')
  clock = scripted.Clock(monkeypatch)
  generator = scripted.Scripted(
    seconds={'verifier': 0.4, 'drafter': 0.2, 'pair': 0.1}, sleep=clock.sleep
  )
  sweep.sweep(
    generator,
    scripted.examples(3),
    scripted.points(temperatures=(0.0, 1.0)),
    [scripted.agreement],
    tmp_path / 'run',
    **scripted.SWEEP,
  )
  assert commands.main(['report', str(tmp_path / 'run')]) == 0
  out = capsys.readouterr().out
  rows = [line.split() for line in out.splitlines() if 'chow]' in line]
  curve = [row for row in rows if row[0] == '*' or row[0] == '+']
  assert len(curve) == 4
  # alpha, gamma, agreement and its difference to the verifier's, relative
  # latency and its interval, ms, accepted, rejected
  assert curve[0][3:13] == [
    *('0.1', '4', '100.00', '+0.00', '0.25', '[0.25,', '0.25]'),
    *('100.0', '91.7%', '8.3%'),
  ]
  assert 'agreement has no intervals' in out
  assert "wall clock: latency at the verifier's agreement (100.00)" in out
  assert '4.00x faster than the verifier' in out
  written = run_dir.build(tmp_path / 'fixture', rules=('opt',))
  real = tmp_path / 'run'
  for name in ('config.json', 'summary.json'):
    ours, theirs = (
      {key for file in path.glob(f'runs/*/{name}') for key in _keys(file)}
      for path in (written, real)
    )
    assert ours == theirs, name
  assert _keys(written / 'sweep.json') == _keys(real / 'sweep.json')


def _keys(file):
  return set(json.loads(file.read_text()))
