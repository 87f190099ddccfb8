"""The command line of every command, and gin behind it.

    speccascade sweep --gin_file=configs/quickstart.gin --gin.SEED=1

A command is a plain function. `run` reads the files and bindings, builds what
they say about the function's arguments, and calls it. gin itself
ignores several mistakes in silence; here each ends the command in one line
that names it: an unknown or misspelt name, a value that was left required, a
macro that is not defined, and a binding that nothing has used.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import functools
import inspect
import pathlib
import re
import sys
import tokenize
from typing import Any

import gin
from gin import config as gin_internals
from speccascade_jax.launch import gin_names

_PACKAGE = pathlib.Path(__file__).parents[1]
# What gin's parser raises for text that is not a gin statement.
_UNREADABLE = (SyntaxError, tokenize.TokenError)
# Of the present configuration, which is as global as gin's own.
_files: list[pathlib.Path] = []


@dataclasses.dataclass(frozen=True)
class Flags:
  """The gin part of a command line."""

  files: tuple[str, ...] = ()
  bindings: tuple[str, ...] = ()
  search_paths: tuple[str, ...] = ()


def parse_args(
  parser: argparse.ArgumentParser,
  argv: Sequence[str],
  function: Callable[..., Any] | None = None,
) -> tuple[argparse.Namespace, Flags]:
  """Parses a command's own arguments and gin's.

  Args:
    parser: of the command's own arguments; gin's are added to its help.
    argv: the arguments behind the name of the command.
    function: what the command runs; the help lists its parameters.

  Returns:
    The command's arguments, and `Flags` with what was said in `--gin_file=F`
    (repeatable, later files win), `--gin.NAME=VALUE` or `--gin.NAME VALUE`
    (repeatable, wins over files) and `--gin_search_paths=A,B`.
  """
  group = parser.add_argument_group('configuration')
  group.add_argument(
    '--gin_file',
    action='append',
    default=[],
    metavar='FILE',
    help='gin file to read; repeatable, later ones win',
  )
  group.add_argument(
    '--gin_search_paths',
    action='append',
    default=[],
    metavar='DIRS',
    help='folders to look for gin files in, separated by commas',
  )
  group.add_argument(
    '--gin.NAME',
    dest='gin_binding',
    metavar='VALUE',
    help='overrides one value, such as --gin.TASK=\'"name"\'',
  )
  if function is not None:
    names = ', '.join(
      f'{function.__name__}.{name}'
      for name in inspect.signature(function).parameters
    )
    parser.epilog = (
      'Files to start from are in configs/, fragments for them in gin/. '
      f'Names: {names}; what the files define in capitals, such as RUN_DIR; '
      'and parameters of whatever else they build.'
    )
  bindings, rest = [], []
  remaining = iter(argv)
  for argument in remaining:
    if not argument.startswith('--gin.'):
      rest.append(argument)
      continue
    name, equals, value = argument.removeprefix('--gin.').partition('=')
    if not equals:
      value = next(remaining, '')
    if not name or not value:
      parser.error(f'{argument} needs a value: --gin.NAME=VALUE')
    bindings.append(f'{name.strip()} = {value}')
  args = parser.parse_args(rest)
  paths = [p for given in args.gin_search_paths for p in given.split(',') if p]
  return args, Flags(tuple(args.gin_file), tuple(bindings), tuple(paths))


def search_paths(extra: Sequence[str] = ()) -> list[pathlib.Path]:
  """Where gin files are looked for, in order: the working directory, `extra`,
  and the checkout or, in an installed package, the package itself."""
  roots = [_PACKAGE.parent, _PACKAGE]
  shipped = [root for root in roots if (root / 'gin').is_dir()]
  return [pathlib.Path.cwd(), *map(pathlib.Path, extra), *shipped]


def configure(flags: Flags) -> None:
  """Replaces gin's configuration by what `flags` say, and locks it.

  Raises:
    ConfigError: if a file is missing or malformed, a name is unknown, a macro
      is not defined, or a value is still `%gin.REQUIRED`.
  """
  gin_names.register_all()
  paths = search_paths(flags.search_paths)
  found = [find(file, paths) for file in flags.files]
  # `--gin.RULE=@my_module.my_rule` from the folder that my_module.py is in.
  if str(pathlib.Path.cwd()) not in sys.path:
    sys.path.append(str(pathlib.Path.cwd()))
  gin_internals._LOCATION_PREFIXES[:] = list(map(str, paths))  # pylint: disable=protected-access
  while True:
    gin.clear_config()
    try:
      with gin.unlock_config():
        for file in found:
          gin.parse_config_file(str(file))
        for binding in flags.bindings:
          _parse_binding(binding)
      break
    except (ValueError, OSError, ImportError, *_UNREADABLE) as error:
      # A function of the user's own is imported and registered on sight.
      if not gin_names.import_missing(str(error)):
        raise gin_names.ConfigError(gin_names.explain(error)) from error
  gin_names.check_macros(_bound())
  gin_names.check_required(_bound())
  gin.finalize()
  _files[:] = found


def build(
  function: Callable[..., Any], flags: Flags, **arguments: Any
) -> dict[str, Any]:
  """The keyword arguments of `function`, as the configuration builds them.

  Args:
    function: a command, whose parameters are keyword-only; its name is its
      name in gin.
    flags: from `parse_args`.
    **arguments: values from the command line that win over gin's.

  Raises:
    ConfigError: see `configure` and `check_all_used`.
  """
  configurable = _register(function)
  configure(flags)
  try:
    built = configurable(**arguments)
  except gin_names.ConfigError as error:
    message = gin_names.without_call_stack(error)
    raise gin_names.ConfigError(message) from None
  check_all_used()
  return built


def command_of(
  functions: Sequence[Callable[..., Any]], flags: Flags
) -> Callable[..., Any]:
  """The command that a configuration is for: the one that it binds.

  Args:
    functions: the commands to choose from.
    flags: from `parse_args`.

  Raises:
    ConfigError: see `configure`; or if it is for none, or for several.
  """
  for function in functions:
    _register(function)
  configure(flags)
  selectors = {selector for _, selector in _bound()}
  found = [
    function
    for function in functions
    if f'{function.__module__}.{function.__name__}' in selectors
  ]
  if len(found) != 1:
    names = ', '.join(f.__name__ for f in found or functions)
    raise gin_names.ConfigError(
      f'{" ".join(flags.files) or "nothing"} sets up '
      + (f'several commands: {names}.' if found else f'none of {names}.')
      + ' Name a leaf, such as configs/quickstart.gin.'
    )
  return found[0]


def _register(function: Callable[..., Any]) -> Callable[..., Any]:
  """gin's version of a command, which returns what it was built from."""

  @functools.wraps(function)
  def collect(**built):
    return built

  return gin_names.register(collect)


