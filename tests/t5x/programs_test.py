"""T5X's own infer.py and eval.py, as a user starts them."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import speccascade_jax as sc
from speccascade_jax import zoo
from speccascade_jax.checkpoints import native
from tests.t5x import importing

importing.require()

# ruff: noqa: E402
from tests.t5x import rules
from tests.t5x import steps
from tests.t5x import tasks

_ROOT = pathlib.Path(__file__).parents[2]
_SETTINGS = {'alpha': 0.5, 'gamma': 3}
_FLAGS = ('--gin.ALPHA=0.5', '--gin.GAMMA=3')


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """The shipped pair as T5X writes it, once each way."""
  folder = tmp_path_factory.mktemp('pair')
  *paths, vocabulary = zoo.paths('debian')
  found = {'vocabulary': vocabulary}
  for role, path in zip(('drafter', 'verifier'), paths, strict=True):
    config, params = native.load(path, 'float32')
    for orbax in (False, True):
      kind = 'orbax' if orbax else 't5x'
      found[role, kind] = steps.save(
        folder / f'{role}_{kind}', config, params, orbax=orbax
      )
  return found


def expected(written, kind, rule=sc.chow):
  """What the package itself makes of the same checkpoints."""
  pair = sc.load_pair(
    drafter=written['drafter', kind],
    verifier=written['verifier', kind],
    vocabulary=written['vocabulary'],
    dtype='float32',
  )
  return decode(pair, rule)


def decode(pair, rule):
  return pair.generate(
    [tasks.PREFIX + source for source, _ in tasks.PAIRS],
    rule=rule,
    temperature=0.0,
    input_length=tasks.LENGTHS['inputs'],
    max_length=tasks.LENGTHS['targets'],
    **_SETTINGS,
  )


def run(program, *flags, rule='@deferral.chow', devices=1):
  """`python -m t5x.PROGRAM` from the checkout; it has to succeed."""
  xla_flags = (
    os.environ.get('XLA_FLAGS', '')
    + f' --xla_force_host_platform_device_count={devices}'
  )
  done = subprocess.run(
    [
      *(sys.executable, '-m', f't5x.{program}'),
      f'--gin_file=configs/t5x/{program}.gin',
      '--gin_file=tests/t5x/six_sentences.gin',
      *_FLAGS,
      *([f'--gin.RULE={rule}'] if rule else []),
      *flags,
    ],
    cwd=_ROOT,
    env=os.environ
    | {
      'PYTHONPATH': os.pathsep.join(filter(None, [str(_ROOT), *sys.path])),
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': xla_flags,
    },
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]


def test_the_two_sides_could_differ(written):
  """The rule matters here, and so does every source of a token."""
  out = expected(written, 't5x')
  assert (out.tokens != expected(written, 't5x', sc.verifier_only).tokens).any()
  assert (out.tokens != expected(written, 't5x', sc.drafter_only).tokens).any()
  assert set(np.unique(out.provenance)) == {0, 1, 2, 3}


@pytest.mark.parametrize(
  ('kind', 'devices'), [('t5x', 1), ('t5x', 2), ('orbax', 1)]
)
def test_infer_writes_what_the_package_decodes(
  kind, devices, written, tmp_path
):
  run(
    'infer',
    f"--gin.INFER_OUTPUT_DIR='{tmp_path}'",
    f"--gin.CHECKPOINT_PATH='{written['verifier', kind]}'",
    f"--gin.DRAFTER_CHECKPOINT_PATH='{written['drafter', kind]}'",
    f'--gin.partitioning.PjitPartitioner.num_partitions={devices}',
    devices=devices,
  )
  (file,) = tmp_path.glob('*.jsonl-00000-of-00001')
  rows = [json.loads(line) for line in file.read_text().splitlines()]
  out = expected(written, kind)
  assert [row['prediction'] for row in rows] == out.texts
  assert [row['aux']['provenance'] for row in rows] == out.provenance.tolist()
  for name in ('drafter_steps', 'verifier_calls', 'drafted', 'accepted'):
    assert [row['aux'][name] for row in rows] == out.stats[name].tolist(), name


def test_infer_takes_any_format_and_a_rule_of_ones_own(tmp_path):
  """The shipped pair, as the config has it, whose paths end in no step."""
  run(
    'infer',
    '--gin_file=tests/t5x/own_rule.gin',
    f"--gin.INFER_OUTPUT_DIR='{tmp_path}'",
    rule=None,
  )
  (file,) = tmp_path.glob('*.jsonl-00000-of-00001')
  rows = [json.loads(line) for line in file.read_text().splitlines()]
  pair = sc.load_pair('debian', dtype='float32')
  out = decode(pair, functools.partial(rules.wary_diff, least=0.9))
  assert (out.provenance != decode(pair, rules.wary_diff).provenance).any()
  assert [row['prediction'] for row in rows] == out.texts
  assert [row['aux']['provenance'] for row in rows] == out.provenance.tolist()


@pytest.mark.parametrize('kind', ['t5x', 'orbax'])
def test_eval_scores_what_the_package_decodes(kind, written, tmp_path):
  run(
    'eval',
    f"--gin.EVAL_OUTPUT_DIR='{tmp_path}'",
    # Folders of steps, of which the latest is wanted.
    f"--gin.CHECKPOINT_PATH='{written['verifier', kind].parent}'",
    f"--gin.DRAFTER_CHECKPOINT_PATH='{written['drafter', kind].parent}'",
    "--gin.utils.RestoreCheckpointConfig.mode='latest'",
  )
  folder = tmp_path / 'inference_eval'
  (scores,) = (folder / 'six_sentences-metrics.jsonl').read_text().splitlines()
  out = expected(written, kind)
  bleu = tasks.metrics.bleu([target for _, target in tasks.PAIRS], out.texts)
  assert json.loads(scores)['step'] == 7
  assert json.loads(scores)['bleu'] == pytest.approx(bleu['bleu'])
  lines = (folder / 'six_sentences-000007.jsonl').read_text().splitlines()
  assert [json.loads(line)['prediction'] for line in lines] == out.texts
