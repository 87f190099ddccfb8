"""`speccascade tune`, from the command line to files that can be used."""

import functools
import json

import numpy as np
import pytest

from speccascade_jax import __main__ as commands
from speccascade_jax import deferral
from speccascade_jax import verification
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import tuning
from speccascade_jax.launch import chosen
from speccascade_jax.launch import evaluate
from speccascade_jax.launch import generate
from speccascade_jax.launch import gin_setup
from tests.evaluation import tiny_pair

_TUNE = """
include 'gin/runs/tune.gin'
include 'gin/methods/verifier.gin'
include 'gin/methods/lossless.gin'
include 'gin/methods/opt.gin'
RUN_DIR = '{run_dir}'
TASK = 'debian_en_de'
PAIR = {pair}
QUALITY = 0.9
tune.methods = [@verifier/Method(), @lossless/Method(), @opt/Method()]
tune.gammas = (2,)
tune.temperature = 0.0
tune.rungs = (2, 4)
tune.num_held_out = 3
tune.max_length = 6
tune.primary_metric = 'chrf'
opt/Method.alphas = (-5.0,)
"""


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  return tiny_pair.save(tmp_path_factory.mktemp('pair'))


def _file(tmp_path, pair):
  path = tmp_path / 'tune.gin'
  path.write_text(_TUNE.format(run_dir=tmp_path / 'run', pair=pair))
  return f'--gin_file={path}'


def test_what_is_chosen_can_be_used_as_it_is(tmp_path, pair, capsys):
  file = _file(tmp_path, pair)
  assert commands.main(['tune', file]) == 0
  out = capsys.readouterr().out
  assert 'at least 90 % of the verifier' in out
  assert '2 examples, 2 candidates:' in out and '4 examples' in out
  run_dir = tmp_path / 'run' / 'quality_0.9'
  written = (run_dir / 'generate.gin').read_text()
  # Texts are given as they are; the task's prefix is in the file.
  assert "generate.prefix = 'translate English to German: '" in written
  assert written in out
  assert '3 examples of debian_en_de/test, which had no part' in written
  assert 'meets the constraint (100% of replicates)' in written
  found = json.loads((run_dir / 'tune.json').read_text())
  assert [r['num_examples'] for r in found['rungs']] == [2, 4]
  assert found['held_out']['verdict'] == 'met'
  assert found['held_out']['num_examples'] == 3
  low, high = found['held_out']['relative_latency_interval']
  assert low <= found['held_out']['relative_latency'] <= high
  # Both commands that the output names take the files as they are.
  generate_gin = f'--gin_file={run_dir}/generate.gin'
  assert generate_gin in out
  assert commands.main(['generate', generate_gin, 'a text']) == 0
  evaluate_gin = f'--gin_file={run_dir}/evaluate.gin'
  assert evaluate_gin in out
  assert commands.main(['evaluate', evaluate_gin]) == 0
  content = json.loads((run_dir / 'evaluate/evaluation.json').read_text())
  # On the very examples that it was confirmed on.
  assert content['num_examples'] == 3
  assert content['config'] == found['chosen'] | {'trial': 0}
  assert content['split'] == 'test'
  # Other scores are not written over them.
  capsys.readouterr()
  assert commands.main(['evaluate', evaluate_gin, '--gin.evaluate.seed=9']) == 1
  assert 'holds another evaluation: config is' in capsys.readouterr().err
  assert json.loads((run_dir / 'evaluate/evaluation.json').read_text()) == (
    content
  )
  assert commands.main(['evaluate', evaluate_gin]) == 0
  for folder in ('search', 'held_out'):
    assert commands.main(['report', str(tmp_path / 'run' / folder)]) == 0


