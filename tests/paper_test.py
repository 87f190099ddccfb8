"""The paper's experiments, each from its config to its report.

Tiny random pairs of the same family stand for the models, a few made-up
examples in TFDS's own files for the data sets; method by method, prompts,
decoding, metrics, results and reports are those of the real run. Gemma's reads
a vocabulary of its own kind, and says <end_of_turn> often enough to be stopped
by it. By default the first and the last method of every leaf are run, and of
each task one pair is reported with figures and pages; with -m slow all of it.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
import re
import subprocess

import pytest
import seqio

from speccascade_jax import footprint
from speccascade_jax import pair as pair_lib
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax.checkpoints import native
from speccascade_jax.data import sandbox
from speccascade_jax.data import task_texts
from speccascade_jax.decoding import call_times
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import model_names
from speccascade_jax.launch import plan
from speccascade_jax.launch import planning_texts
from speccascade_jax.launch import report
from speccascade_jax.launch import sweep as sweep_command
from speccascade_jax.launch import train as train_command
from speccascade_jax.reports import headline
from speccascade_jax.reports import headline_tables
from speccascade_jax.reports import runs
from speccascade_jax.reports import tables
from tests.data import chat_vocabulary
from tests.data import tiny_sets
from tests.evaluation import tiny_gemma
from tests.evaluation import tiny_pair

_ROOT = pathlib.Path(__file__).parents[1]
_LEAVES = sorted(
  str(path.relative_to(_ROOT))
  for pattern in ('configs/paper/**/*.gin', 'experiments/paper_*/*.gin')
  for path in _ROOT.glob(pattern)
)
_TRAINED = [file for file in _LEAVES if '/finetune/' in file]
_SWEPT = [file for file in _LEAVES if file not in _TRAINED]
# Whose memory is traced by default.
_TRACED = (
  'configs/paper/finetune/t5_small/wmt14_en_de.gin',
  'configs/paper/t5_small_large/wmt14_en_de.gin',
)
_WHOLE = tiny_sets.SIZES['wmt14_translate/de-en']['validation']
# Shapes of all runs, so that a family's programs are compiled once. The longest
# few-shot prompts do not fit, and are cut.
_SHAPES = {
  't5': {'input_length': 24, 'max_length': 5},
  'gemma': {'input_length': 256, 'max_length': 10},
}


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
  monkeypatch.chdir(_ROOT)
  # Nobody reads the times of single calls: one turn will do.
  once = functools.partial(call_times.quickest_ms, repeats=1)
  monkeypatch.setattr(call_times, 'quickest_ms', once)
  yield
  seqio.set_tfds_data_dir_override(None)


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  tiny_sets.write(folder)
  return str(folder)


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  """Arguments of `load_pair`, by family."""
  folder = tmp_path_factory.mktemp('pairs')
  return {
    't5': tiny_pair.save(folder / 't5'),
    'gemma': tiny_gemma.save(tmp_path_factory.mktemp('gemma')),
  }


@pytest.fixture
def read(monkeypatch):
  """Inputs by text, as token ids, that models have got to read."""
  found = {}
  encode = pair_lib.Pair._encode

  def recorded(self, texts, input_length):
    inputs, cut = encode(self, texts, input_length)
    found.update(zip(texts, inputs.tolist()))
    return inputs, cut

  monkeypatch.setattr(pair_lib.Pair, '_encode', recorded)
  return found


def _build(command, file):
  return gin_setup.build(command, gin_setup.Flags((file,)))


def _run(file, methods, pairs, data_dir, run_dir, num_examples=3):
  """Runs methods of a leaf, by number, on a few examples; the arguments."""
  arguments = _build(sweep_command.sweep, file)
  family = arguments['pair']['models'][0].split('_')[0]
  chosen = [arguments['methods'][i] for i in methods]
  assert family == 'gemma' or 5 in arguments['gammas']
  # What the leaf asks for beyond this is what makes it long.
  arguments |= {
    'pair': pairs[family],
    'data_dir': data_dir,
    'run_dir': str(run_dir),
    'methods': chosen,
    'temperatures': arguments['temperatures'][-1:],
    # One that all leaves of a family have.
    'gammas': arguments['gammas'][:1] if family == 'gemma' else (5,),
    'num_examples': num_examples,
    'trials': 1,
    'seed': 1,
    'replicates': 3,
    **_SHAPES[family],
  }
  if arguments['primary_metric'] == 'pass_at_1':
    arguments['run_programs'] = True
  sweep_command.sweep(**arguments)
  header = json.loads((run_dir / 'sweep.json').read_text())
  assert header['gin_files'] == [str(_ROOT / file)]
  alphas = sum(max(1, len(method.alphas)) for method in chosen)
  assert len(header['runs']) == alphas
  for key in header['runs']:
    folder = run_dir / 'runs' / key
    summary = json.loads((folder / 'summary.json').read_text())
    assert summary['num_examples'] == (num_examples or _WHOLE)
    assert 0 <= summary['quality'][arguments['primary_metric']] <= 100
    assert math.isfinite(summary['relative_latency'])
  rows = _lines(run_dir / 'examples.jsonl')
  assert len(rows) == (num_examples or _WHOLE)
  assert all(row['source'] for row in rows)
  return arguments


def _lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_pair_has_its_tasks():
  t5 = {'wmt14_en_de', 'xsum', 'cnn_dailymail'}
  gemma = {
    *('wmt14_en_de_5shot', 'cnn_dailymail_1shot', 'gsm8k_8shot', 'mbpp_3shot'),
    *('squad_v2_1shot', 'web_questions_1shot', 'natural_questions_1shot'),
    'trivia_qa_1shot',
  }
  found = {}
  for path in _ROOT.glob('configs/paper/*/*.gin'):
    found.setdefault(path.parent.name, set()).add(path.stem)
  assert found == {
    't5_small_large': t5,
    't5_small_xl': t5,
    'gemma_2b_9b': gemma,
    'gemma_2b_27b': gemma,
  }
  for size in ('small', 'large', 'xl'):
    folder = _ROOT / f'configs/paper/finetune/t5_{size}'
    assert {path.stem for path in folder.glob('*.gin')} == t5


@pytest.mark.parametrize('file', _SWEPT)
def test_a_leaf_goes_from_prompt_to_report(
  file, pairs, data_dir, tmp_path, read, capsys
):
  if 'mbpp' in file:
    _skip_without_sandbox()
  arguments = _run(file, (0, -1), pairs, data_dir, tmp_path / 'run')
  if 'gemma' in file:
    words = vocabularies.Vocabulary(pairs['gemma']['vocabulary'])
    own = _build(sweep_command.sweep, file)
    _check_prompts(read, words, own['input_length'], arguments['task'])
    _check_stops(tmp_path / 'run')
  if re.search('_(27b|xl)/', file):
    sweep = runs.load(tmp_path / 'run')
    out = tables.text(sweep, width=200)
    out += headline_tables.text(headline.find(sweep), sweep.primary_metric)
  else:
    out = _reported(file, tmp_path / 'run', capsys)
  _check_report(out, tmp_path / 'run', arguments)


def _reported(file, run_dir, capsys):
  """What `report` prints, as the leaf's header calls it."""
  beside = re.search(r'# +--expected=(\S+)', (_ROOT / file).read_text())
  assert (beside is None) == ('gemma' in file)
  capsys.readouterr()
  report.report(run_dir=str(run_dir), expected=beside and beside[1])
  out = capsys.readouterr().out
  assert (run_dir / 'report/index.html').stat().st_size > 10_000
  if beside is not None:
    task = json.loads((run_dir / 'sweep.json').read_text())['task']
    number = {'wmt14_en_de': 3000, 'xsum': 11305, 'cnn_dailymail': 13368}[task]
    assert re.search(rf'num_examples +Verifier, T 1 +{number} +3 ', out)
  return out


