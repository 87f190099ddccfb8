"""`speccascade plan`: what it tells is what a run then takes."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from speccascade_jax import __main__ as commands
from speccascade_jax import deferral
from speccascade_jax.checkpoints import native
from speccascade_jax.evaluation import expectation
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import tuning
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import inputs
from speccascade_jax.launch import measured
from speccascade_jax.launch import model_names
from speccascade_jax.launch import plan as plan_lib
from speccascade_jax.launch import planning
from speccascade_jax.launch import planning_texts
from speccascade_jax.models.t5 import config as t5_config
from tests.evaluation import tiny_pair

_SWEEP = """
include 'gin/runs/sweep.gin'
include 'gin/methods/verifier.gin'
include 'gin/methods/drafter.gin'
include 'gin/methods/lossless.gin'
include 'gin/methods/opt.gin'
RUN_DIR = '{run_dir}'
TASK = 'debian_en_de'
PAIR = {pair}
sweep.methods = [
  @verifier/Method(), @drafter/Method(), @lossless/Method(), @opt/Method()
]
sweep.gammas = (2,)
sweep.temperatures = (1.0,)
sweep.num_examples = 3
sweep.max_length = 6
sweep.input_length = 24
sweep.primary_metric = 'bleu'
opt/Method.alphas = (0.5,)
"""
_NAMED = "{'drafter': 'a', 'verifier': 'b', 'models': %s}"
_MODELS = "('t5_1_1_small', 't5_1_1_base')"


def _flags(file, *bindings):
  return gin_setup.Flags((str(file),), bindings)


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
  """The gin file and the RUN_DIR of a sweep that has been run."""
  folder = tmp_path_factory.mktemp('plan')
  pair = tiny_pair.save(folder / 'pair')
  file, run_dir = folder / 'sweep.gin', folder / 'run'
  file.write_text(_SWEEP.format(run_dir=run_dir, pair=pair))
  assert commands.main(['sweep', f'--gin_file={file}']) == 0
  return file, run_dir


def _rows(run_dir):
  return [
    json.loads(line)
    for log in run_dir.glob('runs/*/examples.jsonl')
    for line in log.read_text().splitlines()
  ]


def test_runs_texts_and_calls_are_those_of_the_sweep(ran):
  file, run_dir = ran
  rows = _rows(run_dir)
  told = plan_lib.plan(flags=_flags(file))
  assert told.num_runs == len(list((run_dir / 'runs').iterdir())) == 4
  assert told.num_texts == len(rows) == 12
  steps = sum(row['drafter_steps'] for row in rows)
  calls = sum(row['verifier_calls'] for row in rows)
  assert 0 < steps <= told.most.drafter_steps == 3 * 6 * (1 + 3 + 3)
  assert 0 < calls <= told.most.verifier_calls == 3 * 6 * (1 + 1 + 1)
  assert told.expected is None and told.most_s is None


def test_a_measured_run_tells_the_calls_and_the_time(ran, capsys):
  file, run_dir = ran
  rows = _rows(run_dir)
  found = measured.read([str(run_dir)])
  told = plan_lib.plan(flags=_flags(file), found=found)
  assert told.num_expected == 4
  for name in ('drafter_steps', 'verifier_calls', 'output_tokens'):
    counted = sum(row[name] for row in rows)
    assert getattr(told.expected, name) == pytest.approx(counted)
  summaries = [
    json.loads(path.read_text()) for path in run_dir.glob('runs/*/summary.json')
  ]
  modelled_ms = sum(3 * s['modelled_latency_ms'] for s in summaries)
  assert 1e3 * told.expected_s == pytest.approx(modelled_ms, rel=1e-6)
  assert told.expected_s <= told.most_s
  # Twice the examples, at another gamma: by the acceptance rate.
  more = ('sweep.num_examples = 6', 'sweep.gammas = (1,)')
  told = plan_lib.plan(flags=_flags(file, *more), found=found)
  assert told.num_expected == 4
  assert told.expected.verifier_calls < told.most.verifier_calls
  # No call of eight tokens was timed.
  wide = plan_lib.plan(flags=_flags(file, 'sweep.gammas = (7,)'), found=found)
  assert wide.expected_s is None and wide.expected is not None
  assert any('No duration' in note for note in wide.notes)
  assert commands.main(['plan', str(file), f'--measured={run_dir}']) == 0
  out = capsys.readouterr().out
  assert 'expected' in out and '12 texts' in out and 'duration' in out


def test_times_of_the_benchmark_are_taken(ran, tmp_path):
  calls = {'drafter step': 2.0, 'verifier step': 3.0, 'verifier call of 3': 5.0}
  rows = [{'name': k, 'ms_best': v} for k, v in calls.items()]
  rows.append({'name': 'round of 2', 'ms_best': 11.0})
  (tmp_path / 'bench.json').write_text(json.dumps({'parts': {'calls': rows}}))
  found = measured.read([str(tmp_path)])
  assert set(found[0].call_times) == {'drafter_1', 'verifier_1', 'verifier_3'}
  told = plan_lib.plan(flags=_flags(ran[0]), found=found)
  # Of 3 texts of 6 tokens: verifier, drafter, two methods of at most 6 rounds.
  assert told.most_s == pytest.approx(3 * 6 * (3 + 2 + 2 * (3 * 2 + 5)) / 1e3)
  assert any('left out of the duration' in note for note in told.notes)


@pytest.mark.parametrize(
  'pair',
  [
    None,  # Not recorded.
    {'drafter': 'debian drafter', 'verifier': 'debian verifier'},
    {
      'drafter': 'random t5 of 2.3M parameters',
      'verifier': 'random t5 of 12.1M parameters',
    },
    {'drafter': 'debian drafter', 'verifier': 'mine'},
  ],
)
def test_times_of_another_pair_give_no_duration(tmp_path, pair):
  content = {'ms': {'drafter_1': 2.0, 'verifier_1': 3.0, 'verifier_6': 5.0}}
  config, _ = planning.shapes('debian')
  if pair and pair['drafter'].startswith('random'):
    pair = {role: inputs.random_name(c) for role, c in config.items()}
  (tmp_path / 'bench.json').write_text(json.dumps(content | {'pair': pair}))
  found = measured.read([str(tmp_path)])
  told = plan_lib.plan(flags=_flags('configs/quickstart.gin'), found=found)
  other = pair is not None and pair['verifier'] == 'mine'
  assert (told.most_s is None) == other
  said = 'tells nothing of this: it was measured of debian drafter -> mine'
  assert any(said in note for note in told.notes) == other


@pytest.mark.parametrize('int8', ['', '-drafter_int8-verifier_int8'])
def test_the_dtype_is_told_beside_which_weights_are_int8(tmp_path, int8):
  times = {'drafter_1': 2.0, 'verifier_1': 3.0, 'verifier_6': 5.0}
  content = {'ms': times, 'pair_digest': f'0f1e-float32{int8}'}
  (tmp_path / 'bench.json').write_text(json.dumps(content))
  assert measured.read([str(tmp_path)])[0].dtype == 'float32'


def test_texts_are_no_longer_than_they_can_be(ran):
  """Measured at up to 6 tokens; planned for fewer, and for more."""
  file, run_dir = ran
  found = measured.read([str(run_dir)])
  lengths = [row['output_tokens'] for row in _rows(run_dir)]
  assert max(lengths) == 6  # So that nobody knows how they would go on.
  for length in (2, 6):
    flags = _flags(file, f'sweep.max_length = {length}')
    told = plan_lib.plan(flags=flags, found=found)
    assert told.num_expected == 4
    for name in ('drafter_steps', 'verifier_calls', 'output_tokens'):
      assert getattr(told.expected, name) <= getattr(told.most, name)
    counted = sum(min(n, length) for n in lengths)
    assert told.expected.output_tokens == pytest.approx(counted)
  told = plan_lib.plan(flags=_flags(file, 'sweep.max_length = 7'), found=found)
  assert told.expected is None
  # Where every text has ended by itself, there is nothing more to come.
  calls = [expectation.Calls(1.0, 3.0, 3.0), expectation.Calls(1.0, 5.0, 5.0)]
  ended = expectation.Measured({}, calls, 6, None)
  assert ended.tells_of(100) and ended.mean(100).verifier_calls == 4.0


@pytest.mark.parametrize(
  ('binding', 'runs', 'said'),
  [
    ("TASK = 'debian_synopsis'", 0, 'texts of debian_en_de, not of debian_sy'),
    ("PAIR = 'debian'", 0, 'tells nothing of this: it was measured of'),
    ("sweep.split = 'validation'", 4, None),
  ],
)
def test_runs_of_something_else_tell_nothing(ran, binding, runs, said):
  file, run_dir = ran
  found = measured.read([str(run_dir)])
  told = plan_lib.plan(flags=_flags(file, binding), found=found)
  assert told.num_expected == runs and (told.expected is None) == (not runs)
  assert said is None or any(said in note for note in told.notes)


def test_calibrated_runs_tell_of_calibrated_ones_alone(ran):
  file, run_dir = ran
  calibrated = 'CONFIDENCE_TEMPERATURES = (0.9, 1.1)'
  found = measured.read([str(run_dir)])
  told = plan_lib.plan(flags=_flags(file, calibrated), found=found)
  # OPT is another method with them; the other three look at no confidence.
  assert told.num_expected == 3
  (opt,) = (run for run in found[0].runs if run.config['rule'] == 'opt')
  temperatures = {'confidence_temperatures': [0.9, 1.1]}
  other = dataclasses.replace(opt, config={**opt.config, **temperatures})
  found = [dataclasses.replace(found[0], runs=[*found[0].runs, other])]
  told = plan_lib.plan(flags=_flags(file, calibrated), found=found)
  assert told.num_expected == 4


@pytest.mark.parametrize(
  ('content', 'said'),
  [
    ({'parts': {}}, 'holds no times of single calls'),
    ({'parts': 3}, 'holds no times of single calls'),
    ({'parts': {'calls': 3}}, 'holds no times of single calls'),
    ({'parts': {'calls': ['x']}}, "'x' is no call with a name"),
    ({'parts': {'calls': [{'name': 3}]}}, 'is no call with a name'),
    ({'parts': {'calls': [{'name': 'verifier step'}]}}, 'holds no times'),
    ({'ms': 3}, 'holds no times of single calls'),
    ({'ms': {'drafter_1': '2.0', 'verifier_1': 3.0}}, "drafter_1 is '2.0'"),
    ({'ms': {'drafter_1': 2.0, 'verifier_1': -3.0}}, 'verifier_1 is -3.0'),
    ({'ms': {'drafter_1': 2.0, 'verifier_1': True}}, 'verifier_1 is True'),
    ([], 'holds no JSON object'),
  ],
)
def test_times_that_are_none_end_in_one_line(tmp_path, content, said, capsys):
  file = tmp_path / 'bench.json'
  file.write_text(json.dumps(content))
  argument = f'--measured={tmp_path}'
  assert commands.main(['plan', 'configs/quickstart.gin', argument]) == 1
  err = capsys.readouterr().err
  assert said in err and str(file) in err and err.count('\n') == 1


@pytest.mark.parametrize(
  ('file', 'change', 'said'),
  [
    ('sweep.json', {'runs': {'a': 1}}, "runs is {'a': 1}"),
    ('sweep.json', {'max_length': None}, 'is None; it must be a number'),
    ('runs/*/summary.json', {'acceptance_rate': 'x'}, "acceptance_rate is 'x'"),
    ('runs/*/examples.jsonl', {'verifier_calls': None}, 'verifier_calls is N'),
  ],
)
def test_a_damaged_run_ends_in_one_line(
  ran, tmp_path, file, change, said, capsys
):
  copy = shutil.copytree(ran[1], tmp_path / 'run')
  for path in copy.glob(file):
    lines = path.read_text().splitlines() if 'jsonl' in file else None
    whole = [json.loads(line) for line in lines or [path.read_text()]]
    path.write_text(''.join(json.dumps(row | change) + '\n' for row in whole))
  assert commands.main(['plan', str(ran[0]), f'--measured={copy}']) == 1
  err = capsys.readouterr().err
  assert said in err and err.count('\n') == 1


def test_the_acceptance_rate_gives_the_rounds():
  (point,) = methods.expand(
    [methods.Method(rule=deferral.verifier_only)],
    gammas=(3,),
    temperatures=(0.0,),
  )
  none = expectation.at_acceptance(point, 0.0, 20.0)
  assert none == expectation.at_most(point, 20)
  all_kept = expectation.at_acceptance(point, 1.0, 20.0)
  assert all_kept == expectation.Calls(20.0, 5.0, 20.0)
  half = expectation.at_acceptance(point, 0.5, 15.0)
  assert half.verifier_calls == pytest.approx(15 / 1.875)
  with pytest.raises(ValueError, match='acceptance_rate is 1.5'):
    expectation.at_acceptance(point, 1.5, 20.0)


def test_a_search_takes_no_more_than_is_told():
  points = methods.expand(
    [
      methods.Method(model='verifier'),
      methods.Method(rule=deferral.opt, alphas=tuple(range(9))),
    ],
    gammas=(3,),
    temperatures=(0.0,),
  )
  costs = [1.0, *(2.0 + i for i in range(9))]
  found = tuning.most_texts(points, costs, (10, 20, 40), 1 / 3)
  # 9 candidates; of these 3 and the one that would be chosen; of those 2 and
  # one. The dearest go on, and the verifier in any case.
  assert found == [40, *[10] * 5, 20, 40, 40, 40]


@pytest.mark.parametrize(
  ('file', 'told'),
  [
    ('configs/quickstart.gin', 'tokens are assumed'),
    ('configs/tune.gin', '41, 6,750 texts'),
    ('configs/evaluate.gin', 'as many texts as the data has'),
    ('configs/train_debian_verifier.gin', 'activations (estimate)'),
  ],
)
def test_every_command_is_planned(file, told, capsys):
  assert commands.main(['plan', f'--gin_file={file}']) == 0
  out = capsys.readouterr().out
  assert told in out and 'memory' in out and 'devices' in out


def test_a_pair_may_be_named_where_its_checkpoints_are_not(capsys):
  file = 'configs/checkpoints/t5x.gin'
  assert commands.main(['plan', file]) == 1
  assert "add 'models' to it" in capsys.readouterr().err
  binding = f'--gin.PAIR={_NAMED % _MODELS}'
  unread = 'bound but never used'
  assert commands.main(['plan', file, binding]) == 1  # The paths are idle.
  assert unread in capsys.readouterr().err
  paths = "{'drafter': %DRAFTER, 'verifier': %VERIFIER, 'vocabulary': "
  paths += f"%VOCABULARY, 'models': {_MODELS}, 'dtype': 'bfloat16'}}"
  assert commands.main(['plan', file, f'--gin.PAIR={paths}']) == 0
  out = capsys.readouterr().out
  assert '247,577,856 bfloat16' in out and '76,961,152 bfloat16' in out


def test_int8_weights_are_planned_as_such(capsys):
  pair = "{'name': 'debian', 'verifier_weights': 'int8'}"
  arguments = ['plan', 'configs/quickstart.gin', f'--gin.PAIR={pair}']
  assert commands.main(arguments) == 0
  assert '7,864,320 int8, 35,072 float32' in capsys.readouterr().out
  arguments[-1] = arguments[-1].replace('int8', 'int4')
  assert commands.main(arguments) == 1
  assert "verifier_weights is 'int4'" in capsys.readouterr().err


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    ((), 'nothing sets up none of sweep'),
    (('configs/quickstart.gin', '--measured=configs'), 'nothing that was'),
    (('configs/quickstart.gin', '--input_length=0'), 'input_length is 0'),
    (('gin/models/t5_1_1_small.gin',), 'sets up none of sweep'),
    (
      ('configs/quickstart.gin', '--gin_file=configs/tune.gin'),
      'sets up several commands: sweep, tune',
    ),
    (('configs/quickstart.gin', '--gin.sweep.gamas=(1,)'), "'gamas'"),
    (('configs/bench.gin',), 'is for bench, of which there is no plan'),
  ],
)
def test_a_mistake_ends_in_one_line(arguments, said, capsys):
  assert commands.main(['plan', *arguments]) == 1
  message = capsys.readouterr().err
  assert said in message and 'Traceback' not in message


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
  wanted = model_names.config('t5_1_1_small')
  assert isinstance(wanted, t5_config.T5Config)
  model_names.check('t5_1_1_small', wanted, 'there')
  with pytest.raises(ValueError, match='emb_dim 768 for 512'):
    model_names.check('t5_1_1_small', model_names.config('t5_1_1_base'), 'x')
  with pytest.raises(ValueError, match='x is a gemma'):
    model_names.check('t5_1_1_small', model_names.config('gemma_2_2b'), 'x')
  with pytest.raises(ValueError, match="no gin file 'gin/models/t6.gin'"):
    model_names.config('t6')
  pair = tiny_pair.save(tmp_path)
  assert native.read_config(tmp_path / 'drafter').emb_dim == 16
  named = {**pair, 'models': ('t5_1_1_small', 't5_1_1_large')}
  with pytest.raises(ValueError, match='is not the t5_1_1_small'):
    inputs.load_pair(named)
  with pytest.raises(ValueError, match='it must name'):
    inputs.load_pair({**pair, 'models': ('t5_1_1_small',)})


def test_planning_loads_no_tensorflow():
  code = (
    'import sys\n'
    'from speccascade_jax import __main__ as commands\n'
    "assert commands.main(['plan', 'configs/quickstart.gin']) == 0\n"
    "print(*{m.split('.')[0] for m in sys.modules})\n"
  )
  loaded = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  ).stdout.split()
  assert 'speccascade_jax' in loaded
  assert not {'tensorflow', 'seqio', 'torch'} & set(loaded)


def test_sizes_and_durations_are_written_for_people():
  assert planning_texts.size(1_740_016_668) == '1.74 GB'
  assert planning_texts.size(614_060) == '614.06 kB'
  assert planning_texts.duration(4.26) == '4.3 s'
  assert planning_texts.duration(9000) == '2.5 h'
