"""`speccascade calibrate`, from the command line to what others take."""

import json
import math
import re

import pytest
import seqio

from speccascade_jax import __main__ as commands
from speccascade_jax import deferral
from speccascade_jax.evaluation import methods
from speccascade_jax.launch import calibrate
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import inputs
from speccascade_jax.launch import sweep
from tests.data import chat_vocabulary
from tests.data import tiny_sets
from tests.evaluation import tiny_gemma
from tests.evaluation import tiny_pair

_LEAF = '--gin_file=configs/calibrate.gin'


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """A finished run on the shipped pair; its directory."""
  path = tmp_path_factory.mktemp('calibrate') / 'run'
  assert commands.main(['calibrate', *_small(path)]) == 0
  return path


def _small(path, **changes):
  values = {
    'num_examples': 12,
    'num_held_out': 9,
    'max_length': 24,
    'batch_size': 6,
    'replicates': 30,
    'input_length': 40,
  } | changes
  bound = [f'--gin.calibrate.{k}={v!r}' for k, v in values.items()]
  return [_LEAF, f"--gin.RUN_DIR='{path}'", *bound]


def test_the_table_and_the_files(small, capsys):
  # Nothing is judged again; the table is printed again.
  lines = {f: f.read_bytes() for f in small.rglob('*.jsonl')}
  assert len(lines) == 4
  assert commands.main(['calibrate', *_small(small)]) == 0
  out = capsys.readouterr().out
  assert {f: f.read_bytes() for f in small.rglob('*.jsonl')} == lines
  summary = json.loads((small / 'summary.json').read_text())
  drafter = summary['models']['drafter']
  assert f'{drafter["temperature"]:g} [' in out
  assert f'{100 * drafter["before"]["ece"]:.1f} % [' in out
  assert 'Drafter: at temperature' in out and 'Verifier: at' in out
  assert f'speccascade report {small}' in out
  # A trained model: better than chance, and its temperature is near 1.
  for model in summary['models'].values():
    assert 0.25 < model['before']['accuracy'] < 0.9
    assert 0.6 < model['temperature'] < 1.6
  written = (small / 'operative_config.gin').read_text()
  assert 'calibrate.num_examples = 12' in written


def test_a_sweep_takes_what_comes_out(small):
  file = small / 'confidences.gin'
  summary = json.loads((small / 'summary.json').read_text())
  found = tuple(m['temperature'] for m in summary['models'].values())
  text = file.read_text()
  assert f'--gin_file={file}' in text
  flags = gin_setup.Flags(('configs/quickstart.gin', str(file)))
  built = gin_setup.build(sweep.sweep, flags)
  assert built['confidence_temperatures'] == found
  points = methods.expand(
    built['methods'],
    gammas=(5,),
    temperatures=(0.0,),
    confidence_temperatures=built['confidence_temperatures'],
  )
  by_rule = {p.rule: p.confidence_temperatures for p in points}
  assert by_rule[deferral.chow] == by_rule[deferral.token_v3] == found
  # None where none are looked at: such runs stay what they were.
  assert by_rule[deferral.verifier_only] is by_rule[deferral.lossy] is None
  assert by_rule[None] is None


@pytest.mark.parametrize('command', ['tune', 'evaluate', 'generate'])
def test_the_other_commands_take_it_as_well(small, command):
  module = __import__(f'speccascade_jax.launch.{command}', fromlist=[command])
  leaves = {
    'tune': 'configs/tune.gin',
    'evaluate': 'configs/evaluate.gin',
    'generate': 'gin/runs/generate.gin',
  }
  bindings = ("PAIR = 'debian'", "generate.texts = ('A text.',)")
  flags = gin_setup.Flags(
    (leaves[command], str(small / 'confidences.gin')),
    bindings if command == 'generate' else (),
  )
  built = gin_setup.build(getattr(module, command), flags)
  given = re.search(
    r'= \((.+), (.+)\)', (small / 'confidences.gin').read_text()
  )
  assert built['confidence_temperatures'] == tuple(map(float, given.groups()))


def test_report_draws_what_calibrate_wrote(small, capsys):
  assert commands.main(['report', str(small)]) == 0
  out = capsys.readouterr().out
  assert 'ECE at 1' in out and 'index.html' in out
  folder = small / 'report'
  assert {file.name for file in folder.iterdir()} == {
    *('table.md', 'bins.csv', 'reliability.png', 'index.html')
  }
  assert (folder / 'reliability.png').read_bytes().startswith(b'\x89PNG')