def test_each_constraint_has_files_of_its_own(tmp_path, pair, capsys):
  file = _file(tmp_path, pair)
  assert commands.main(['tune', file]) == 0
  first = (tmp_path / 'run/quality_0.9/generate.gin').read_text()
  latency = ['--gin.QUALITY=None', '--gin.LATENCY=50.0']
  assert commands.main(['tune', file, *latency]) == 0
  assert (tmp_path / 'run/latency_50/generate.gin').exists()
  assert (tmp_path / 'run/quality_0.9/generate.gin').read_text() == first
  # A start that finds nothing leaves no answer of an earlier one behind.
  stale = tmp_path / 'run/latency_1e-06'
  stale.mkdir()
  (stale / 'generate.gin').write_text('stale')
  assert commands.main(['tune', file, *latency, '--gin.LATENCY=1e-6']) == 1
  assert 'nothing meets the constraint' in capsys.readouterr().err
  assert not (stale / 'generate.gin').exists()


def test_other_held_out_examples_are_refused_before_the_search(
  tmp_path, pair, capsys
):
  file = _file(tmp_path, pair)
  assert commands.main(['tune', file]) == 0
  capsys.readouterr()
  assert commands.main(['tune', file, '--gin.tune.num_held_out=5']) == 1
  said = capsys.readouterr()
  assert 'num_examples is 3 there and 5 here' in said.err
  assert 'candidates:' not in said.out


@pytest.mark.parametrize(
  ('bindings', 'said'),
  [
    (['--gin.QUALITY=None'], 'either quality'),
    (['--gin.tune.split="test"'], 'has to be confirmed'),
    (['--gin.QUALITY=2.0'], 'nothing meets the constraint'),
    (['--gin.tune.rungs=50'], 'rungs are 50'),
    (['--gin.tune.rungs=()'], 'rungs are ()'),
    (['--gin.tune.num_held_out=1'], 'num_held_out is 1'),
    (['--gin.tune.num_held_out=2.5'], 'num_held_out is 2.5'),
    (['--gin.QUALITY="high"'], "quality is 'high'; it must be a number"),
    (['--gin.tune.confidence="x"'], "confidence is 'x'; it must be a number"),
    (['--gin.tune.replicates=1e3'], 'replicates is 1000.0'),
    (['--gin.tune.clock="sun"'], "clock is 'sun'"),
    (['--gin.tune.keep=3'], 'keep is 3'),
  ],
)
def test_what_cannot_be_is_said(tmp_path, pair, capsys, bindings, said):
  assert commands.main(['tune', _file(tmp_path, pair), *bindings]) == 1
  assert said in capsys.readouterr().err
  assert not [*(tmp_path / 'run').glob('*/generate.gin')]


def my_rule(q, p, q_conf, p_conf, alpha, *, least=0.5):
  """A user's own; never called here."""
  raise AssertionError


_METHODS = {
  'infinite': methods.Method(rule=deferral.opt, alphas=(float('-inf'),)),
  'opt': methods.Method(rule=deferral.opt, alphas=(0.2,)),
  'block': methods.Method(
    rule=deferral.chow, alphas=(0.2,), verification=verification.verify_block
  ),
  'bild': methods.Method(
    method='bild', alphas=(2.0,), options={'fallback': 0.4}
  ),
  'sequence': methods.Method(
    method='sequence_cascade', alphas=(0.5,), options={'quantile': 0.1}
  ),
  'truncated': methods.Method(
    rule=deferral.verifier_only, truncation='top_k', alphas=(5,)
  ),
  'verifier': methods.Method(model='verifier'),
  'own': methods.Method(
    rule=functools.partial(my_rule, least=0.3), alphas=(0.1,)
  ),
}


