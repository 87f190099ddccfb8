"""Every file under gin/, configs/ and experiments/ parses and builds."""

import functools
import importlib
import importlib.util
import pathlib
import re

import pytest

from gin import config_parser
from speccascade_jax import __main__ as commands
from speccascade_jax import deferral
from speccascade_jax import zoo
from speccascade_jax.evaluation import methods as methods_lib
from speccascade_jax.launch import calibrate
from speccascade_jax.launch import gin_names
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import model_names
from speccascade_jax.launch import plan
from speccascade_jax.models import families

_ROOT = pathlib.Path(__file__).parents[1]
_INCLUDE = re.compile(r"(?m)^include '(.+)'$")


def _files(*folders):
  """Paths from the root, results of finished runs excepted."""
  return [
    str(path.relative_to(_ROOT))
    for folder in folders
    for path in sorted((_ROOT / folder).rglob('*.gin'))
    if path.name != 'operative_config.gin'
  ]


def _paths(*patterns):
  found = [path for pattern in patterns for path in _ROOT.glob(pattern)]
  return sorted(str(path.relative_to(_ROOT)) for path in found)


# For T5X's programs, which tests/t5x runs where T5X is.
_T5X = _files('gin/t5x', 'configs/t5x')
# What `tune` wrote, which stands alone; the command is that of its run.
_WRITTEN = _files('experiments/operating_point')


def _own_files(*folders):
  return [file for file in _files(*folders) if file not in (*_T5X, *_WRITTEN)]


_FRAGMENTS = _own_files('gin')
_LEAVES = _own_files('configs', 'experiments')

# https://arxiv.org/abs/1910.10683 and the T5X checkpoints of v1.1.
_PARAMETERS = {
  't5_1_0_small': 60_506_624,
  't5_1_0_base': 222_903_552,
  't5_1_0_large': 737_668_096,
  't5_1_0_3b': 2_851_598_336,
  't5_1_0_11b': 11_307_321_344,
  't5_1_1_small': 76_961_152,
  't5_1_1_base': 247_577_856,
  't5_1_1_large': 783_150_080,
  't5_1_1_xl': 2_849_757_184,
  't5_1_1_xxl': 11_135_332_352,
  # The model cards of google/gemma-*; of Gemma 3 from 4B on, the text alone.
  'gemma_1_2b': 2_506_172_416,
  'gemma_1_7b': 8_537_680_896,
  'gemma_2_2b': 2_614_341_888,
  'gemma_2_9b': 9_241_705_984,
  'gemma_2_27b': 27_227_128_320,
  'gemma_3_270m': 268_098_176,
  'gemma_3_1b': 999_885_952,
  'gemma_3_4b': 3_880_263_168,
  'gemma_3_12b': 11_766_034_176,
  'gemma_3_27b': 27_009_346_304,
}


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
  monkeypatch.chdir(_ROOT)


def _command(name):
  """The function behind a command; it is called what the command is called."""
  assert name in commands.COMMANDS
  module = importlib.import_module(f'speccascade_jax.launch.{name}')
  getattr(module, 'register', lambda: None)()
  return getattr(module, name)


def _build(function, *files, bindings=()):
  return gin_setup.build(function, gin_setup.Flags(files, bindings))


def build_model(*, config):
  """Stands for a command that takes a model."""


def build_method(*, method):
  """Stands for a command that takes a method."""


def test_there_is_something_to_test():
  assert len(_FRAGMENTS) > 20
  assert 'configs/quickstart.gin' in _LEAVES


@pytest.mark.parametrize('file', _FRAGMENTS)
def test_a_fragment_includes_none_and_says_what_it_is(file):
  text = (_ROOT / file).read_text()
  assert text.startswith('# ')
  assert not _INCLUDE.findall(text)
  assert pathlib.Path(file).parts[1] in (
    *('models', 'methods', 'runs', 'tasks'),
    *('pairs', 'paper'),
  )


_PUBLISHED = [
  f for f in _files('gin/models') if re.search('/(t5|gemma)_[123]_', f)
]


@pytest.mark.parametrize('file', _PUBLISHED)
def test_a_published_model_has_its_published_size(file):
  family = pathlib.Path(file).stem.split('_')[0]
  cls = families.FAMILIES[family].config
  bindings = (f'build_model.config = @{cls.__name__}()',)
  config = _build(build_model, file, bindings=bindings)['config']
  assert isinstance(config, cls)
  count = _PARAMETERS[pathlib.Path(file).stem]
  assert families.num_parameters(config) == count
  # The figure that the file itself states.
  assert f'# {count:,} parameters.' in (_ROOT / file).read_text()


def test_all_published_sizes_have_a_fragment():
  found = {pathlib.Path(file).stem for file in _PUBLISHED}
  assert found == set(_PARAMETERS)


@pytest.mark.parametrize('file', _files('gin/methods'))
def test_a_method_fragment_builds_a_method(file):
  scope = pathlib.Path(file).stem
  bindings = (f'build_method.method = @{scope}/Method()',)
  method = _build(build_method, file, bindings=bindings)['method']
  points = methods_lib.expand([method], gammas=(4,), temperatures=(0.0,))
  assert len(points) == max(1, len(method.alphas))


@pytest.mark.parametrize('file', _files('gin/runs'))
def test_a_run_fragment_fits_its_command_and_leaves_values_open(file):
  function = _command(pathlib.Path(file).stem)
  with pytest.raises(gin_names.ConfigError, match='must be set'):
    _build(function, file)


