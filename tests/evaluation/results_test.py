import json
import os
import pathlib
import subprocess
import sys

import pytest

from speccascade_jax.evaluation import results
from tests.evaluation import scripted

IDENTITY = {'task': 'a', 'seed': 0, 'metrics': ['bleu']}
CONFIGS = {'k1': {'rule': 'opt', 'alpha': 0.1}}


def _open(path, **changes):
  settings = dict(
    identity=IDENTITY,
    circumstances={'host': 'here'},
    examples=scripted.examples(3),
    configs=CONFIGS,
  )
  return results.RunDirectory(path, **{**settings, **changes})


def _row(example, text='ein Bär'):
  return {'example': example, 'prediction': text}


def test_rows_are_read_back(tmp_path):
  log = results.Log(tmp_path / 'log')
  for example in (4, 2, 9):
    log.append(_row(example))
  log.close()
  assert list(results.Log(tmp_path / 'log').rows) == [4, 2, 9]
  assert results.Log(tmp_path / 'log').rows[2] == _row(2)


def test_a_row_is_in_the_file_when_append_returns(tmp_path):
  log = results.Log(tmp_path / 'log')
  log.append(_row(1))
  assert json.loads((tmp_path / 'log').read_bytes()) == _row(1)


def test_a_line_torn_at_any_byte_is_dropped_and_written_again(tmp_path):
  path = tmp_path / 'log'
  log = results.Log(path)
  log.append(_row(1))
  intact = path.read_bytes()
  log.append(_row(2))
  whole = path.read_bytes()
  for cut in range(len(intact) + 1, len(whole)):
    path.write_bytes(whole[:cut])
    reopened = results.Log(path)
    assert list(reopened.rows) == [1]
    assert path.read_bytes() == intact
    reopened.append(_row(2))
    assert path.read_bytes() == whole


def test_zeros_left_by_a_power_cut_are_dropped(tmp_path):
  path = tmp_path / 'log'
  log = results.Log(path)
  log.append(_row(1))
  intact = path.read_bytes()
  path.write_bytes(intact + b'\0' * 20 + b'\n')
  assert list(results.Log(path).rows) == [1]
  assert path.read_bytes() == intact


def test_damage_in_the_middle_is_an_error_with_its_line(tmp_path):
  path = tmp_path / 'log'
  log = results.Log(path)
  for example in range(3):
    log.append(_row(example))
  lines = path.read_bytes().split(b'\n')
  lines[1] = lines[1][:5]
  path.write_bytes(b'\n'.join(lines))
  with pytest.raises(results.ResultsError, match='line 2 is damaged'):
    results.Log(path)


def test_a_repeated_example_is_refused_on_writing_and_on_reading(tmp_path):
  path = tmp_path / 'log'
  log = results.Log(path)
  log.append(_row(5))
  with pytest.raises(results.ResultsError, match='example 5'):
    log.append(_row(5))
  path.write_bytes(path.read_bytes() * 2)
  with pytest.raises(results.ResultsError, match='line 2 repeats example 5'):
    results.Log(path)


@pytest.mark.parametrize('end', ['\n', '\r', '\x85', '\u2028', '\u2029'])
def test_no_character_ends_a_line_early(tmp_path, end):
  path = tmp_path / 'log'
  log = results.Log(path)
  log.append(_row(1, f'a{end}b'))
  assert len(path.read_text(encoding='utf-8').splitlines()) == 1
  assert results.Log(path).rows[1]['prediction'] == f'a{end}b'


@pytest.mark.parametrize(
  ('change', 'named'),
  [
    ({'task': 'b'}, "task is 'a' there and 'b' here"),
    ({'seed': 1}, 'seed is 0 there and 1 here'),
    ({'metrics': ['chrf']}, r"metrics is \['bleu'\] there"),
  ],
)
def test_another_sweep_in_the_same_directory_is_refused(
  tmp_path, change, named
):
  _open(tmp_path).close()
  with pytest.raises(results.ResultsError, match=named):
    _open(tmp_path, identity={**IDENTITY, **change})
  # A refused start leaves the directory free and as it was.
  _open(tmp_path).close()


def test_another_config_under_the_same_name_is_refused(tmp_path):
  _open(tmp_path).close()
  with pytest.raises(results.ResultsError, match='alpha is 0.1 there and 0.2'):
    _open(tmp_path, configs={'k1': {'rule': 'opt', 'alpha': 0.2}})


def test_other_examples_are_refused(tmp_path):
  _open(tmp_path).close()
  with pytest.raises(results.ResultsError, match='line 3 differs'):
    _open(tmp_path, examples=scripted.examples(2))


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path):
  script = (
    'import sys\n'
    'from speccascade_jax.evaluation import results\n'
    f'results.RunDirectory({str(tmp_path)!r}, identity={IDENTITY!r},'
    ' circumstances={}, examples=[], configs={})\n'
  )
  with _open(tmp_path):
    second = subprocess.run(
      [sys.executable, '-c', script], capture_output=True, text=True
    )
    assert second.returncode != 0
    assert f'is in use by process {os.getpid()}' in second.stderr
  _open(tmp_path).close()


def test_a_resumed_start_is_on_record_and_hides_no_run(tmp_path):
  _open(tmp_path).close()
  _open(
    tmp_path, circumstances={'host': 'there'}, configs={'k2': {'alpha': 1.0}}
  ).close()
  header = json.loads((tmp_path / 'sweep.json').read_text())
  assert header['host'] == 'here'
  assert header['resumed'] == [{'host': 'there'}]
  assert header['runs'] == ['k2', 'k1']


def test_replacing_a_file_leaves_the_old_one_if_it_fails(tmp_path, monkeypatch):
  path = tmp_path / 'summary.json'
  results.write_atomically(path, 'old')

  def killed(descriptor):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, 'fsync', killed)
  with pytest.raises(KeyboardInterrupt):
    results.write_atomically(path, 'new' * 1000)
  assert path.read_text() == 'old'


def test_a_damaged_header_is_named(tmp_path):
  _open(tmp_path).close()
  pathlib.Path(tmp_path / 'sweep.json').write_text('{"task": ')
  with pytest.raises(results.ResultsError, match='sweep.json is not JSON'):
    _open(tmp_path)
