"""Calibration as a whole, of judges whose truth is known."""

import json

import numpy as np
import pytest

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import calibrating
from speccascade_jax.evaluation import results
from tests.evaluation import synthetic_judge

IDENTITY = synthetic_judge.IDENTITY


@pytest.fixture(scope='module')
def doubled(tmp_path_factory):
  """Of a drafter whose logits are twice what is right, and a right verifier."""
  path = tmp_path_factory.mktemp('calibration') / 'run'
  judge = synthetic_judge.Judge(factor=2.0)
  summary = synthetic_judge.calibrate(
    judge, path, 300, batch_size=64, replicates=200
  )
  return summary['models']


def test_a_calibrated_model_is_told_to_be_one(doubled):
  verifier = doubled['verifier']
  low, high = verifier['temperature_interval']
  assert low < 1.0 < high and high - low < 0.1
  # 11,400 positions in 15 bins err by chance by about 1 %.
  assert verifier['before']['ece'] < 0.02
  low, high = verifier['ece_change_interval']
  assert low <= 0.005 and high >= -0.005


def test_twice_the_logits_have_temperature_two(doubled):
  drafter, verifier = doubled['drafter'], doubled['verifier']
  assert drafter['temperature'] == pytest.approx(2.0, rel=0.05)
  # The very same texts and noise, so that the factor is exact.
  ratio = drafter['temperature'] / verifier['temperature']
  assert ratio == pytest.approx(2.0, rel=2e-3)
  assert drafter['before']['ece'] > 0.08
  assert drafter['after']['ece'] == pytest.approx(
    verifier['after']['ece'], abs=2e-3
  )
  assert drafter['ece_change_interval'][1] < -0.05
  assert drafter['after']['surprisal'] < drafter['before']['surprisal']
  assert drafter['after']['accuracy'] == drafter['before']['accuracy']


def _files(path):
  return {
    str(file.relative_to(path)): file.read_text()
    for file in sorted(path.rglob('*'))
    if file.is_file() and file.name not in ('.lock', 'calibration.json')
  }


@pytest.mark.parametrize('dies_at', [0, 1, 3, 7])
def test_what_was_stopped_goes_on_where_it_was(tmp_path, dies_at):
  whole, judge = tmp_path / 'whole', synthetic_judge.Judge(1.5)
  summary = synthetic_judge.calibrate(judge, whole)
  calls = len(judge.calls)
  assert calls == 8  # Two models, two splits, two batches.
  broken = tmp_path / 'broken'
  with pytest.raises(KeyboardInterrupt):
    synthetic_judge.calibrate(
      synthetic_judge.Judge(1.5, dies_at=dies_at), broken
    )
  assert not (broken / 'summary.json').exists()
  again = synthetic_judge.Judge(1.5)
  assert synthetic_judge.calibrate(again, broken) == summary
  assert len(again.calls) == calls - dies_at
  assert _files(broken) == _files(whole)
  header = json.loads((broken / 'calibration.json').read_text())
  assert len(header['resumed']) == 1
  # And a third start has nothing to do.
  idle = synthetic_judge.Judge(1.5)
  assert synthetic_judge.calibrate(idle, broken) == summary
  assert not idle.calls


def test_a_torn_line_is_judged_again(tmp_path):
  summary = synthetic_judge.calibrate(synthetic_judge.Judge(), tmp_path / 'run')
  log = tmp_path / 'run/fit/verifier.jsonl'
  log.write_text(log.read_text()[:-20])
  again = synthetic_judge.Judge()
  assert synthetic_judge.calibrate(again, tmp_path / 'run') == summary
  assert len(again.calls) == 1


def test_what_is_asked_of_the_judge(tmp_path):
  judge = synthetic_judge.Judge()
  summary = synthetic_judge.calibrate(judge, tmp_path / 'run', ends=False)
  first, last = judge.calls[0], judge.calls[-1]
  assert first['model'] == 'drafter' and last['model'] == 'verifier'
  assert (first['input_length'], last['input_length']) == (8, 9)
  assert first['max_length'] == synthetic_judge.TOKENS
  assert first['ends'] is False
  fitted = summary['models']['verifier']['temperature']
  assert last['temperatures'] == (1.0, fitted)
  # The last batch is filled up to the size that is compiled.
  assert all(len(call['texts']) == 4 for call in judge.calls)
  told = summary['models']['drafter']
  # Of `truncated` texts there is one, and of the held-out ones none.
  assert told['fit']['truncated'] == 1 and told['truncated'] == 0
  assert told['before']['tokens'] == sum(40 - i % 5 for i in range(6))
  path = tmp_path / 'run'
  assert (path / 'operative_config.gin').read_text() == '# gin'
  header = json.loads((path / 'calibration.json').read_text())
  for name in ('device', 'versions', 'commit', 'host', 'created'):
    assert name in header


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'identity': IDENTITY | {'pair': 'other'}}, "pair is 'none' there"),
    ({'max_length': 39}, 'max_length is 40 there and 39 here'),
    ({'ends': False}, 'ends is True there'),
    ({'count': 5}, 'num_examples is 6 there'),
  ],
)
def test_another_calibration_is_refused(tmp_path, changes, said):
  synthetic_judge.calibrate(synthetic_judge.Judge(), tmp_path / 'run')
  files, judge = _files(tmp_path / 'run'), synthetic_judge.Judge()
  with pytest.raises(results.ResultsError, match=said):
    synthetic_judge.calibrate(judge, tmp_path / 'run', **changes)
  assert not judge.calls and _files(tmp_path / 'run') == files


def test_a_sweep_s_directory_is_refused(tmp_path):
  (tmp_path / 'sweep.json').write_text('{}')
  with pytest.raises(results.ResultsError, match='holds a sweep'):
    synthetic_judge.calibrate(synthetic_judge.Judge(), tmp_path)


@pytest.mark.parametrize('target', ['', None, {'answer': 'x'}, ['a text']])
def test_an_example_without_a_text_is_refused_at_once(tmp_path, target):
  judge = synthetic_judge.Judge()
  some = [*synthetic_judge.examples(3), base.Example(77, '5', target)]
  with pytest.raises(ValueError, match='Example 77 has the target'):
    calibrating.calibrate(
      judge,
      synthetic_judge.examples(2),
      some,
      tmp_path / 'run',
      identity=IDENTITY,
      input_lengths=(8, 8),
      max_length=40,
      ends=True,
      batch_size=4,
      bins=15,
      seed=0,
      replicates=0,
    )
  assert not judge.calls and not (tmp_path / 'run').exists()


def test_without_replicates_there_are_no_intervals(tmp_path):
  summary = synthetic_judge.calibrate(
    synthetic_judge.Judge(), tmp_path / 'run', replicates=0
  )
  for model in summary['models'].values():
    assert model['temperature_interval'] is None
    assert model['ece_change_interval'] is None
    assert np.isfinite(model['before']['ece'])