def _check_prompts(read, words, input_length, task):
  """They are whole in the leaf, as Gemma wants them, and only here cut."""
  start, end = (words.encode(mark)[0] for mark in chat_vocabulary.MARKS)
  shots = int(re.search(r'_(\d)shot', task)[1])
  room = _SHAPES['gemma']['input_length']
  assert len(read) == 3
  for text, padded in read.items():
    whole = words.encode(text)
    assert whole[0] == start and whole.count(start) == 2 * (shots + 1)
    assert whole.count(end) == 2 * shots + 1
    assert 1 + len(whole) <= input_length
    ids = [i for i in padded if i]
    # The question comes last and stays, whatever is cut.
    assert ids == [words.bos_id, *whole[-(room - 1) :]]
    assert (1 + len(whole) > room) == (shots > 1), 'some are, some not'
    # `decode` would end with the first turn; the cut may be within a letter.
    heard = b''.join(words.surfaces[i] for i in ids[1:]).decode(errors='ignore')
    *_, question, answer = heard.split('<start_of_turn>')
    assert question in text and question.startswith('user\n')
    assert question.endswith('<end_of_turn>\n') and len(question) > 25
    assert answer == 'model\n' and text.endswith(
      question + '<start_of_turn>model\n'
    )


def _check_stops(run_dir):
  """Some texts end with the turn, and nobody sees what ended them."""
  rows = [r for log in run_dir.glob('runs/*/*.jsonl') for r in _lines(log)]
  stopped = [
    r for r in rows if r['output_tokens'] < _SHAPES['gemma']['max_length']
  ]
  assert any(row['prediction'] for row in stopped)
  assert not any('_turn>' in row['prediction'] for row in rows)


