"""The command line and gin: what works, and how each mistake is reported."""

import argparse
import functools

import pytest

from speccascade_jax import __main__ as commands
from speccascade_jax import deferral
from speccascade_jax import verification
from speccascade_jax.evaluation import methods
from speccascade_jax.launch import gin_names
from speccascade_jax.launch import gin_setup

_RULE_MODULE = """
def mine(q, p, q_conf, p_conf, alpha, *, beta=0.5):
  return q

not_a_function = 3
"""


def collect(*, method=None, model=None, seed=0, rules=()):
  """A command that hands back what it was given."""
  return {'method': method, 'model': model, 'seed': seed, 'rules': rules}


def needy(*, task, seed=0):
  """A command with an argument that has no default."""
  return task, seed


@pytest.fixture
def my_rules(tmp_path, monkeypatch):
  """A module of the user's own; each test gets one of another name."""
  name = f'rules_of_{tmp_path.name}'
  (tmp_path / f'{name}.py').write_text(_RULE_MODULE)
  monkeypatch.syspath_prepend(tmp_path)
  return name


def _run(*bindings, files=(), search_paths=(), function=collect):
  flags = gin_setup.Flags(tuple(files), tuple(bindings), tuple(search_paths))
  return gin_setup.run(function, flags)


def _message(*bindings, **kwargs):
  with pytest.raises(gin_names.ConfigError) as info:
    _run(*bindings, **kwargs)
  assert '\n' not in str(info.value), 'an error is one line'
  return str(info.value)


# --- The command line -------------------------------------------------------


def _parse(*argv):
  return gin_setup.parse_args(argparse.ArgumentParser(), argv)[1]


def test_flags_are_repeatable_and_take_both_spellings():
  flags = _parse(
    '--gin_file=a.gin', '--gin.SEED=1', '--gin_file', 'b.gin',
    '--gin.NAME', '"x y"', '--gin_search_paths=p,q', '--gin.a/f.x=@g/h()',
  )  # fmt: skip
  assert flags.files == ('a.gin', 'b.gin')
  assert flags.bindings == ('SEED = 1', 'NAME = "x y"', 'a/f.x = @g/h()')
  assert flags.search_paths == ('p', 'q')


def test_a_commands_own_arguments_stay_its_own():
  parser = argparse.ArgumentParser()
  parser.add_argument('text')
  parser.add_argument('--alpha', type=float)
  args, flags = gin_setup.parse_args(
    parser, ['hello', '--gin.SEED=2', '--alpha=0.5']
  )
  assert (args.text, args.alpha) == ('hello', 0.5)
  assert flags.bindings == ('SEED = 2',)


@pytest.mark.parametrize('argv', [['--gin.SEED'], ['--gin.=1'], ['--gin_fil']])
def test_a_malformed_flag_ends_the_command(argv, capsys):
  with pytest.raises(SystemExit):
    _parse(*argv)
  assert argv[0] in capsys.readouterr().err


@pytest.mark.parametrize(
  ('argv', 'status', 'said'),
  [
    (['swep'], 2, 'did you mean sweep?'),
    (['xyz'], 2, 'train, evaluate, sweep'),
    ([], 2, 'usage: speccascade COMMAND'),
    (['--help'], 0, 'usage: speccascade COMMAND'),
  ],
)
def test_the_dispatcher_helps(argv, status, said, capsys):
  assert commands.main(argv) == status
  captured = capsys.readouterr()
  assert said in (captured.err if status else captured.out)


# --- What works -------------------------------------------------------------


def test_later_files_and_bindings_win(tmp_path):
  (tmp_path / 'a.gin').write_text('collect.seed = 1\ncollect.model = "a"\n')
  (tmp_path / 'b.gin').write_text('collect.seed = 2\ncollect.model = "b"\n')
  found = _run(
    'collect.seed = 3', files=['a.gin', 'b.gin'], search_paths=[str(tmp_path)]
  )
  assert (found['seed'], found['model']) == (3, 'b')


