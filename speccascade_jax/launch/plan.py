"""`speccascade plan CONFIG`: what a configuration will take, without running.

    speccascade plan configs/quickstart.gin --measured=runs/quickstart

Memory of one device, runs, calls of both models and, where calls have been
timed, how long they take. Reads no weights and no data.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import importlib
from typing import Any

from speccascade_jax.evaluation import environment
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import measured
from speccascade_jax.launch import planning
from speccascade_jax.launch import planning_texts
from speccascade_jax.launch import training_plan


def plan(
  *,
  flags: gin_setup.Flags,
  input_length: int | None = None,
  found: Sequence[measured.Found] = (),
) -> planning.Plan:
  """The plan of the command that a configuration is for.

  Args:
    flags: the configuration.
    input_length: to be assumed where it leaves that to the examples.
    found: what was measured in the past.
  """
  command = gin_setup.command_of([*commands().values()], flags)
  name = command.__name__
  if name in _UNPLANNED:
    raise ValueError(
      f'{" ".join(flags.files)} is for {name}, of which there is no plan; '
      f'there are plans of {", ".join((*planning.JOBS, "train"))}.'
    )
  # What a user says on the command line alone.
  given = {'generate': {'texts': ('',)}}.get(name, {})
  arguments = gin_setup.build(command, flags, **given)
  if name == 'train':
    return training_plan.of_training(arguments)
  return planning.of_job(planning.JOBS[name](arguments, input_length), found)


# Whose configs are understood, so that it can be said that they have no plan.
_UNPLANNED = ('calibrate', 'bench')


def commands() -> dict[str, Callable[..., Any]]:
  """Commands that gin files set up; registers all that these may name."""
  found = {}
  for name in (*planning.JOBS, 'train', *_UNPLANNED):
    module = importlib.import_module(f'speccascade_jax.launch.{name}')
    getattr(module, 'register', lambda: None)()
    found[name] = getattr(module, name)
  return found


def main(argv: Sequence[str]) -> None:
  """The command; `argv` are the arguments behind its name."""
  parser = argparse.ArgumentParser(
    'speccascade plan',
    description='Tell what the run of a config will take: memory, runs, calls '
    'and, from measured calls, time. Loads nothing.',
  )
  parser.add_argument(
    'config', nargs='?', metavar='CONFIG', help='the same as --gin_file=CONFIG'
  )
  parser.add_argument(
    '--measured',
    action='append',
    default=[],
    metavar='DIR',
    help='RUN_DIR of a sweep, or a file of call times; repeatable',
  )
  parser.add_argument(
    '--input_length',
    type=int,
    metavar='TOKENS',
    help='of the inputs, where the config leaves it to the examples '
    f'({planning.INPUT_LENGTH})',
  )
  args, flags = gin_setup.parse_args(parser, argv)
  if args.input_length is not None and args.input_length < 1:
    raise ValueError(
      f'input_length is {args.input_length}; it must be at least 1.'
    )
  if args.config is not None:
    files = (args.config, *flags.files)
    flags = gin_setup.Flags(files, flags.bindings, flags.search_paths)
  planned = plan(
    flags=flags,
    input_length=args.input_length,
    found=measured.read(args.measured),
  )
  print(
    planning_texts.text(
      planned,
      devices=environment.device(),
      device_memory=environment.device_memory(),
    ),
    end='',
  )