def _check_report(out, run_dir, arguments):
  sweep = runs.load(run_dir)
  last = sweep.runs[-1].label
  assert f'{arguments["task"]}/{arguments["split"]}, 3 examples' in out
  assert 'Verifier' in out and out.count(last) >= 5
  assert "wall clock: latency at the verifier's" in out


@pytest.mark.slow
@pytest.mark.parametrize('file', _SWEPT)
def test_all_methods_of_a_leaf_run(file, pairs, data_dir, tmp_path, capsys):
  if 'mbpp' in file:
    _skip_without_sandbox()
  every = range(len(_build(sweep_command.sweep, file)['methods']))
  arguments = _run(file, every, pairs, data_dir, tmp_path / 'run')
  out = _reported(file, tmp_path / 'run', capsys)
  _check_report(out, tmp_path / 'run', arguments)


@pytest.mark.parametrize('file', _SWEPT)
def test_a_leaf_names_the_models_that_its_name_says(file):
  names = _build(sweep_command.sweep, file)['pair']['models']
  small, large = re.search(
    r'(2b|small)_(\w+?)/', file.replace('experiments/', 'small_large/')
  ).groups()
  assert [name.split('_')[-1] for name in names] == [small, large]
  assert all(model_names.config(name).emb_dim >= 512 for name in names)


def _skip_without_sandbox():
  try:
    sandbox.check()
  except sandbox.SandboxError as error:
    pytest.skip(f'no sandbox for programs here: {error}')


@pytest.mark.parametrize(
  'file',
  [
    pytest.param(f, marks=[] if f in _TRACED else [pytest.mark.slow])
    for f in _LEAVES
  ],
)
def test_the_header_states_the_memory_that_is_planned(file):
  planned = plan.plan(flags=gin_setup.Flags((file,)))
  estimate = footprint.total(p for p in planned.memory if p.estimated)
  told = [planning_texts.needed(planned)]
  told += [planning_texts.size(estimate)] if estimate else []
  assert _told(file)[1] == told


@pytest.mark.parametrize('file', _LEAVES)
def test_the_header_names_the_least_device_that_has_the_memory(file):
  hardware, told = _told(file)
  units = {'GB': 1e9, 'MB': 1e6}
  needed = sum(float(n) * units[u] for n, u in map(str.split, told))
  # Accelerators that there are, and a tenth for what calls need besides.
  fit = [gb for gb in (16, 24, 40, 80, 141) if 1.1 * needed < gb * 1e9]
  assert hardware == fit[0]


