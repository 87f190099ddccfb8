"""`speccascade COMMAND`, which is `python -m speccascade_jax COMMAND`."""

from __future__ import annotations

from collections.abc import Sequence
import difflib
import importlib
import pathlib
import sys
import traceback

COMMANDS = {
  'train': 'train a model, or distil a drafter from its verifier',
  'evaluate': 'score one model or method on a task, in batches',
  'sweep': 'quality and latency of methods over alpha, gamma and temperature',
  'report': 'tables, figures and an HTML page from the folder of a sweep',
  'generate': 'text from the command line or a file, traced if wanted',
}

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
  from speccascade_jax.launch import quiet

  quiet.set_environment()
  module = importlib.import_module(f'speccascade_jax.launch.{command}')
  try:
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
    return 130
  return 0


def _usage() -> str:
  width = max(map(len, COMMANDS))
  lines = (f'  {name:<{width}}  {text}' for name, text in COMMANDS.items())
  return _USAGE.format(commands='\n'.join(lines))


def _is_for_the_user(error: BaseException) -> bool:
  """Whether this package raised `error` itself, to say what is wrong.

  The same types from inside a library mean a bug, and keep their traceback.
  """
  frames = traceback.extract_tb(error.__traceback__)
  own = str(pathlib.Path(__file__).parent)
  # gin re-raises what passes through it; the place of origin comes last.
  return bool(frames) and frames[-1].filename.startswith(own)


if __name__ == '__main__':
  sys.exit(main())
