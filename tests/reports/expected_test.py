"""Published figures beside those of a sweep."""

import csv
import json
import pathlib

import pytest

from speccascade_jax import __main__ as commands
from speccascade_jax.reports import expected
from speccascade_jax.reports import expected_tables
from speccascade_jax.reports import headline
from speccascade_jax.reports import page
from speccascade_jax.reports import runs
from tests.reports import run_dir

_ROOT = pathlib.Path(__file__).parents[2]
_OPT = {'label': 'SpecCascade [OPT]', 'gamma': 4, 'temperature': 1.0}
_FIGURES = (
  {'figure': 'max_length', 'value': 80, 'source': 'Appendix F <a>'},
  {'figure': 'latency', **_OPT, 'value': 0.61, 'source': 'Table 2'},
  {'figure': 'quality', **_OPT, 'value': 25.0, 'source': 'Table 2'},
  {
    'figure': 'rejection_rate',
    **_OPT,
    'alpha': 0.2,
    'value': 0.25,
    'source': 'Figure 3',
  },
  {
    'figure': 'quality.bleu',
    'label': 'Verifier',
    'temperature': 1.0,
    'value': 24.0,
    'source': 'Table 2',
  },
  # Which alpha is not said, so that several runs could be meant.
  {'figure': 'deferral_rate', **_OPT, 'value': 0.5, 'source': 'Figure 3'},
  {'figure': 'max_length', 'value': 64, 'task': 'xsum', 'source': 'elsewhere'},
)


def _write(path, figures=_FIGURES, **more):
  content = {'of': 'Somebody, 2025', 'figures': list(figures)} | more
  path.write_text(json.dumps(content))
  return path


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  return run_dir.build(folder, temperatures=(1.0,), replicates=20)


@pytest.fixture(scope='module')
def sweep(path):
  return runs.load(path)


def test_every_kind_of_figure_finds_its_own(sweep, tmp_path):
  rows = headline.find(sweep)
  beside = expected.compare(sweep, rows, _write(tmp_path / 'e.json'))
  length, latency, quality, rejected, verifier, unclear = beside.comparisons
  assert length.ours == sweep.header['max_length']
  (row,) = (row for row in rows if row.label == _OPT['label'])
  assert latency.ours == row.latency['relative_latency'].value
  assert latency.interval == row.latency['relative_latency'].interval
  assert quality.ours == row.quality['relative_latency'].value
  (run,) = (
    run for run in sweep.runs if run.label == _OPT['label'] and run.alpha == 0.2
  )
  assert rejected.ours == run.rejection_rate is not None
  assert verifier.ours == sweep.groups()[0].verifier.quality['bleu']
  assert verifier.interval is not None
  assert unclear.ours is None


def test_tables_show_both_and_the_source(sweep, tmp_path):
  beside = expected.compare(
    sweep, headline.find(sweep), _write(tmp_path / 'e.json')
  )
  ours = f'{beside.comparisons[1].ours:.4g}'
  for shown in (
    expected_tables.text(beside),
    expected_tables.markdown(beside),
    page.render(sweep, None, beside),
  ):
    assert 'Somebody, 2025' in shown and 'Table 2' in shown
    (line,) = (
      part
      for part in shown.replace('<tr>', '\n<tr>').splitlines()
      if 'latency at the verifier' in part and '0.61' in part
    )
    assert ours in line
  assert '<a>' not in page.render(sweep, None, beside)


def test_the_file_beside_the_gin_file_is_found(path, tmp_path, capsys):
  _write(tmp_path / expected.FILE)
  run_dir.edit(
    path / 'sweep.json',
    gin_files=['elsewhere/a.gin', str(tmp_path / 'sweep.gin')],
  )
  assert commands.main(['report', str(path)]) == 0
  assert 'Beside Somebody, 2025' in capsys.readouterr().out
  assert 'Table 2' in (path / 'report/expected.md').read_text()
  # What says nothing of this sweep is passed over, unless it is asked for.
  _write(tmp_path / expected.FILE, _FIGURES[-1:])
  assert commands.main(['report', str(path)]) == 0
  assert 'Beside' not in capsys.readouterr().out
  asked = f'--expected={tmp_path / expected.FILE}'
  assert commands.main(['report', str(path), asked]) == 0
  assert "no figure for task 'debian_en_de'" in capsys.readouterr().out


