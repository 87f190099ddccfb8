"""`speccascade COMMAND`, which is `python -m speccascade_jax COMMAND`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import difflib
import importlib
import os
import pathlib
import sys
import traceback
from typing import NoReturn
import warnings

COMMANDS = {
  'train': 'train a model, or distil a drafter from its verifier',
  'evaluate': 'score one model or method on a task, in batches',
  'sweep': 'quality and latency of methods over alpha, gamma and temperature',
  'tune': 'the best method and settings under a constraint, as gin files',
  'plan': 'what the run of a config will take: memory, calls, time',
  'calibrate': 'how reliable confidences are, and temperatures for them',
  'report': 'tables, figures and an HTML page from the folder of a run',
  'bench': 'time of single calls, rounds and methods, and their floors',
  'generate': 'text from the command line or a file, traced if wanted',
}

_PACKAGE = str(pathlib.Path(__file__).parent)
_USAGE = """usage: speccascade COMMAND [arguments]

{commands}

speccascade COMMAND --help tells what a command takes."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command.

  Args:
    argv: the arguments; by default those of the process.

  Returns:
    The exit status: 0, 1 for a mistake in a configuration or in the input, or
    2 for one in the command line.
  """
  argv = sys.argv[1:] if argv is None else list(argv)
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(_usage(), file=sys.stdout if argv else sys.stderr)
    return 0 if argv else 2
  command, *rest = argv
  if command not in COMMANDS:
    close = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f'did you mean {close[0]}?' if close else f'{", ".join(COMMANDS)}.'
    print(f'speccascade: no command {command!r}; {hint}', file=sys.stderr)
    return 2
  from speccascade_jax.launch import compiled
  from speccascade_jax.launch import quiet

  quiet.set_environment()
  module = importlib.import_module(f'speccascade_jax.launch.{command}')
  try:
    with _short_warnings():
      compiled.keep()
      module.main(rest)
  except (ValueError, OSError) as error:
    if not _is_for_the_user(error):
      raise
    from speccascade_jax.launch import gin_names

    message = gin_names.without_call_stack(error)
    print(f'speccascade {command}: {message}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print(f'\nspeccascade {command}: interrupted', file=sys.stderr)
    _leave(130)
  return 0


def _usage() -> str:
  width = max(map(len, COMMANDS))
  lines = (f'  {name:<{width}}  {text}' for name, text in COMMANDS.items())
  return _USAGE.format(commands='\n'.join(lines))


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
  """This package's warnings without the line of code that they came from."""
  with warnings.catch_warnings():
    usual = warnings.showwarning

    def show(message, category, filename, *position, **to):
      if filename.startswith(_PACKAGE):
        print(f'speccascade: warning: {message}', file=sys.stderr)
      else:
        usual(message, category, filename, *position, **to)

    warnings.showwarning = show
    yield


def _leave(status: int) -> NoReturn:
  """Ends the process at once.

  Compiling goes on in XLA's own threads, and an interpreter that takes itself
  down under them crashes. Nothing is lost: whatever is written can be resumed
  after a SIGKILL.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def _is_for_the_user(error: BaseException) -> bool:
  """Whether this package raised `error` itself, to say what is wrong.

  The same types from inside a library mean a bug, and keep their traceback.
  """
  frames = traceback.extract_tb(error.__traceback__)
  # gin re-raises what passes through it; the place of origin comes last.
  return bool(frames) and frames[-1].filename.startswith(_PACKAGE)


if __name__ == '__main__':
  sys.exit(main())
