"""`speccascade train`, from the command line to a model that loads."""

import json

import jax
import numpy as np
import pytest

from speccascade_jax import __main__ as commands
from speccascade_jax.checkpoints import load as checkpoints
from speccascade_jax.checkpoints import native
from speccascade_jax.models import families
from speccascade_jax.models.t5 import config as t5_config

# Texts are cut to one narrow shape, so that each step compiles once.
_COMMON = """
include 'gin/runs/train.gin'
TASK = 'debian_en_de'
LENGTHS = {{'inputs': 12, 'targets': 12}}
RUN_DIR = '{run_dir}'
train.model = @T5Config()
T5Config.vocab_size = 4096
T5Config.emb_dim = 8
T5Config.num_heads = 1
T5Config.head_dim = 8
T5Config.mlp_dim = 8
T5Config.num_encoder_layers = 1
T5Config.num_decoder_layers = 1
T5Config.mlp_activations = ('relu',)
T5Config.logits_via_embedding = True
T5Config.dropout_rate = 0.1
train.batch_tokens = 3072
train.optimizer = @adafactor()
schedule.peak = 1e-2
schedule.warmup_steps = 2
schedule.decay = 'rsqrt'
Loop.cooldown_steps = 1
Loop.report_every = 1
"""

_VERIFIER = (
  _COMMON
  + """
train.objective = @teacher_forcing
train.export_dtype = 'float32'
train.score_examples = 3
Loop.num_steps = {num_steps}
"""
)

_DRAFTER = (
  _COMMON
  + """
train.objective = @distillation
distillation.mixture = 0.9
train.teacher = '{teacher}'
train.generated = @Generated()
Generated.temperature = 1.0
Generated.share = 0.5
Generated.num_examples = 5
Generated.batch_size = 5
Loop.num_steps = 2
"""
)


def _command(path, text, **values):
  path.write_text(text.format(**values))
  return commands.main(['train', f'--gin_file={path}'])


@pytest.fixture(scope='module')
def verifier(tmp_path_factory):
  """A verifier of two steps: its run directory."""
  folder = tmp_path_factory.mktemp('verifier')
  config = folder / 'train.gin'
  run_dir = folder / 'run'
  assert _command(config, _VERIFIER, run_dir=run_dir, num_steps=2) == 0
  return run_dir


def _rows(run_dir):
  lines = (run_dir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_training_leaves_a_model_metrics_and_its_config(verifier):
  config, params = native.load(verifier / 'export')
  # With the task's vocabulary, so that it decodes without being given one.
  words = checkpoints.vocabulary_of(verifier / 'export')
  assert words.piece(words.eos_id) == '</s>' and words.size == 4096
  assert config.emb_dim == 8 and config.dropout_rate == 0.0
  fresh = families.init(config, jax.random.key(0))
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params, fresh)
  assert min(jax.tree.leaves(moved)) > 0.0  # Every tensor has learned.
  rows = _rows(verifier)
  assert [r['step'] for r in rows if 'train/loss' in r] == [1, 2]
  (score,) = (r for r in rows if 'validation/bleu' in r)
  assert score['step'] == 2 and 0.0 <= score['validation/bleu'] <= 100.0
  assert any('validation/nll' in row for row in rows)
  operative = (verifier / 'operative_config.gin').read_text()
  assert 'T5Config.emb_dim = 8' in operative
  assert list(verifier.glob('events.out.tfevents.*'))


def test_a_drafter_is_distilled_on_texts_of_its_verifier(
  verifier, tmp_path, capsys
):
  run_dir = tmp_path / 'run'
  status = _command(
    tmp_path / 'distill.gin',
    _DRAFTER,
    run_dir=run_dir,
    teacher=verifier / 'export',
  )
  assert status == 0, capsys.readouterr().err
  lines = (run_dir / 'generated.jsonl').read_text().splitlines()
  assert len(lines) == 1 + 5
  made_by = json.loads(lines[0])['teacher']
  assert made_by == native.digest(verifier / 'export')
  validation = [r for r in _rows(run_dir) if 'validation/kl' in r]
  assert validation[-1]['validation/kl'] > 0.0
  config, _ = native.load(run_dir / 'export')
  assert config.vocab_size == 4096


@pytest.mark.parametrize(
  'binding, message',
  [
    ('train.teacher="nowhere"', 'the objective follows no teacher'),
    ('train.objective=@distillation', 'train.teacher is None'),
    ('train.initial="nowhere"', 'There is no checkpoint at nowhere'),
  ],
)
def test_mistakes_end_in_a_message(tmp_path, capsys, binding, message):
  path = tmp_path / 'train.gin'
  path.write_text(_VERIFIER.format(run_dir=tmp_path / 'run', num_steps=2))
  arguments = [f'--gin_file={path}', f'--gin.{binding}']
  if '@distillation' in binding:
    arguments.append('--gin.distillation.mixture=0.5')
  assert commands.main(['train', *arguments]) == 1
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_a_checkpoint_of_another_shape_is_not_fine_tuned(verifier, capsys):
  other = t5_config.T5Config(4096, 8, 1, 8, 8, 2, 1, ('relu',), True)
  folder = verifier.parent / 'other'
  native.save(folder, other, families.init(other, jax.random.key(0)))
  path = verifier.parent / 'train.gin'
  arguments = [f'--gin_file={path}', f'--gin.train.initial="{folder}"']
  arguments.append(f'--gin.RUN_DIR="{verifier.parent / "new"}"')
  assert commands.main(['train', *arguments]) == 1
  assert f'{folder} holds a model of T5Config' in capsys.readouterr().err


def test_a_run_is_not_taken_up_with_another_config(verifier, capsys):
  path = verifier / 'operative_config.gin'
  kept, rows = path.read_text(), _rows(verifier)
  bindings = ['schedule.peak=2e-2', 'SEED=1', 'Loop.num_steps=3']
  arguments = [f'--gin_file={verifier.parent / "train.gin"}']
  arguments += [f'--gin.{binding}' for binding in bindings]
  assert commands.main(['train', *arguments]) == 1
  message = capsys.readouterr().err
  assert 'schedule.peak is 0.01 there and 0.02 here' in message
  # By the names of what reads the macro, which is one line of the config.
  assert 'Loop.seed is 0 there and 1 here' in message
  assert 'train.seed is 0 there and 1 here' in message
  assert 'Loop.num_steps is' not in message
  assert path.read_text() == kept and _rows(verifier) == rows


def test_what_does_not_bear_on_the_past_may_change(tmp_path, capsys):
  config, run_dir = tmp_path / 'train.gin', tmp_path / 'run'
  assert _command(config, _VERIFIER, run_dir=run_dir, num_steps=2) == 0
  arguments = [f'--gin_file={config}', '--gin.Loop.checkpoint_every=7']
  arguments.append(f'--gin.train.export_dir="{tmp_path / "other"}"')
  assert commands.main(['train', *arguments]) == 0, capsys.readouterr().err
  assert native.load(tmp_path / 'other')
  stored = (run_dir / 'operative_config.gin').read_text()
  assert 'Loop.checkpoint_every = 7' in stored