def test_fragments_are_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = _run('collect.method = @opt/Method()', files=['gin/methods/opt.gin'])
  assert found['method'].rule is deferral.opt


def test_functions_arrive_without_gin_around_them():
  found = _run(
    'collect.method = @Method()',
    'Method.rule = @chow',
    'Method.alphas = (0.1, 0.2)',
    'Method.verification = @verify_block',
    'collect.rules = [@diff, @opt]',
  )
  assert found['method'] == methods.Method(
    rule=deferral.chow,
    alphas=(0.1, 0.2),
    verification=verification.verify_block,
  )
  assert found['method'].rule is deferral.chow
  assert found['rules'] == [deferral.diff, deferral.opt]


def test_a_rule_of_ones_own_needs_only_a_name(my_rules):
  found = _run(
    'collect.method = @Method()',
    'Method.rule = %RULE',
    'Method.alphas = (0.1,)',
    f'RULE = @{my_rules}.mine',
  )
  rule = found['method'].rule
  assert (rule.__module__, rule.__name__) == (my_rules, 'mine')
  assert not isinstance(rule, functools.partial)
  assert methods.name_of(rule) == f'{my_rules}.mine'


def test_a_name_in_two_modules_is_reported_in_one_line(my_rules, tmp_path):
  other = f'{my_rules}_too'
  (tmp_path / f'{other}.py').write_text(_RULE_MODULE)
  said = _message(
    f'collect.rules = [@{my_rules}.mine, @{other}.mine]', 'mine.beta = 0.7'
  )
  assert f'{my_rules}.mine' in said and f'{other}.mine' in said


def test_parameters_of_a_function_are_filled_in_once(my_rules):
  bindings = [
    f'collect.rules = [@{my_rules}.mine, @b/{my_rules}.mine]',
    f'{my_rules}.mine.beta = 0.7',
    f'b/{my_rules}.mine.beta = %BETA',
    'BETA = 0.9',
  ]
  rules = _run(*bindings)['rules']
  assert [rule.keywords for rule in rules] == [{'beta': 0.7}, {'beta': 0.9}]
  # What the run is known by tells the two apart.
  assert methods.name_of(rules[0]) != methods.name_of(rules[1])


def test_binding_a_default_changes_nothing(my_rules):
  rule = f'collect.rules = [@{my_rules}.mine]'
  bound = _run(rule, f'{my_rules}.mine.beta = 0.5')['rules'][0]
  assert bound is _run(rule)['rules'][0]


def test_the_operative_config_builds_the_same_again(my_rules, tmp_path):
  first = _run(
    'collect.method = @a/Method()',
    f'a/Method.rule = @{my_rules}.mine',
    'a/Method.alphas = %ALPHAS',
    f'{my_rules}.mine.beta = 0.25',
    'ALPHAS = (0.1, 0.3)',
  )
  text = gin_setup.operative_config()
  # Defaults that nobody bound are part of it.
  assert "a/Method.model = 'pair'" in text
  assert 'collect.seed = 0' in text
  (tmp_path / 'operative_config.gin').write_text(text)
  second = _run(files=[str(tmp_path / 'operative_config.gin')])
  assert first['method'].alphas == second['method'].alphas == (0.1, 0.3)
  rule = second['method'].rule
  assert rule.keywords == first['method'].rule.keywords == {'beta': 0.25}


# --- What is reported -------------------------------------------------------

_METHOD = (
  'collect.method = @Method()',
  'Method.rule = @chow',
  'Method.alphas = (0.5,)',
)


def test_a_missing_file_is_named_with_the_places(tmp_path):
  message = _message(files=['nope.gin'], search_paths=[str(tmp_path)])
  assert "'nope.gin'" in message and str(tmp_path) in message


def test_an_unreadable_include_is_named(tmp_path):
  (tmp_path / 'a.gin').write_text("include 'nope.gin'\n")
  message = _message(files=[str(tmp_path / 'a.gin')])
  assert 'nope.gin' in message and 'line 1' in message