@pytest.mark.parametrize('method', _METHODS.values(), ids=_METHODS)
def test_files_say_what_was_chosen(tmp_path, method):
  (point,) = methods.expand(
    [method], gammas=(3,), temperatures=(1.0,), min_p=0.01
  )
  made = chosen.Setting(
    point=point,
    pair='debian',
    task='debian_en_de',
    split='validation',
    max_length=9,
    input_length=77,
    seed=5,
    run_programs='with_network',
    prefix='do: ',
    imports=['import tests.launch.tune_test'],
  )
  path = tmp_path / 'evaluate.gin'
  path.write_text(chosen.for_evaluate(made, run_dir='runs/x', header=['why']))
  built = gin_setup.build(evaluate.evaluate, gin_setup.Flags((str(path),)))
  (again,) = methods.expand(
    [built['method']],
    gammas=(built['gamma'],),
    temperatures=(built['temperature'],),
    min_p=built['min_p'],
  )
  assert again.config() == point.config() and again.key({}) == point.key({})
  assert built['split'] == 'validation' and built['seed'] == 5
  assert built['input_length'] == 77
  assert built['run_programs'] == 'with_network'
  path = tmp_path / 'generate.gin'
  path.write_text(chosen.for_generate(made, header=['why']))
  flags = gin_setup.Flags((str(path),))
  built = gin_setup.build(generate.generate, flags, texts=['a'])
  settings = {
    k: v
    for k, v in point.settings().items()
    # What is not said is what `generate` does by default.
    if k != 'key' and v is not None and (k, v) != ('alpha', 0.0)
  }
  for name, value in settings.items():
    if name == 'rule' and hasattr(value, 'func'):
      assert built[name].keywords == value.keywords
      assert built[name].func is value.func
    else:
      assert built[name] == value, name
  assert built['max_length'] == 9 and built['seed'] == 5
  assert built['prefix'] == 'do: '


def test_arguments_without_a_name_are_refused_by_name():
  rule = functools.partial(my_rule, 0.3)
  points = methods.expand(
    [methods.Method(rule=rule, alphas=(0.1,))], gammas=(3,), temperatures=(0.0,)
  )
  with pytest.raises(ValueError, match=r'my_rule\(0.3\) has arguments without'):
    chosen.check_can_be_said(points)


def _made():
  def rule(q, p, q_conf, p_conf, alpha):
    """Never called."""

  return rule


@pytest.mark.parametrize(
  ('rule', 'said'),
  [
    (_made(), r'rule is .*_made.<locals>.rule, and that is not to be found'),
    (lambda *args: None, 'is not to be found'),
    (functools.partial(my_rule, least=np.float64(0.3)), 'least of .*my_rule'),
    (functools.partial(my_rule, least=float('nan')), 'is nan, which cannot'),
    (functools.partial(my_rule, least=(float('inf'),)), 'least of .*my_rule'),
    (functools.partial(my_rule, least=_made), 'cannot be written in a gin'),
  ],
)
def test_what_gin_has_no_words_for_is_refused_by_name(rule, said):
  method = methods.Method(rule=rule, alphas=(0.1,))
  points = methods.expand([method], gammas=(3,), temperatures=(0.0,))
  with pytest.raises(ValueError, match=said):
    chosen.check_can_be_said(points)


def test_a_start_that_breaks_off_leaves_no_answer_of_an_earlier_one(
  tmp_path, pair, capsys, monkeypatch
):
  file = _file(tmp_path, pair)
  assert commands.main(['tune', file]) == 0

  def broken(*args, **settings):
    raise RuntimeError('broken off')

  monkeypatch.setattr(tuning, 'confirm', broken)
  with pytest.raises(RuntimeError, match='broken off'):
    commands.main(['tune', file])
  assert 'earlier start in' in capsys.readouterr().out
  assert not [*(tmp_path / 'run/quality_0.9').glob('*.*')]


def test_a_start_that_is_refused_leaves_the_answer_that_is_there(
  tmp_path, pair, capsys
):
  file = _file(tmp_path, pair)
  assert commands.main(['tune', file]) == 0
  before = {p: p.read_text() for p in (tmp_path / 'run').glob('quality*/*.*')}
  assert len(before) == 3
  assert commands.main(['tune', file, '--gin.tune.rungs=(2, 5)']) == 1
  assert 'num_examples' in capsys.readouterr().err
  assert {p: p.read_text() for p in before} == before


def test_the_prefix_is_what_ends_in_a_colon():
  said = ['to German: the one', 'to German: the other']
  assert chosen.common_prefix(said) == 'to German: '
  assert chosen.common_prefix(['the one', 'the other']) == ''
