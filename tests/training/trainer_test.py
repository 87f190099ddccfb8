"""The loop: resume after a kill, reports, checkpoints, the clock."""

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from speccascade_jax.training import optimizer
from speccascade_jax.training import run_directory
from speccascade_jax.training import train_state
from speccascade_jax.training import train_step
from speccascade_jax.training import trainer
from tests.training import tiny_run

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run without an interruption: its folder and its final state."""
  folder = tmp_path_factory.mktemp('whole')
  return folder, tiny_run.run(folder)


def _rows(folder):
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def _assert_same_bits(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  for x, y in pairs:
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_a_killed_run_ends_with_the_same_bits(whole, tmp_path):
  whole_folder, whole_state = whole
  process = subprocess.Popen(
    [sys.executable, '-m', 'tests.training.tiny_run', str(tmp_path)],
    cwd=_ROOT,
    env=os.environ | {'PYTHONPATH': str(_ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  )
  # Killed in the tenth step: the last checkpoint is of step 8.
  for line in process.stdout:
    if int(line) == 9:
      process.send_signal(signal.SIGKILL)
      break
  assert process.wait() == -signal.SIGKILL
  taken = []
  state = tiny_run.run(tmp_path, taken.append)
  assert taken[0] == 8  # It went on, and did not begin again.
  assert int(state.step) == tiny_run.STEPS
  _assert_same_bits(state, whole_state)
  # No line of metrics is lost or repeated; speeds differ, figures do not.
  resumed, straight = _rows(tmp_path), _rows(whole_folder)
  for row in resumed + straight:
    row.pop('train/tokens_per_s', None)
  assert resumed == straight


def test_a_finished_run_does_nothing_more(whole):
  folder, state = whole
  before = (folder / 'metrics.jsonl').read_bytes()
  again = tiny_run.run(folder, announce=lambda _: pytest.fail('took a batch'))
  _assert_same_bits(again, state)
  assert (folder / 'metrics.jsonl').read_bytes() == before


def test_what_is_reported_when(whole):
  rows = _rows(whole[0])
  train = [r['step'] for r in rows if 'train/loss' in r]
  validation = [r['step'] for r in rows if 'validation/nll' in r]
  assert train == [2, 4, 6, 8, 10, 12, 14]
  assert validation == [6, 12, 14]
  rate = {
    r['step']: r['train/learning_rate'] for r in rows if 'train/loss' in r
  }
  # Mean of the steps 12 and 13, counted from 0: rsqrt decay times cool-down.
  expected = [1e-2 * (3 / (s + 1)) ** 0.5 * (14 - s) / 4 for s in (12, 13)]
  assert min(expected) < rate[14] < max(expected)
  assert all(np.isfinite(list(r.values())).all() for r in rows)


def test_the_latest_and_the_best_checkpoints_are_kept(tmp_path):
  run = run_directory.RunDirectory(tmp_path, keep=2)
  opt = optimizer.adamw()

  def state(step):
    made = train_state.create(tiny_run.bigram_params(), opt, 0, False)
    return train_state.TrainState(
      step=made.step + step,
      cooldown_start=made.cooldown_start,
      params=jax.tree.map(lambda x: x + step, made.params),
      opt_state=made.opt_state,
      average=None,
    )

  for step, nll in [(1, 3.0), (2, 1.0), (3, None), (4, 2.0), (5, 2.5)]:
    run.save(state(step), None if nll is None else {'validation/nll': nll})
  kept = sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir())
  assert kept == [2, 4, 5]
  assert run.latest_step == 5
  assert run.best_step == 2
  _assert_same_bits(run.restore(state(0), step=2), state(2))


def test_a_checkpoint_of_another_model_is_refused(whole):
  run = run_directory.RunDirectory(whole[0])
  params = {'w': np.zeros((2, 2), np.float32)}
  other = train_state.create(params, optimizer.adamw(), 0, True)
  with pytest.raises(ValueError, match=r'checkpoints/14 cannot be restored'):
    run.restore(other)


def test_metrics_behind_the_checkpoint_and_torn_lines_go(tmp_path):
  run = run_directory.RunDirectory(tmp_path)
  for step in (2, 4, 6):
    run.report(step, {'train/loss': 1.0})
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 8, "tra')
  run.truncate_metrics(4)
  assert [row['step'] for row in _rows(tmp_path)] == [2, 4]


def _endless(start):
  return map(tiny_run.batch, itertools.count(start))


def _run_bigram(run_dir, loop, batches=_endless, **options):
  return trainer.train(
    run_dir,
    tiny_run.bigram_params(),
    train_step.teacher_forcing(tiny_run.bigram),
    optimizer.adafactor(),
    optimizer.schedule(1e-2, 2, 'constant'),
    batches,
    [tiny_run.batch(1_000_000)],
    loop,
    progress=False,
    **options,
  )


def test_when_time_is_up_the_learning_rate_still_falls(tmp_path):
  state = _run_bigram(
    tmp_path,
    trainer.Loop(num_steps=10_000, cooldown_steps=4, max_seconds=1e-9),
  )
  # The first step finds the time over; four more cool down.
  assert int(state.step) == 5
  assert int(state.cooldown_start) == 1
  assert run_directory.RunDirectory(tmp_path).latest_step == 5
  (row,) = (r for r in _rows(tmp_path) if 'train/learning_rate' in r)
  # Warm-up by half, then the peak, times 1, 1, 3/4, 1/2 and 1/4; weighted by
  # the targets of each batch.
  rates = np.array([0.5, 1.0, 0.75, 0.5, 0.25]) * 1e-2
  weights = [tiny_run.batch(i)['loss_weights'].sum() for i in range(5)]
  expected = np.average(rates, weights=weights)
  assert row['train/learning_rate'] == pytest.approx(expected, rel=1e-5)


def test_a_resumed_run_may_be_longer_until_it_cools_down(tmp_path, capfd):
  loop = dict(cooldown_steps=2, checkpoint_every=3)
  state = _run_bigram(tmp_path, trainer.Loop(num_steps=3, **loop))
  assert int(state.step) == 3
  # It has cooled down; more steps would be made with another learning rate.
  state = _run_bigram(tmp_path, trainer.Loop(num_steps=9, **loop))
  assert int(state.step) == 3
  assert 'ends at 3, not at 9' in ''.join(capfd.readouterr())
  # Without a cool-down there is nothing to keep to.
  other = tmp_path / 'other'
  for num_steps in (3, 5):
    state = _run_bigram(other, trainer.Loop(num_steps=num_steps))
    assert int(state.step) == num_steps
  assert [row['step'] for row in _rows(other) if 'train/loss' in row] == [3, 5]


def test_a_killed_run_may_be_resumed_with_another_length(tmp_path):
  class Killed(Exception):
    pass

  def batches(start):
    for number in itertools.count(start):
      if number == 5:
        raise Killed
      yield tiny_run.batch(number)

  loop = dict(cooldown_steps=2, checkpoint_every=4)
  with pytest.raises(Killed):
    _run_bigram(tmp_path, trainer.Loop(num_steps=20, **loop), batches=batches)
  state = _run_bigram(tmp_path, trainer.Loop(num_steps=9, **loop))
  assert (int(state.step), int(state.cooldown_start)) == (9, 7)


def test_scores_and_the_writer_get_their_figures(tmp_path):
  written, scored = [], []

  class Writer:
    def write_scalars(self, step, scalars):
      written.append((step, set(scalars)))

    def flush(self):
      pass

  def score(params):
    scored.append(np.asarray(params['table']))
    return {'bleu': 12.5}

  state = _run_bigram(
    tmp_path,
    trainer.Loop(num_steps=4, report_every=4, score_every=2),
    score=score,
    writer=Writer(),
  )
  bleu = [step for step, names in written if 'validation/bleu' in names]
  assert bleu == [2, 4]
  assert len(scored) == 2 and (scored[0] != scored[1]).any()
  np.testing.assert_array_equal(scored[-1], state.eval_params['table'])
  assert {'step': 4, 'validation/bleu': 12.5} in _rows(tmp_path)


@pytest.mark.parametrize(
  'arguments, message',
  [
    (dict(num_steps=0), 'num_steps must be at least 1, got 0'),
    (dict(keep=0), 'keep must be at least 1, got 0'),
    (dict(cooldown_steps=11), 'num_steps=10, got 11'),
    (dict(average_decay=1.0), 'got 1.0'),
  ],
)
def test_loop_errors_name_the_value(arguments, message):
  with pytest.raises(ValueError, match=message):
    trainer.Loop(**(dict(num_steps=10) | arguments))


def test_there_has_to_be_something_to_validate_on():
  with pytest.raises(ValueError, match='no validation batch'):
    trainer.validation_means(lambda *_: {}, {}, None, [])