@pytest.mark.parametrize(
  ('entry', 'said'),
  [
    ({'figure': 'latency', 'value': 1.0}, 'has no source'),
    ({'figure': 'latency', 'value': 1.0, 'source': ' '}, 'has no source'),
    ({'figure': 'latency', 'source': 'x'}, 'has no value'),
    ({'figure': 'x', 'value': '1', 'source': 'x'}, "value is '1'"),
    ({'figure': 'x', 'value': 1, 'source': 'x', 'rule': 'opt'}, 'says rule'),
    ('latency', 'must be an object'),
    ({'figure': 'x', 'value': float('nan'), 'source': 'x'}, 'value is nan'),
    (
      {'figure': 'x', 'value': 1, 'source': 'x', 'alpha': True},
      'alpha is True',
    ),
    ({'figure': 'x', 'value': 1, 'source': 'x', 'label': 3}, 'label is 3'),
    ({'figure': 'x', 'value': 1, 'source': 'x', 'task': None}, 'task is None'),
    ({'figure': 'x', 'value': 1, 'source': 'x', 'split': []}, r'split is \[\]'),
    (
      {'figure': 'x', 'value': 1, 'source': 'x', 'models': 'a'},
      "models is 'a'",
    ),
    ({'figure': 'x', 'value': 1, 'source': 'x', 'models': [1]}, 'models is'),
  ],
)
def test_a_figure_that_is_not_as_it_must_be_is_refused(tmp_path, entry, said):
  with pytest.raises(expected.ExpectedError, match=said):
    expected.load(_write(tmp_path / 'e.json', [*_FIGURES, entry]))


@pytest.mark.parametrize(
  'content',
  [
    {'of': 'x', 'figures': 3},
    {'of': 'x', 'figures': {}},
    {'of': 3, 'figures': []},
    {'of': None, 'figures': []},
  ],
)
def test_a_file_of_other_things_ends_in_one_line(
  path, tmp_path, content, capsys
):
  file = tmp_path / 'e.json'
  file.write_text(json.dumps(content))
  assert commands.main(['report', str(path), f'--expected={file}']) == 1
  err = capsys.readouterr().err
  assert "'of' must be a text and 'figures' a list" in err
  assert str(file) in err and err.count('\n') == 1


def test_what_no_run_has_is_named(sweep, tmp_path):
  figure = {**_OPT, 'figure': 'speed', 'alpha': 0.2, 'value': 1, 'source': 'x'}
  with pytest.raises(expected.ExpectedError, match="'speed' is measured of no"):
    expected.compare(sweep, [], _write(tmp_path / 'e.json', [figure]))


@pytest.mark.parametrize(
  'file', sorted(map(str, _ROOT.glob('experiments/*/expected.json')))
)
def test_every_file_that_ships_is_read(file):
  of, figures = expected.load(file)
  assert of and figures


def test_the_kept_headline_table_is_quoted_as_it_is():
  folder = _ROOT / 'experiments/headline_table'
  _, figures = expected.load(folder / expected.FILE)
  tables = {
    name: list(csv.DictReader((folder / name).open()))
    for name in ('table.csv', 'headline.csv')
  }
  assert len(figures) > 20
  for figure in figures:
    of = {k: v for k, v in figure.of.items() if k != 'task'}
    rows = [
      row
      for row in tables[pathlib.Path(figure.source).name]
      if row['verification'] in ('', 'token')
      and all(_same(row[k], v) for k, v in of.items())
    ]
    assert len(rows) == 1
    found = float(rows[0][figure.name])
    assert figure.value == pytest.approx(found, abs=0.006)


def _same(cell, value):
  return cell == value if isinstance(value, str) else float(cell) == value
