"""`speccascade bench` on the shipped pair, and what it refuses."""

import json

import pytest

from speccascade_jax import __main__ as commands

_CONFIG = """
include 'gin/runs/bench.gin'
include 'gin/methods/verifier.gin'
include 'gin/methods/lossless.gin'
bench.pair = 'debian'
bench.methods = [@verifier/Method(), @lossless/Method()]
bench.input_length = 16
bench.max_length = 8
bench.gamma = 3
bench.repeats = 1
bench.batch_sizes = (1,)
bench.acceptances = (0.0, 1.0)
"""


def _main(tmp_path, *arguments):
  file = tmp_path / 'quick.gin'
  file.write_text(_CONFIG)
  run_dir = f'--gin.RUN_DIR="{tmp_path / "run"}"'
  return commands.main(['bench', f'--gin_file={file}', run_dir, *arguments])


def test_it_measures_calls_rounds_and_methods(tmp_path, capsys):
  assert _main(tmp_path) == 0
  printed = capsys.readouterr().out
  found = json.loads((tmp_path / 'run' / 'bench.json').read_text())
  assert (tmp_path / 'run' / 'bench.md').read_text() == printed
  calls = {row['name']: row for row in found['parts']['calls']}
  assert list(calls) == [
    *('drafter step', 'verifier step', 'verifier call of 4', 'round of 3')
  ]
  for name, row in calls.items():
    assert f'| {name} ' in printed
    assert row['ms_p50'] >= row['ms_best'] > 0
    assert row['times_floor'] > 0
  small, large = calls['drafter step'], calls['verifier step']
  assert small['megabytes'] < large['megabytes']
  verifier, lossless = found['methods']
  assert verifier['name'] == 'Verifier' and verifier['times_verifier'] == 1
  # 8 tokens in at least 2 rounds of 3 + 1.
  assert 1 <= lossless['block_efficiency'] <= 4
  never, always = found['acceptances']
  assert (never['acceptance_rate'], always['acceptance_rate']) == (0.0, 1.0)
  assert (never['block_efficiency'], always['block_efficiency']) == (1.0, 4.0)
  assert found['peak_bytes'] > 2**20


@pytest.mark.parametrize(
  ('binding', 'message'),
  [
    ('acceptance=1.5', 'acceptance is 1.5; it must be from 0 to 1'),
    ('pair=None', 'Give a pair, or the shapes of both'),
    ('batch_sizes=(0,)', r'batch_sizes are (0,); each must be 1 or more'),
    ('max_length=3', 'max_length is 3; it must be above gamma, which is 3'),
    ('input_length=1', 'input_length is 1; it must be at least 2'),
  ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
  tmp_path, capsys, binding, message
):
  assert _main(tmp_path, f'--gin.bench.{binding}') == 1
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()
