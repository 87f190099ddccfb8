"""`speccascade sweep` and `evaluate`, from the command line to the files."""

import json

import pytest
import seqio

from speccascade_jax import __main__ as commands
from speccascade_jax.data import programs
from tests.evaluation import tiny_pair

_SWEEP = """
include 'gin/runs/sweep.gin'
include 'gin/methods/verifier.gin'
include 'gin/methods/opt.gin'
RUN_DIR = '{run_dir}'
TASK = 'debian_en_de'
PAIR = {pair}
sweep.methods = [@verifier/Method(), @opt/Method()]
sweep.gammas = (2,)
sweep.temperatures = (0.0,)
sweep.num_examples = 3
sweep.max_length = 6
sweep.primary_metric = 'bleu'
opt/Method.alphas = (0.0, 0.5)
"""

_EVALUATE = """
include 'gin/runs/evaluate.gin'
include 'gin/methods/opt.gin'
RUN_DIR = '{run_dir}'
TASK = 'debian_en_de'
PAIR = {pair}
evaluate.method = @opt/Method()
evaluate.temperature = 0.0
evaluate.max_length = 6
evaluate.num_examples = 3
evaluate.input_length = 24
evaluate.batch_size = 2
evaluate.gamma = 2
opt/Method.alphas = (0.5,)
"""


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  return tiny_pair.save(tmp_path_factory.mktemp('pair'))


def _write(path, text, **values):
  path.write_text(text.format(**values))
  return f'--gin_file={path}'


def test_sweep_writes_what_reports_read_and_resumes(tmp_path, pair, capsys):
  run_dir = tmp_path / 'run'
  file = _write(tmp_path / 'a.gin', _SWEEP, run_dir=run_dir, pair=pair)
  assert commands.main(['sweep', file]) == 0
  assert f'speccascade report {run_dir}' in capsys.readouterr().out
  header = json.loads((run_dir / 'sweep.json').read_text())
  assert {'bleu', 'chrf'} <= set(header['metrics'])
  assert len(header['runs']) == 3
  # The longest of the three sources, which were drawn from all of the split.
  sources = (run_dir / 'examples.jsonl').read_text().splitlines()
  assert len(sources) == 3
  ids = [json.loads(line)['example'] for line in sources]
  assert ids == sorted(ids) and ids[-1] > 3
  for key in header['runs']:
    summary = json.loads((run_dir / 'runs' / key / 'summary.json').read_text())
    assert summary['num_examples'] == 3
    assert 0 <= summary['quality']['bleu'] <= 100
    assert 'version' in summary['signatures']['bleu']
  config = (run_dir / 'operative_config.gin').read_text()
  assert 'opt/Method.alphas = (0.0, 0.5)' in config
  before = {
    path: path.read_bytes() for path in run_dir.glob('runs/*/examples.jsonl')
  }
  # Again, with one alpha more: what is done stays as it is.
  more = '--gin.opt/Method.alphas=(0.0, 0.3, 0.5)'
  assert commands.main(['sweep', file, more]) == 0
  after = {
    path: path.read_bytes() for path in run_dir.glob('runs/*/examples.jsonl')
  }
  assert len(after) == 4 and before.items() < after.items()


@pytest.mark.parametrize(
  ('binding', 'named'),
  [
    ('TASK="debian_en_fr"', "No task 'debian_en_fr'"),
    ('sweep.split="dev"', "has no split 'dev'"),
    ('sweep.num_examples=100000', 'num_examples is 100000'),
    ('sweep.primary_metric="rouge2"', "primary_metric is 'rouge2'"),
    ('sweep.gammas=(0,)', 'gamma is 0'),
    ('opt/Method.alphas=()', "'opt'"),
  ],
)
def test_a_bad_value_ends_in_one_line(tmp_path, pair, capsys, binding, named):
  run_dir = tmp_path / 'run'
  file = _write(tmp_path / 'a.gin', _SWEEP, run_dir=run_dir, pair=pair)
  assert commands.main(['sweep', file, f'--gin.{binding}']) == 1
  message = capsys.readouterr().err
  assert named in message
  assert 'Traceback' not in message
  assert not run_dir.exists()


def test_evaluate_writes_quality_and_predictions(tmp_path, pair, capsys):
  run_dir = tmp_path / 'run'
  file = _write(tmp_path / 'a.gin', _EVALUATE, run_dir=run_dir, pair=pair)
  assert commands.main(['evaluate', file]) == 0
  assert 'bleu' in capsys.readouterr().out
  found = json.loads((run_dir / 'evaluation.json').read_text())
  assert found['config']['rule'] == 'opt'
  assert found['num_examples'] == 3
  assert found['quality']['bleu'] >= 0
  lines = (run_dir / 'predictions.jsonl').read_text().splitlines()
  assert set(json.loads(lines[2])) == {
    'example',
    'source',
    'target',
    'prediction',
  }
  assert (run_dir / 'operative_config.gin').read_text()


