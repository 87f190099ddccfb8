"""What the calibration experiment computes from runs and from logits."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest

from experiments.calibration import compare
from experiments.calibration import miscalibrate
from speccascade_jax import deferral
from tests.reports import run_dir


def _rows(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


def test_a_calibrated_run_is_compared_with_its_own(
  tmp_path, monkeypatch, capsys
):
  path = run_dir.build(tmp_path / 'run', rules=('chow', 'opt'), replicates=20)
  header = json.loads((path / 'sweep.json').read_text())
  # Each once more: better by half a point, and rejected a tenth more often.
  for key in [*header['runs']]:
    config = json.loads((path / 'runs' / key / 'config.json').read_text())
    if config['rule'] not in ('chow', 'opt'):
      continue
    copy = shutil.copytree(path / 'runs' / key, path / 'runs' / f'c{key}')
    header['runs'].append(copy.name)
    run_dir.edit(copy / 'config.json', label=config['label'] + compare.MARK)
    summary = json.loads((copy / 'summary.json').read_text())
    summary['quality']['bleu'] += 0.5
    summary['rejection_rate'] += 0.1
    (copy / 'summary.json').write_text(json.dumps(summary))
    found = json.loads((copy / 'replicates.json').read_text())
    found['quality']['bleu'] = [x + 0.5 for x in found['quality']['bleu']]
    (copy / 'replicates.json').write_text(json.dumps(found))
  run_dir.edit(path / 'sweep.json', runs=header['runs'])
  monkeypatch.setattr(compare, 'HERE', tmp_path)
  monkeypatch.setattr(sys, 'argv', ['compare.py', str(path)])
  compare.main()
  assert 'moved.csv' in capsys.readouterr().out
  rows = _rows(tmp_path / 'moved.csv')
  # Two rules at three alphas and two temperatures.
  assert len(rows) == 12 and {row['rule'] for row in rows} == {'chow', 'opt'}
  for row in rows:
    for name in ('change', 'change_low', 'change_high'):
      assert float(row[name]) == pytest.approx(0.5)
    moved = float(row['rejection_rate_calibrated'])
    assert moved == pytest.approx(float(row['rejection_rate']) + 0.1)
  assert (tmp_path / 'moved.png').read_bytes().startswith(b'\x89PNG')


def _softmax(logits):
  powers = np.exp(logits - logits.max(-1, keepdims=True))
  return powers / powers.sum(-1, keepdims=True)


def test_curves_are_those_of_the_rules_and_are_drawn(tmp_path, monkeypatch):
  random = np.random.default_rng(0)
  q, p = (3 * random.normal(size=(5, 7)).astype(np.float32) for _ in 'qp')
  targets = np.array([0, 3, 6, 2, 2])
  monkeypatch.setattr(miscalibrate, 'positions', lambda *_: (q, p, targets))
  monkeypatch.setattr(miscalibrate, 'HERE', tmp_path)
  # Fewer positions at once than there are.
  rules = (deferral.diff, deferral.token_v3)
  alphas = {rule: np.array([0.1, 0.4]) for rule in rules}
  monkeypatch.setattr(miscalibrate, 'ALPHAS', alphas)
  monkeypatch.setattr(miscalibrate, 'CHUNK', 4)
  monkeypatch.setattr(sys, 'argv', ['miscalibrate.py'])
  miscalibrate.main()
  rows = _rows(tmp_path / 'miscalibrated.csv')
  assert len(rows) == 2 * 2 * len(miscalibrate.CONFIDENCES) * 2
  for temperature in (0, 1):
    picture = tmp_path / f'miscalibrated_t{temperature}.png'
    assert picture.read_bytes().startswith(b'\x89PNG')
  greedy, each = [np.eye(7)[x.argmax(-1)] for x in (q, p)], np.arange(5)
  sampled = [_softmax(x) for x in (q, p)]
  checked = [row for row in rows if row['rule'] == deferral.diff.__name__]
  assert len({row['deferral'] for row in checked}) > 1
  for row in checked:
    laws = greedy if row['temperature'] == '0.0' else sampled
    told = miscalibrate.CONFIDENCES[row['confidences']]
    sure = [_softmax(x / t).max(-1) for x, t in zip((q, p), told)]
    defer = sure[0] < sure[1] - float(row['alpha'])
    pi = np.where(defer[:, None], laws[1], laws[0])
    for name, wanted in (
      ('deferral', defer.mean()),
      ('accuracy', pi[each, targets].mean()),
      ('rejection', np.maximum(0, laws[0] - pi).sum(-1).mean()),
    ):
      assert float(row[name]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.slow
def test_positions_are_those_of_the_references():
  q, p, targets = miscalibrate.positions('debian_en_de', 1)
  assert len(q) == len(p) == len(targets) > 16
  assert q.shape == p.shape and q.shape[1] == 4096
  # The shipped verifier is right far more often than by chance, and oftener
  # than its drafter.
  right = [(x.argmax(-1) == targets).mean() for x in (q, p)]
  assert 0.3 < right[0] < right[1]
