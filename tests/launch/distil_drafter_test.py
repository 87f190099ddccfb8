"""A drafter over the frozen embedding of a verifier that is a GGUF file."""

import dataclasses
import json

from flax import traverse_util
import numpy as np
import pytest
import seqio

import speccascade_jax as sc
from speccascade_jax import __main__ as commands
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax import zoo
from speccascade_jax.checkpoints import load as checkpoints
from speccascade_jax.checkpoints import native
from speccascade_jax.data import corpora
from speccascade_jax.data import preprocessors
from speccascade_jax.data import vocabulary
from tests.checkpoints import gguf_models_test

_TASK = 'a_few_continuations'
_BOS = 400  # A piece of text elsewhere; the first ones are bytes.

# Texts are cut to one narrow shape, so that each step compiles once.
_CONFIG = """
include 'gin/runs/train.gin'
TASK = '{task}'
LENGTHS = {{'inputs': 10, 'targets': 12}}
RUN_DIR = '{run_dir}'
train.model = @GemmaConfig()
GemmaConfig.vocab_size = 4096
GemmaConfig.emb_dim = {emb_dim}
GemmaConfig.num_layers = 1
GemmaConfig.num_heads = {num_heads}
GemmaConfig.num_kv_heads = {num_kv_heads}
GemmaConfig.head_dim = {head_dim}
GemmaConfig.mlp_dim = {mlp_dim}
GemmaConfig.use_post_norms = True
GemmaConfig.use_qk_norm = True
train.teacher = '{teacher}'
train.from_teacher = {{
  'token_embedder': 'token_embedder',
  'decoder/final_norm': 'decoder/final_norm',
  'decoder/layers_0': 'decoder/layers_{last}',
}}
train.frozen = ('token_embedder',)
train.objective = @distillation
distillation.mixture = 1.0
train.export_dtype = 'float32'
train.batch_tokens = 352
train.optimizer = @adamw()
train.scored_tokens = 1024
train.validation_examples = 20
train.score_examples = 3
schedule.peak = 1e-2
schedule.warmup_steps = 2
schedule.decay = 'constant'
Loop.num_steps = 12
Loop.cooldown_steps = 4
Loop.report_every = 1
Loop.validate_every = 6
"""