def _told(file):
  """The header's device [GB], and memory: without activations, and these."""
  head = (_ROOT / file).read_text().split('include')[0]
  head = head.replace('\n# ', ' ')
  (hardware,) = re.findall(r'Hardware: one accelerator of (\d+) GB', head)
  (own,) = re.findall(r'Memory: (\S+ \S+), as `speccascade plan` tells', head)
  more = re.findall(r'activations on top: about (\S+ \S+) by its', head)
  assert len(more) == ('/finetune/' in file)
  return int(hardware), [own, *more]


@pytest.mark.parametrize('file', _SWEPT)
def test_the_header_marks_what_is_assumed_and_what_deviates(file):
  head = (_ROOT / file).read_text().split('include')[0].replace('\n# ', ' ')
  own = _build(sweep_command.sweep, file)
  assumed = head.split('Assumed: ')[1] if 'Assumed: ' in head else ''
  assert ('T = 1' in assumed) == ([*own['temperatures']] == [1.0])
  if 'gemma' in file:
    assert 'number of examples' in assumed
    return
  assert 'Deviation: ' in head and own['num_examples'] == 500
  # What it names takes the whole split.
  (binding,) = re.findall(r'--gin\.(\S+num_examples)=None', head)
  flags = gin_setup.Flags((file,), (f'{binding} = None',))
  assert gin_setup.build(sweep_command.sweep, flags)['num_examples'] is None


@pytest.mark.parametrize('file', [f for f in _SWEPT if 'gemma' in f])
def test_a_base_model_reads_the_task_of_the_same_name(file):
  task = _build(sweep_command.sweep, file)['task']
  flags = gin_setup.Flags((file,), (f"TASK = '{task.removesuffix('_it')}'",))
  base = gin_setup.build(sweep_command.sweep, flags)['task']
  assert base + '_it' == task
  chat, plain = map(task_texts.stop_sequences, (task, base))
  assert '<end_of_turn>' in chat and '<end_of_turn>' not in plain and plain


@pytest.mark.parametrize(
  ('script', 'arguments', 'leaves', 'expected'),
  [
    ('paper_t5/finetune.sh', [], _TRAINED, None),
    (
      'paper_t5/run.sh',
      ['--gin.sweep.top_p=0.9'],
      [f for f in _SWEPT if '/t5_' in f],
      'experiments/paper_t5/expected.json',
    ),
    (
      'paper_gemma/run.sh',
      ['--gin.sweep.run_programs=True'],
      [f for f in _SWEPT if '/gemma_' in f],
      None,
    ),
    (
      'paper_gemma/run.sh',
      [],
      [f for f in _SWEPT if '/gemma_' in f and 'mbpp' not in f],
      None,
    ),
  ],
)
def test_one_command_runs_all_leaves_of_a_table(
  tmp_path, script, arguments, leaves, expected
):
  # Stands for the real one, whose arguments it keeps; makes run directories.
  program = tmp_path / 'speccascade'
  log = tmp_path / 'log'
  program.write_text(
    '#!/bin/sh\n'
    f'echo "$@" >> {log}\n'
    'for a; do case "$a" in --gin.RUN_DIR=*)\n'
    '  eval "mkdir -p ${a#*=}" ;; esac; done\n'
  )
  program.chmod(0o755)
  path = f'{tmp_path}:{os.environ["PATH"]}'
  subprocess.run(
    ['sh', f'experiments/{script}', *arguments],
    env={'PATH': path, 'RUNS': str(tmp_path / 'runs')},
    check=True,
    stderr=subprocess.DEVNULL,
  )
  lines = log.read_text().splitlines()
  begun = [line for line in lines if not line.startswith('report')]
  assert sorted(line.split('gin_file=')[1].split()[0] for line in begun) == (
    sorted(leaves)
  )
  assert all(line.endswith(' '.join(arguments)) for line in begun)
  if 'finetune' in script:
    assert len(lines) == len(begun) == 9
    return
  kind = script.split('/')[0].removeprefix('paper_')
  own = [leaf.replace('configs/paper', f'{tmp_path}/runs') for leaf in leaves]
  own = [name.removesuffix('.gin') for name in own]
  command, *named = lines[-1].split()
  assert command == 'report' and named[: len(own)] == sorted(own)
  assert f'--output={tmp_path}/runs/{kind}' in named
  assert [n for n in named if 'expected' in n] == (
    [f'--expected={expected}'] if expected else []
  )