@pytest.mark.parametrize('file', _LEAVES)
def test_a_leaf_builds_what_its_command_takes(file):
  text = (_ROOT / file).read_text()
  header = text[: re.search(r'(?m)^[^#]', text).start()]
  found = re.search(r'speccascade (\w+) .*?--gin_file=(\S+)', header)
  assert found and found[2] == file, 'the header gives the command'
  includes = _INCLUDE.findall(text)
  assert includes and all(name.startswith('gin/') for name in includes)
  # What is said on the command line alone.
  bindings = {'generate': ("generate.texts = ('A text.',)",)}
  arguments = _build(
    _command(found[1]), file, bindings=bindings.get(found[1], ())
  )
  _CHECKS[found[1]](arguments)


@pytest.mark.parametrize('file', _LEAVES)
def test_plan_sees_which_command_a_leaf_is_for(file):
  found = re.search(
    r'speccascade (\w+) .*?--gin_file=', (_ROOT / file).read_text()
  )
  command = gin_setup.command_of(
    [*plan.commands().values()], gin_setup.Flags((file,))
  )
  assert command.__name__ == found[1]


@pytest.mark.parametrize(
  'file', _paths('experiments/paper_*/README.md', 'configs/paper/**/*.gin')
)
def test_what_the_paper_s_experiments_name_is_there(file):
  text = (_ROOT / file).read_text()
  named = re.findall(r'(?:gin_file|expected)=(\S+)', text)
  named += re.findall(r'(?m)^# .*?((?:configs|experiments)/[\w/.]+\w)', text)
  named += re.findall(r'(?m)\bsh (experiments/\S+)', text)
  assert named
  for name in named:
    # The shell's variables stand for several files each.
    pattern = re.sub(r'\$\w+', '*', name)
    assert [*_ROOT.glob(pattern)], name


@pytest.mark.parametrize('file', _WRITTEN)
def test_what_tune_wrote_builds_what_generate_takes(file):
  assert _build(
    _command('generate'), file, bindings=("generate.texts = ('A text.',)",)
  )


def _check_grid(arguments):
  methods = arguments.get('methods') or [arguments['method']]
  gammas = arguments.get('gammas') or (arguments.get('gamma', 4),)
  temperatures = arguments.get('temperatures') or (arguments['temperature'],)
  points = methods_lib.expand(methods, gammas=gammas, temperatures=temperatures)
  assert points
  if isinstance(arguments['pair'], str):
    assert arguments['pair'] in zoo.names()
  else:
    assert {'drafter', 'verifier'} <= set(arguments['pair'])
    known = {'drafter', 'verifier', 'vocabulary', 'models', 'dtype'}
    known |= {'drafter_weights', 'verifier_weights'}
    assert set(arguments['pair']) <= known
    kinds = {
      families.name_of(model_names.config(name))
      for name in arguments['pair'].get('models', ())
    }
    assert len(kinds) <= 1, 'both are of one family'
  _check_task(arguments['task'], arguments['split'])


def _check_task(task, split):
  import seqio

  from speccascade_jax import data  # noqa: F401  Registers the tasks.

  assert split in seqio.get_mixture_or_task(task).splits


def _check_calibration(arguments):
  assert arguments['pair'] in zoo.names()
  told = (arguments[name] for name in ('task', 'split', 'held_out_split'))
  for split in calibrate.chosen_splits(*told):
    _check_task(arguments['task'], split)


# The nine that are fine-tuned are of three shapes, and tracing takes seconds.
_num_parameters = functools.cache(families.num_parameters)


def _check_model(arguments):
  assert _num_parameters(arguments['model']) > 0
  _check_task(arguments['task'], 'train')


def _check_pair(arguments):
  assert 'verifier' in arguments['pair'] or arguments['pair'] in zoo.names()


def _check_bench(arguments):
  assert methods_lib.expand(
    arguments['methods'], gammas=(arguments['gamma'],), temperatures=(0.0,)
  )
  if arguments['pair'] is not None:
    _check_pair(arguments)
  else:
    sizes = [
      families.num_parameters(arguments[name])
      for name in ('drafter', 'verifier')
    ]
    named = [_PARAMETERS['t5_1_1_small'], _PARAMETERS['t5_1_1_base']]
    assert sizes == named


_CHECKS = {
  'bench': _check_bench,
  'generate': _check_pair,
  'train': _check_model,
  'sweep': _check_grid,
  'evaluate': _check_grid,
  'tune': _check_grid,
  'calibrate': _check_calibration,
}


class _Names(config_parser.ParserDelegate):
  """References and macros as they are written."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    return f'@{scoped_configurable_name}{"()" * evaluate}'

  def macro(self, macro_name):
    return f'%{macro_name}'


@pytest.mark.parametrize('file', _T5X)
def test_a_file_for_t5x_parses_and_names_what_is_there(file):
  text = (_ROOT / file).read_text()
  assert text.startswith('# ')
  included = []
  for statement in config_parser.ConfigParser(text, _Names()):
    if isinstance(statement, config_parser.ImportStatement):
      if statement.module.startswith('speccascade_jax'):
        assert importlib.util.find_spec(statement.module), statement.module
    elif isinstance(statement, config_parser.IncludeStatement):
      included.append(statement.filename)
  if file.startswith('gin/'):
    assert not included
    return
  assert re.search(rf'python -m t5x\.\w+ --gin_file={file}', text)
  program = pathlib.Path(file).name
  assert included == [
    f't5x/configs/runs/{program}',
    'gin/t5x/speculative_cascade.gin',
  ]


def test_t5x_s_command_line_may_name_every_rule():
  text = (_ROOT / 'gin/t5x/speculative_cascade.gin').read_text()
  for rule in deferral.RULES:
    assert f'  @deferral.{rule.__name__},\n' in text