@pytest.mark.parametrize(
  ('binding', 'said'),
  [
    ('collect.seeed = 1', "no parameter 'seeed'; did you mean seed?"),
    ('colect.seed = 1', "'colect'; did you mean collect?"),
    ('collect.rules = [@chow_lgo]', 'did you mean @chow_log?'),
    ('collect.model = @T5Confg()', 'did you mean @T5Config?'),
    ('collect.seed = %SEED', 'collect.seed reads %SEED, which is not defined'),
    ('collect.rules = [@nowhere.rule]', "no module 'nowhere'"),
    ('collect.rules = [@chow()]', 'write @chow'),
    ('collect.model = name', "own: --gin.collect.model='\"name\"'"),
    ('collect.seed = [1', 'cannot be read'),
  ],
)  # fmt: skip
def test_a_misspelt_name_is_reported_with_the_closest(binding, said):
  assert said in _message(binding)


def test_an_error_in_a_file_gives_file_and_line(tmp_path):
  (tmp_path / 'a.gin').write_text('# Title.\n\ncollect.sede = 1\n')
  message = _message(files=[str(tmp_path / 'a.gin')])
  assert f'{tmp_path / "a.gin"}, line 3' in message
  assert 'did you mean seed?' in message


def test_a_misspelt_rule_of_ones_own_is_reported(my_rules):
  message = _message(f'collect.rules = [@{my_rules}.mien]')
  assert f'{my_rules!r}' in message and 'did you mean mine?' in message
  message = _message(f'collect.rules = [@{my_rules}.not_a_function]')
  assert 'no function' in message


def test_a_broken_module_of_ones_own_keeps_its_own_error(tmp_path, monkeypatch):
  (tmp_path / 'broken_rules.py').write_text('import a_library_nobody_has\n')
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ModuleNotFoundError, match='a_library_nobody_has'):
    _run('collect.rules = [@broken_rules.mine]')


@pytest.mark.parametrize(
  ('bindings', 'names'),
  [
    # A misspelt macro is a new macro to gin.
    (('SEED = 1', 'SED = 2', 'collect.seed = %SEED'), ['SED', 'mean SEED']),
    # Bound, but nothing of that kind is built.
    (('T5Config.emb_dim = 8',), ['T5Config.emb_dim']),
    # Bound in a scope that nothing is built in.
    ((*_METHOD, 'opt/Method.alphas = (0.1,)'), ['opt/Method.alphas']),
    # Bound for all scopes, but overridden in the only one there is.
    (
      (
        'collect.method = @a/Method()', 'a/Method.model = "verifier"',
        'Method.model = "drafter"',
      ),
      ['Method.model'],
    ),
  ],
)  # fmt: skip
def test_a_binding_without_effect_is_reported(bindings, names):
  message = _message(*bindings)
  assert 'never used' in message
  assert all(name in message for name in names)


def test_a_binding_that_every_scope_inherits_is_used():
  found = _run(
    'collect.method = @a/Method()',
    'Method.rule = @chow',
    'Method.alphas = (0.1,)',
    'a/Method.alphas = (0.2,)',
    'collect.rules = [@b/Method()]',
  )
  assert found['method'].alphas == (0.2,)
  assert found['rules'][0].alphas == (0.1,)


def test_required_values_are_reported_all_at_once():
  message = _message(
    'collect.seed = %SEED',
    'SEED = %gin.REQUIRED',
    'collect.model = %gin.REQUIRED',
  )
  assert 'SEED, collect.model must be set' in message


def test_an_argument_without_a_value_is_named():
  message = _message('needy.seed = 1', function=needy)
  assert message.startswith('needy.task must be set')
  assert 'T5Config.vocab_size' in _message('collect.model = @T5Config()')


def test_nothing_of_one_run_reaches_the_next():
  assert _run('collect.seed = 7')['seed'] == 7
  assert _run()['seed'] == 0