def run(function: Callable[..., Any], flags: Flags, **arguments: Any) -> Any:
  """Calls `function` with what `build` returns.

  By then every object that the configuration describes is built, so
  `operative_config()` is complete, and gin has no further part in the run.
  """
  return function(**build(function, flags, **arguments))


def operative_config() -> str:
  """What the objects of this run were built from, as gin would read it."""
  return gin_names.with_modules(gin.operative_config_str())


def files() -> list[str]:
  """The gin files of this run, as they were found; not what they include."""
  return list(map(str, _files))


def imports() -> list[str]:
  """The import statements of this run's files: the user's own modules."""
  lines = operative_config().splitlines()
  return [line for line in lines if re.match(r'(import|from) ', line)]


def check_all_used() -> None:
  """Compares what was bound with what was used.

  gin takes a misspelt macro for the definition of another one, and a binding
  of something that is never built for a wish; both are mistakes here.

  Raises:
    ConfigError: naming the bindings without effect.
  """
  used = gin_internals._OPERATIVE_CONFIG  # pylint: disable=protected-access
  bound = _bound()
  idle = []
  for (scope, selector), parameters in bound.items():
    for parameter in parameters:
      if not _reached(scope, selector, parameter, bound, used):
        idle.append(gin_names.binding_name(scope, selector, parameter))
  if idle:
    raise gin_names.ConfigError(
      f'bound but never used: {", ".join(sorted(idle))}. Nothing in this run '
      f'reads {"it" if len(idle) == 1 else "them"}: check the spelling, or '
      'remove it.' + gin_names.similar_macro(idle, bound)
    )


def _reached(scope, selector, parameter, bound, used) -> bool:
  """Whether some call in a scope at or below `scope` took this binding."""
  for (called_in, called), values in used.items():
    if called != selector or parameter not in values:
      continue
    inner = called_in.split('/') if called_in else []
    # gin reads the bindings of every prefix of the scope; the longest wins.
    prefixes = ['/'.join(inner[:n]) for n in range(len(inner), -1, -1)]
    winner = next(
      (p for p in prefixes if parameter in bound.get((p, selector), ())), None
    )
    if winner == scope:
      return True
  return False


def _bound() -> dict[tuple[str, str], dict[str, Any]]:
  # There is no public accessor that keeps scopes and names apart.
  return gin_internals._CONFIG  # pylint: disable=protected-access


def find(file: str, paths: Sequence[pathlib.Path]) -> pathlib.Path:
  """The first of the folders that has the file, which may be absolute.

  Raises:
    ConfigError: if none has.
  """
  for folder in paths:
    if (folder / file).is_file():  # An absolute `file` replaces the folder.
      return folder / file
  looked = ', '.join(dict.fromkeys(map(str, paths)))
  raise gin_names.ConfigError(
    f'no gin file {file!r}; looked in {looked}. Name it relative to one of '
    'these, or add a folder with --gin_search_paths.'
  )


def _parse_binding(binding: str) -> None:
  try:
    gin.parse_config(binding)
  except KeyError as error:
    # gin's own way of saying that a short name fits several modules.
    if 'Ambiguous selector' not in str(error):
      raise
    found = re.findall(r"'([^']+)'", str(error))
    raise gin_names.ConfigError(
      f'--gin.{binding} does not say which {found[0]!r}: there are '
      f'{", ".join(found[1:])}. Write it with its module.'
    ) from error
  except _UNREADABLE as error:
    name, value = (part.strip() for part in binding.split('=', 1))
    hint = ''
    if re.fullmatch(r'[\w./:-]+', value):
      hint = f' Text needs quotes of its own: --gin.{name}=\'"{value}"\'.'
    raise gin_names.ConfigError(
      f'--gin.{name}={value} cannot be read as a gin value.{hint}'
    ) from error