def test_evaluate_takes_one_alpha(tmp_path, pair, capsys):
  file = _write(
    tmp_path / 'a.gin', _EVALUATE, run_dir=tmp_path / 'run', pair=pair
  )
  alphas = '--gin.opt/Method.alphas=(0.1, 0.2)'
  assert commands.main(['evaluate', file, alphas]) == 1
  assert 'one alpha' in capsys.readouterr().err


_OWN_TASK = """
import seqio
import speccascade_jax.data

def words(targets, predictions):
  return {'words': float(sum(len(p.split()) for p in predictions))}

features = seqio.TaskRegistry.get('debian_en_de').output_features
seqio.TaskRegistry.add(
  'own_echo',
  source=seqio.TextLineDataSource({'test': 'TEXT'}),
  preprocessors=[
    lambda dataset: dataset.map(lambda x: {'inputs': x, 'targets': x}),
    seqio.preprocessors.tokenize,
    seqio.preprocessors.append_eos,
  ],
  output_features=features,
  metric_fns=[words],
)
"""


def test_a_task_of_ones_own(tmp_path, pair, monkeypatch):
  """A seqio task in a module of the user's, its own prefix and metric."""
  (tmp_path / 'text').write_text('say: one\nsay: two three\n')
  module = _OWN_TASK.replace('TEXT', str(tmp_path / 'text'))
  (tmp_path / 'own_echo_task.py').write_text(module)
  monkeypatch.syspath_prepend(tmp_path)
  text = 'import own_echo_task\n' + _SWEEP.replace(
    'debian_en_de', 'own_echo'
  ).replace("'bleu'", "'words'").replace('num_examples = 3', 'num_examples = 2')
  run_dir = tmp_path / 'run'
  file = _write(tmp_path / 'a.gin', text, run_dir=run_dir, pair=pair)
  assert commands.main(['sweep', file]) == 0
  rows = (run_dir / 'examples.jsonl').read_text().splitlines()
  assert [json.loads(row)['source'] for row in rows] == [
    'say: one',
    'say: two three',
  ]


_PROGRAMS_TASK = (
  _OWN_TASK.replace('own_echo', 'own_programs')
  .replace(
    'metric_fns=[words]',
    """postprocess_fn=lambda _, **__: {
    'tests': ['assert 1 == 1'], 'setup': ''
  },
  metric_fns=[programs.pass_at_1]""",
  )
  .replace(
    'import speccascade_jax.data', 'from speccascade_jax.data import programs'
  )
)


@pytest.fixture
def programs_task(tmp_path, monkeypatch):
  """Beginning of a gin file whose task is scored by running programs."""
  (tmp_path / 'text').write_text('say: one\nsay: two three\n')
  module = _PROGRAMS_TASK.replace('TEXT', str(tmp_path / 'text'))
  name = f'own_programs_{tmp_path.name}'.replace('-', '_')
  (tmp_path / f'{name}.py').write_text(module)
  monkeypatch.syspath_prepend(tmp_path)
  yield f'import {name}\n'
  seqio.TaskRegistry.remove('own_programs')


@pytest.mark.parametrize(
  ('command', 'text'), [('sweep', _SWEEP), ('evaluate', _EVALUATE)]
)
def test_programs_are_run_only_where_the_user_says_so(
  tmp_path, programs_task, capsys, command, text
):
  """Said before anything is loaded: there is no such pair."""
  text = programs_task + text.replace('debian_en_de', 'own_programs')
  text = text.replace('num_examples = 3', 'num_examples = 2')
  file = _write(
    tmp_path / 'a.gin', text, run_dir=tmp_path / 'run', pair="'no_such_pair'"
  )
  assert commands.main([command, file]) == 1
  message = capsys.readouterr().err
  assert message.count('\n') == 1
  assert f'--gin.{command}.run_programs=True' in message
  # The next thing that is wrong.
  flag = f'--gin.{command}.run_programs="with_network"'
  assert commands.main([command, file, flag]) == 1
  assert 'no_such_pair' in capsys.readouterr().err


def test_a_run_that_scores_programs(tmp_path, pair, programs_task):
  text = programs_task + _EVALUATE.replace('debian_en_de', 'own_programs')
  text = text.replace('num_examples = 3', 'num_examples = 2')
  run_dir = tmp_path / 'run'
  file = _write(tmp_path / 'a.gin', text, run_dir=run_dir, pair=pair)
  flag = '--gin.evaluate.run_programs=True'
  assert commands.main(['evaluate', file, flag]) == 0
  found = json.loads((run_dir / 'evaluation.json').read_text())
  lines = (run_dir / 'predictions.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert [row['target']['tests'] for row in rows] == [['assert 1 == 1']] * 2
  expected = programs.pass_at_1(
    [row['target'] for row in rows],
    [row['prediction'] for row in rows],
    run_programs=True,
  )
  assert found['quality'] == expected