def test_an_untrained_pair_has_no_temperature(tmp_path, capsys):
  pair = tiny_pair.save(tmp_path)
  arguments = _small(tmp_path / 'run', num_examples=2, num_held_out=2)
  assert commands.main(['calibrate', *arguments, f'--gin.PAIR={pair!r}']) == 1
  err = capsys.readouterr().err
  assert 'an end of what was tried' in err
  assert not (tmp_path / 'run/summary.json').exists()
  assert not (tmp_path / 'run/confidences.gin').exists()
  assert commands.main(['report', str(tmp_path / 'run')]) == 1
  assert 'no finished calibration yet' in capsys.readouterr().err


def test_a_few_shot_task_is_calibrated_on_the_splits_that_it_has(
  tmp_path, capsys
):
  for name in ('data', 'pair'):
    (tmp_path / name).mkdir()
  tiny_sets.write(tmp_path / 'data', ['gsm8k'])
  task = 'gemma_gsm8k_8shot_it'
  read = inputs.load_completions(task, 'train', 4, 0, str(tmp_path / 'data'))
  # Random weights, but that they know the words of the answers.
  pair = tiny_gemma.save(tmp_path / 'pair', [row.target for row in read])
  arguments = _small(
    tmp_path / 'run',
    num_examples=8,
    num_held_out=4,
    max_length=12,
    batch_size=4,
    replicates=10,
    input_length=256,
    data_dir=str(tmp_path / 'data'),
  )
  arguments += [f'--gin.TASK={task!r}', f'--gin.PAIR={pair!r}']
  assert commands.main(['calibrate', *arguments]) == 0
  seqio.set_tfds_data_dir_override(None)
  out = capsys.readouterr().out
  assert 'fitted on 8 examples of train, told of 4 of test (48 tokens)' in out
  header = json.loads((tmp_path / 'run/calibration.json').read_text())
  # What ends an answer is a mark in the text, not a token behind it.
  assert header['stop'] == ['<end_of_turn>'] and not header['ends']
  summary = json.loads((tmp_path / 'run/summary.json').read_text())
  # Better than guessing among the vocabulary's pieces.
  for model in summary['models'].values():
    assert model['fit']['surprisal'] < math.log(chat_vocabulary.SIZE) - 1
    assert 0.5 < model['temperature'] < 2.0


@pytest.mark.parametrize(
  ('task', 'wanted'),
  [
    ('debian_en_de', ('validation', 'test')),
    ('gemma_wmt14_en_de_5shot_it', ('validation', 'test')),
    ('gemma_mbpp_3shot', ('validation', 'test')),
    ('gemma_gsm8k_8shot', ('train', 'test')),
    ('gemma_web_questions_1shot', ('train', 'test')),
    ('gemma_squad_v2_1shot', ('train', 'validation')),
    ('gemma_natural_questions_1shot_it', ('train', 'validation')),
    ('gemma_trivia_qa_1shot', ('train', 'validation')),
  ],
)
def test_splits_that_are_left_to_the_task(task, wanted):
  assert calibrate.chosen_splits(task, None, None) == wanted
  # What is said counts, and the other one is found beside it.
  assert calibrate.chosen_splits(task, 'validation', 'x') == ('validation', 'x')
  assert calibrate.chosen_splits(task, None, wanted[1]) == wanted
  assert calibrate.chosen_splits(task, wanted[0], None) == wanted


def test_a_task_without_two_splits_says_which_it_has(tmp_path, capsys):
  arguments = [*_small(tmp_path / 'run', split='test')]
  arguments.append("--gin.TASK='gemma_gsm8k_8shot'")
  assert commands.main(['calibrate', *arguments]) == 1
  err = capsys.readouterr().err
  assert 'has the splits train, test: say which one to fit on' in err
  assert err.count('\n') == 1


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'bins': 1}, 'bins is 1; it must be a whole number, at least 2'),
    ({'batch_size': 0}, 'batch_size is 0'),
    ({'max_length': 2.5}, 'max_length is 2.5'),
    ({'replicates': -1}, 'replicates is -1'),
    (
      {'split': 'test', 'held_out_split': 'test'},
      'tried on other examples',
    ),
  ],
)
def test_what_cannot_be_is_refused_at_once(tmp_path, capsys, changes, said):
  assert commands.main(['calibrate', *_small(tmp_path / 'run', **changes)]) == 1
  assert said in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_a_verifier_alone_is_refused(tmp_path, capsys):
  pair = tiny_pair.save(tmp_path)
  del pair['drafter']
  arguments = [*_small(tmp_path / 'run'), f'--gin.PAIR={pair!r}']
  assert commands.main(['calibrate', *arguments]) == 1
  assert 'has no drafter' in capsys.readouterr().err