@pytest.fixture(scope='module', autouse=True)
def task():
  """Continuations of 40 shipped texts, in the small vocabulary."""
  rows = corpora.read('debian_synopsis', 'validation')[:40]

  def dataset(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(
      {'source': [row.source for row in rows]}
    )

  seqio.TaskRegistry.add(
    _TASK,
    source=seqio.FunctionDataSource(dataset, splits=('train', 'validation')),
    preprocessors=[
      lambda rows: preprocessors.continuation(rows, words=4),
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={
      name: seqio.Feature(vocabulary.debian(), add_eos=True)
      for name in ('inputs', 'targets')
    },
    metric_fns=[
      lambda targets, predictions: {'words': len(' '.join(predictions).split())}
    ],
  )
  yield
  seqio.TaskRegistry.remove(_TASK)


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
  """A tiny Gemma 3 with a vocabulary that begins texts with a BOS."""
  return gguf_models_test.write(
    tmp_path_factory.mktemp('teacher') / 'model.gguf',
    'hf_gemma_3',
    bos_id=_BOS,
  )


@pytest.fixture(scope='module')
def values(teacher):
  config = checkpoints.config_of(teacher)
  sizes = ('emb_dim', 'num_heads', 'num_kv_heads', 'head_dim', 'mlp_dim')
  return {name: getattr(config, name) for name in sizes} | {
    'teacher': teacher,
    'last': config.num_layers - 1,
    'task': _TASK,
  }


def _train(folder, values, *bindings):
  folder.mkdir(exist_ok=True)
  path, run_dir = folder / 'train.gin', folder / 'run'
  path.write_text(_CONFIG.format(run_dir=run_dir, **values))
  arguments = [f'--gin.{binding}' for binding in bindings]
  return commands.main(['train', f'--gin_file={path}', *arguments]), run_dir


@pytest.fixture(scope='module')
def run(values, tmp_path_factory):
  status, run_dir = _train(tmp_path_factory.mktemp('run'), values)
  assert status == 0
  return run_dir


def test_the_divergence_falls(run):
  lines = (run / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  found = [r['validation/kl'] for r in rows if 'validation/kl' in r]
  first = next(r['train/kl'] for r in rows if 'train/kl' in r)
  assert len(found) == 2 and found[1] < found[0] < first
  assert rows[-1]['validation/words'] > 0


def test_the_export_stands_alone_and_shares_the_head(run, teacher):
  config, params = native.load(run / 'export')
  theirs = checkpoints.load(teacher, dtype='float32')
  np.testing.assert_array_equal(
    params['token_embedder']['embedding'],
    theirs.params['token_embedder']['embedding'],
  )
  flat = traverse_util.flatten_dict(params['decoder'], sep='/')
  last = f'layers_{theirs.config.num_layers - 1}'
  before = traverse_util.flatten_dict(theirs.params['decoder'], sep='/')
  for path, value in flat.items():
    source = path.replace('layers_0', last)
    assert value.shape == before[source].shape
    assert not np.array_equal(value, before[source]), path
  words = vocabularies.Vocabulary(run / 'export')
  assert words.bos_id == _BOS
  vocabularies.check_same(words, theirs.vocabulary, ('export', 'teacher'))
  # And not in the checkpoints that a run is taken up from.
  largest = max(
    file.stat().st_size
    for file in (run / 'checkpoints').rglob('*')
    if file.is_file()
  )
  assert largest < params['token_embedder']['embedding'].nbytes


def test_drafter_and_verifier_of_two_formats_decode_losslessly(run, teacher):
  pair = sc.load_pair(drafter=run / 'export', verifier=teacher)
  assert pair.bos_first
  prompts = ['It is a small', 'This package contains']
  out = pair.generate(prompts, gamma=3, max_length=16)
  alone = pair.generate(prompts, model='verifier', max_length=16)
  np.testing.assert_array_equal(out.tokens, alone.tokens)
  assert out.stats['drafted'].min() > 0


_FINE_TUNING = """
include 'gin/runs/train.gin'
TASK = '{task}'
LENGTHS = {{'inputs': 10, 'targets': 12}}
RUN_DIR = '{run_dir}'
train.model = @GemmaConfig()
train.initial = '{initial}'
train.frozen = ('token_embedder', 'decoder/layers_0')
train.objective = @teacher_forcing
train.export_dtype = 'float32'
train.batch_tokens = 352
train.optimizer = @adamw()
schedule.peak = 1e-2
schedule.warmup_steps = 1
schedule.decay = 'constant'
Loop.num_steps = 2
Loop.cooldown_steps = 0
"""


def test_a_gguf_file_is_fine_tuned_where_it_is_not_frozen(teacher, tmp_path):
  before = checkpoints.load(teacher, dtype='float32')
  path, run_dir = tmp_path / 'train.gin', tmp_path / 'run'
  text = _FINE_TUNING.format(task=_TASK, run_dir=run_dir, initial=teacher)
  for field in dataclasses.fields(before.config):
    value = getattr(before.config, field.name)
    text += f'GemmaConfig.{field.name} = {value!r}\n'
  path.write_text(text)
  assert commands.main(['train', f'--gin_file={path}']) == 0
  config, params = native.load(run_dir / 'export')
  assert config == before.config
  after, initial = (
    traverse_util.flatten_dict(tree, sep='/')
    for tree in (params, before.params)
  )
  for name, value in after.items():
    same = np.array_equal(value, initial[name])
    assert same == name.startswith(('token_emb', 'decoder/layers_0/')), name
  assert vocabularies.Vocabulary(run_dir / 'export').bos_id == _BOS


@pytest.mark.parametrize(
  'bindings, message',
  [
    (
      ["train.frozen=('embedder',)"],
      "train.frozen names 'embedder', but the model has no such part; it has",
    ),
    (
      ['GemmaConfig.emb_dim=12'],
      "the teacher's token_embedder/embedding is (4096,",
    ),
    (
      ['GemmaConfig.vocab_size=5000'],
      'scores 4096 tokens, the model that this run trains 5000',
    ),
    (["train.frozen=('token_embedder','decoder')"], 'nothing is left to train'),
    (['train.vocabulary="nowhere"'], 'No vocabulary at nowhere'),
    (['train.validation_examples=41'], 'num_examples is 41;'),
    (['train.scored_tokens=5000'], 'train.scored_tokens is 5000; it has to'),
    (
      ['train.teacher=None', 'train.objective=@teacher_forcing'],
      'there is no train.teacher to take it from',
    ),
  ],
)
def test_mistakes_end_in_a_message(tmp_path, values, capsys, bindings, message):
  text = ()
  if 'train.teacher=None' in bindings:
    text = {'distillation.mixture = 1.0\n': ''}
  path = tmp_path / 'train.gin'
  config = _CONFIG.format(run_dir=tmp_path / 'run', **values)
  for old, new in dict(text).items():
    config = config.replace(old, new)
  path.write_text(config)
  arguments = [f'--gin.{binding}' for binding in bindings]
  assert commands.main(['train', f'--gin_file={path}', *arguments]) == 1
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1
  assert not (tmp_path / 'run').exists()


def test_another_vocabulary_than_the_teachers_is_refused(
  tmp_path, values, capsys
):
  """The same pieces, two of which have changed places."""
  import sentencepiece.sentencepiece_model_pb2 as proto

  model = proto.ModelProto()
  model.ParseFromString(zoo.paths('debian')[2].read_bytes())
  first, second = model.pieces[300].piece, model.pieces[301].piece
  model.pieces[300].piece, model.pieces[301].piece = second, first
  words = tmp_path / 'other.model'
  words.write_bytes(model.SerializeToString())
  status, _ = _train(tmp_path, values, f'train.vocabulary="{words}"')
  assert status == 1
  assert 'different vocabularies: token 300 is' in capsys.readouterr().err
