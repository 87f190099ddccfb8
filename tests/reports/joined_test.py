"""One table of several sweeps."""

import csv
import json

import pytest

from speccascade_jax import __main__ as commands
from speccascade_jax.reports import headline
from speccascade_jax.reports import joined
from speccascade_jax.reports import runs
from tests.reports import run_dir

_MODELS = ['t5_1_1_small', 't5_1_1_large']


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
  """Two sweeps at T = 1 and one at another gamma, without OPT."""
  folder = tmp_path_factory.mktemp('runs')
  found = []
  for name, rules, gamma, task in (
    ('a', ('opt', 'chow'), 4, 'xsum'),
    ('b', ('opt', 'chow'), 4, 'cnn_dailymail'),
    ('c', ('chow',), 5, 'wmt14_en_de'),
  ):
    path = run_dir.build(
      folder / name,
      temperatures=(1.0,),
      rules=rules,
      gammas=(gamma,),
      replicates=20,
    )
    run_dir.edit(path / 'sweep.json', task=task, models=_MODELS)
    found.append(path)
  return found


@pytest.fixture(scope='module')
def columns(paths):
  sweeps = [runs.load(path) for path in paths]
  return [joined.Column(sweep, headline.find(sweep)) for sweep in sweeps]


def _cells(text, label, question):
  """A row of one question's table, split at the bars."""
  part = text.split(f'## {question}')[1].split('\n## ')[0]
  escaped = label.replace('[', r'\[').replace(']', r'\]')
  (line,) = (x for x in part.splitlines() if x.startswith(f'| {escaped}'))
  return [cell.strip() for cell in line.strip('|').split(' | ')]


def test_a_column_has_what_its_sweep_has(columns):
  text = joined.markdown(columns)
  for question, asked in (
    ('latency', "Latency at the verifier's quality"),
    ('quality', "Quality within the verifier's latency"),
  ):
    _, *cells = _cells(text, 'SpecCascade [OPT], gamma 4', asked)
    answers = [
      getattr(row, question)['relative_latency']
      for column in columns[:2]
      for row in column.rows
      if row.label == 'SpecCascade [OPT]'
    ]
    assert None not in [answer.value for answer in answers]
    for cell, answer in zip(cells, answers):
      assert cell.startswith(f'{answer.value:.2f} [')
    # The third has no OPT, and its Chow is a row of its own.
    assert cells[2] == '-' and len(cells) == 3
    assert _cells(text, 'SpecCascade [Chow], gamma 5', asked)[1:3] == ['-', '-']
  assert r'(3) wmt14\_en\_de/test by BLEU, t5\_1\_1\_small -' in text
  assert 'bootstrap' in text


def test_the_lines_of_all_are_in_one_file(columns, paths):
  rows = list(csv.DictReader(joined.csv(columns).splitlines()))
  assert [row['run_dir'] for row in rows] == [
    str(path) for path, column in zip(paths, columns) for _ in column.rows
  ]
  assert rows[0]['label'] == columns[0].rows[0].label


def test_one_command_reports_each_and_all(paths, tmp_path, capsys):
  figures = [
    {'figure': 'max_length', 'task': task, 'value': value, 'source': 'there'}
    for task, value in (('xsum', 64), ('wmt14_en_de', 81))
  ]
  file = tmp_path / 'e.json'
  file.write_text(json.dumps({'of': 'Somebody', 'figures': figures}))
  some = (paths[0], paths[2])  # Pages take their time.
  names = [*map(str, some)]
  assert commands.main(['report', *names, f'--expected={file}']) == 0
  out = capsys.readouterr().out
  assert "Latency at the verifier's quality" in out
  assert '(2) wmt14_en_de/test by BLEU' in out
  beside = out.split('Beside Somebody')[1].splitlines()
  assert any('(1) xsum' in line and ' 64 ' in line for line in beside)
  assert any('(2) wmt14_en_de' in line and ' 81 ' in line for line in beside)
  folder = paths[0].parent / 'report'
  assert {path.name for path in folder.iterdir()} == {
    *('headline.md', 'headline.csv', 'expected.md')
  }
  assert all((path / 'report/index.html').is_file() for path in some)
  assert 'xsum' in (paths[0] / 'report/expected.md').read_text()


def test_what_joins_nothing_is_refused(paths, tmp_path, capsys):
  assert commands.main(['report', str(paths[0]), str(paths[0])]) == 1
  assert 'named twice' in capsys.readouterr().err
  calibration = tmp_path / 'calibration'
  calibration.mkdir()
  (calibration / 'calibration.json').write_text('{}')
  assert commands.main(['report', str(paths[0]), str(calibration)]) == 1
  assert 'is a calibration, which joins no table' in capsys.readouterr().err
