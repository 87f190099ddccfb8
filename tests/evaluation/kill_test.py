"""A sweep killed with SIGKILL, at points chosen at random, and restarted."""

import json
import multiprocessing
import random
import time

from speccascade_jax.evaluation import sweep
from tests.evaluation import scripted

_EXAMPLES = 30
_TOTAL = 8 * _EXAMPLES  # Four points at two temperatures.
_MS = 1e-3


def run(run_dir, seconds):
  """The whole sweep, in a process of its own."""
  sweep.sweep(
    scripted.Scripted(dict.fromkeys(('verifier', 'drafter', 'pair'), seconds)),
    scripted.examples(_EXAMPLES),
    scripted.points(temperatures=(0.0, 1.0)),
    [scripted.agreement],
    run_dir,
    **scripted.SWEEP,
  )


def _lines(run_dir):
  return sum(
    path.read_bytes().count(b'\n')
    for path in run_dir.glob('runs/*/examples.jsonl')
  )


def _content(run_dir):
  """Every line but its latency, and what the summaries make of them."""
  content = {}
  for path in sorted(run_dir.glob('runs/*/examples.jsonl')):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
      del row['latency_ms'], row['start']
    summary = json.loads((path.parent / 'summary.json').read_text())
    kept = ('quality', 'acceptance_rate', 'num_examples')
    content[path.parent.name] = rows, {k: summary[k] for k in kept}
  return content


def test_nothing_is_lost_or_repeated_by_kills(tmp_path):
  # One import of the package for all the processes to be killed.
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['tests.evaluation.kill_test'])
  dice = random.Random(20240519)
  killed = tmp_path / 'killed'
  progress = []
  for attempt in range(12):
    process = context.Process(target=run, args=(killed, 4 * _MS))
    process.start()
    # They die a random number of lines later, every third at any time from
    # its start on, the header and the warm-up included.
    goal = _lines(killed) + dice.randint(1, 12)
    patience = dice.uniform(0, 0.8) if attempt % 3 == 0 else 60.0
    deadline = time.monotonic() + patience
    while _lines(killed) < goal and time.monotonic() < deadline:
      time.sleep(_MS)
    time.sleep(dice.uniform(0, 5) * _MS)
    process.kill()
    process.join()
    assert process.exitcode == -9
    progress.append(_lines(killed))
  # The kills struck a sweep that moved, and did not find it finished.
  assert progress == sorted(progress)
  assert len(set(progress)) > 6
  assert 0 < progress[-1] < _TOTAL
  run(killed, 0.0)
  assert _lines(killed) == _TOTAL
  run(tmp_path / 'whole', 0.0)
  assert _content(killed) == _content(tmp_path / 'whole')