def _train(file, run_dir, pair, data_dir, size, task):
  """A leaf's fine-tuning of a tiny T5, for a few steps; its export."""
  bindings = [
    f"RUN_DIR = '{run_dir}'",
    f"INITIAL = '{pair[size]}'",
    f"train.vocabulary = '{pair['vocabulary']}'",
    f"train.data_dir = '{data_dir}'",
    "LENGTHS = {'inputs': 16, 'targets': 16}",
    'train.batch_tokens = 256',
    "train.export_dtype = 'float32'",
    'Loop.num_steps = 3',
    'Loop.microbatches = 2',
    *(f'Loop.{name}_every = 3' for name in ('report', 'validate')),
    'Loop.checkpoint_every = 3',
    'schedule.warmup_steps = 1',
  ]
  shape = native.read_config(pair[size])
  names = ('vocab_size', 'emb_dim', 'num_heads', 'head_dim', 'mlp_dim')
  names += ('num_encoder_layers', 'num_decoder_layers')
  bindings += [f'T5Config.{name} = {getattr(shape, name)}' for name in names]
  train_command.register()
  flags = gin_setup.Flags((file,), tuple(bindings))
  arguments = gin_setup.build(train_command.train, flags)
  assert arguments['task'] == task
  train_command.train(**arguments)
  return run_dir / 'export'


def test_fine_tuned_models_are_swept(pairs, data_dir, tmp_path, capsys):
  """The whole of a task: both models trained a little, then the sweep."""
  tuned = {'vocabulary': pairs['t5']['vocabulary']}
  for size, role in (('small', 'drafter'), ('large', 'verifier')):
    export = _train(
      f'configs/paper/finetune/t5_{size}/wmt14_en_de.gin',
      tmp_path / role,
      pairs['t5'],
      data_dir,
      role,
      'wmt14_en_de',
    )
    tuned[role] = str(export)
    before, after = (
      native.load(path)[1]['token_embedder']['embedding']
      for path in (pairs['t5'][role], export)
    )
    assert abs(after - before).max() > 1e-4
    (metrics,) = (tmp_path / role).glob('metrics.jsonl')
    assert all(
      math.isfinite(value)
      for line in metrics.read_text().splitlines()
      for value in json.loads(line).values()
    )
  _run(
    'configs/paper/t5_small_large/wmt14_en_de.gin',
    (0, -1),
    {'t5': tuned},
    data_dir,
    tmp_path / 'run',
    num_examples=None,  # The whole split.
  )
  report.report(run_dir=str(tmp_path / 'run'))
  assert f'{tuned["drafter"]} -> {tuned["verifier"]}' in capsys.readouterr().out


@pytest.mark.parametrize('file', _TRAINED)
def test_a_fine_tuning_starts_as_its_leaf_says(file):
  train_command.register()
  arguments = _build(train_command.train, file)
  size, task = re.search(r'/t5_(\w+)/(\w+)\.gin', file).groups()
  model = dataclasses.replace(
    arguments['model'], dropout_rate=0.0, dtype='float32'
  )
  assert model == model_names.config(f't5_1_1_{size}')
  assert arguments['task'] == task
  # As T5X has it in its docs/models.md.
  assert arguments['initial'] == (
    f'gs://t5-data/pretrained_models/t5x/t5_1_1_{size}/checkpoint_1000000'
  )
  # Where the sweep over the task looks for it.
  swept = 't5_small_large' if size != 'xl' else 't5_small_xl'
  pair = _build(sweep_command.sweep, f'configs/paper/{swept}/{task}.gin')[
    'pair'
  ]
  role = 'drafter' if size == 'small' else 'verifier'
  assert pair[role] == f'{arguments["run_dir"]}/export'
