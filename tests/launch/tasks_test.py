"""What commands make of a task's stops and of data that are not there."""

import json

import pytest
import seqio

from speccascade_jax import __main__ as commands
from speccascade_jax.launch import chosen
from tests.data import tiny_sets
from tests.evaluation import tiny_pair

_EVALUATE = """
include 'gin/runs/evaluate.gin'
RUN_DIR = '{run_dir}'
TASK = '{task}'
PAIR = {pair}
alone/Method.model = 'drafter'
evaluate.method = @alone/Method()
evaluate.temperature = 0.0
evaluate.split = 'test'
evaluate.max_length = 4
evaluate.input_length = 64
evaluate.num_examples = 2
evaluate.batch_size = 2
evaluate.data_dir = '{sets}'
"""
_TASK = 'gemma_web_questions_1shot'


@pytest.fixture(autouse=True)
def no_override(monkeypatch):
  monkeypatch.delenv('TFDS_DATA_DIR', raising=False)
  yield
  seqio.set_tfds_data_dir_override(None)


@pytest.fixture(scope='module')
def values(tmp_path_factory):
  folder = tmp_path_factory.mktemp('values')
  sets = folder / 'sets'
  sets.mkdir()
  tiny_sets.write(sets)
  return {'pair': tiny_pair.save(folder / 'pair'), 'sets': sets}


def _run(tmp_path, values, *bindings, task=_TASK, command='evaluate'):
  run_dir = tmp_path / 'run'
  text = _EVALUATE.replace('evaluate', command)
  file = tmp_path / 'a.gin'
  file.write_text(text.format(run_dir=run_dir, task=task, **values))
  flags = [f'--gin.{binding}' for binding in bindings]
  return commands.main([command, f'--gin_file={file}', *flags])


@pytest.mark.parametrize(
  ('bindings', 'stops'),
  [
    ((), ['\n\n', '\nQuestion:']),
    (('evaluate.stop=()',), None),
    (('evaluate.stop="."',), ['.']),
  ],
)
def test_the_task_s_own_stops_unless_others_are_given(
  tmp_path, values, bindings, stops
):
  assert _run(tmp_path, values, *bindings) == 0
  folder = tmp_path / 'run'
  found = json.loads((folder / 'evaluation.json').read_text())
  assert found.get('stop') == stops
  assert set(found['quality']) == {'exact_match', 'f1'}
  lines = (folder / 'predictions.jsonl').read_text().splitlines()
  row = json.loads(lines[0])
  assert row['source'].endswith('\nAnswer:') and 'train' in row['source']
  assert len(row['target']) == 2


def test_missing_data_end_in_a_sentence_before_any_model(
  tmp_path, values, capsys
):
  nowhere = values | {'pair': {'verifier': 'nowhere'}, 'sets': tmp_path / 'no'}
  assert _run(tmp_path, nowhere) == 1
  message = capsys.readouterr().err
  assert f'web_questions is not in {tmp_path / "no"}: prepare it' in message
  assert 'nowhere' not in message and 'Traceback' not in message
  assert not (tmp_path / 'run').exists() and not (tmp_path / 'no').exists()


_TRAIN = """
include 'gin/runs/train.gin'
include 'gin/models/t5_1_1_small.gin'
include 'gin/tasks/wmt14_en_de.gin'
RUN_DIR = '{run_dir}'
train.model = @T5Config()
train.objective = @teacher_forcing
train.batch_tokens = 320
train.optimizer = @adafactor()
schedule.peak = 1e-3
schedule.warmup_steps = 1
schedule.decay = 'rsqrt'
Loop.num_steps = 1
Loop.cooldown_steps = 0
"""


@pytest.mark.parametrize('there', [False, True])
def test_training_wants_data_and_then_a_vocabulary(
  tmp_path, values, capsys, there, monkeypatch
):
  file = tmp_path / 'a.gin'
  file.write_text(_TRAIN.format(run_dir=tmp_path / 'run'))
  folder = values['sets'] if there else tmp_path / 'no'
  monkeypatch.setenv('TFDS_DATA_DIR', str(folder))
  # A local file in place of the bucket, which may or may not be reached.
  missing = f'--gin.train.vocabulary="{tmp_path / "spiece.model"}"'
  assert commands.main(['train', f'--gin_file={file}', missing]) == 1
  message = capsys.readouterr().err
  said = 'No vocabulary at' if there else 'wmt14_translate/de-en is not in'
  assert said in message and 'Traceback' not in message
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('sources', 'prefix'),
  [
    (['summarize: It is a: b', 'summarize: It is c'], 'summarize: '),
    (['Question: x\nAnswer: y\n\nQuestion: a', 'Question: x\nAnswer: z'], ''),
    (['ab', 'ac'], ''),
  ],
)
def test_a_few_shot_prompt_is_no_prefix(sources, prefix):
  assert chosen.common_prefix(sources) == prefix
