"""pass@1 of programs that a model wrote, as for MBPP.

Scoring runs what the model wrote, in the sandbox of `sandbox`, and only where
the caller says so: `run_programs=True`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
import concurrent.futures
import functools
import json
import os
import pathlib
import re
import secrets
import textwrap
from typing import Any, Literal

import numpy as np

from speccascade_jax.data import metrics
from speccascade_jax.data import sandbox

# What a user allows: nothing; programs without a network; or with it, where
# the system cannot keep them from it.
Permission = bool | Literal['with_network']

LIMITS = sandbox.Limits()

_DRIVER = pathlib.Path(__file__).with_name('program_driver.py')
# Where a block of code may open: ``` at a line's beginning, whatever follows,
# or at its end; not in a docstring, and not where it closes in the same line.
# It closes at the first ``` that is in neither a text nor a comment of the
# program: elsewhere Python has none.
_TEXTS = r'"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\''
_OPENING = re.compile(
  rf'(?sm){_TEXTS}|```[^\n`]+```|(?:^[ \t]*```[ \t]*(?P<tag>[\w+-]*)[^\n`]*'
  r'|```[ \t]*(?P<late_tag>[\w+-]*)[ \t]*)(?:\n|\Z)'
)
_CLOSING = re.compile(
  rf'(?s){_TEXTS}|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|#[^\n]*'
  '|(?P<fence>```)'
)


def check_permission(run_programs: Permission) -> None:
  """Refuses what cannot be granted, before anything else is done.

  Raises:
    ValueError: if nothing may be run, or `run_programs` is no `Permission`.
    sandbox.SandboxError: if there is no sandbox to be had here.
  """
  if run_programs not in (True, False, 'with_network'):
    raise ValueError(
      f"run_programs is {run_programs!r}; it must be True, 'with_network' or "
      'False.'
    )
  if not run_programs:
    raise ValueError(
      'pass_at_1 runs the programs that the model writes, in a sandbox, and '
      'only if you allow it: set run_programs=True (of sweep, evaluate or '
      'tune, as in --gin.sweep.run_programs=True).'
    )
  sandbox.check(network=run_programs == 'with_network')


def _statistics(
  targets: Sequence[Mapping[str, Any]],
  predictions: Sequence[str],
  *,
  run_programs: Permission = False,
) -> metrics.Statistics:
  passed = _passed(targets, predictions, run_programs)
  return metrics.Statistics(
    100.0 * np.array(passed)[:, None],
    lambda sums, count: {'pass_at_1': float(sums[0]) / count},
  )


@metrics.statistics_of(_statistics)
def pass_at_1(
  targets: Sequence[Mapping[str, Any]],
  predictions: Sequence[str],
  *,
  run_programs: Permission = False,
) -> dict[str, float]:
  """Share of the predictions that pass all of their tests.

  A program passes when its own text, after the setup, and then every test runs
  to the end without an exception within `LIMITS`. Programs can import the
  standard library alone. Verdicts are kept: the same text with the same tests
  is not run again later.

  Args:
    targets: {'tests': lines to run behind the program, such as 'assert f(1) ==
      2'; 'setup': code to run before it, '' if none}. Further entries, such as
      MBPP's 'challenge_tests', are not read: published figures are of the
      tests alone.
    predictions: texts with a program in them, see `program`. One without any
      fails, and is not run.
    run_programs: whether programs may be run, see `Permission`.

  Returns:
    {'pass_at_1': 0 to 100}.

  Raises:
    ValueError: if a target has no tests, there are no texts or not one
      prediction a target, or programs would have to be run and may not.
    sandbox.SandboxError: if there is no sandbox to be had here.
  """
  passed = _passed(targets, predictions, run_programs)
  return {'pass_at_1': 100 * sum(passed) / len(passed)}


# Who hands the metric on to be used has to ask the user first.
pass_at_1.runs_programs = True  # type: ignore[attr-defined]


def allowed(metric_fn: Any, run_programs: Permission) -> Any:
  """A metric of this module that may run programs.

  Args:
    metric_fn: with a parameter and with statistics as `pass_at_1` has them.
    run_programs: what the user allows.

  Raises:
    ValueError, sandbox.SandboxError: see `check_permission`.
  """
  check_permission(run_programs)
  bind = functools.partial
  return metrics.statistics_of(
    bind(metric_fn.statistics, run_programs=run_programs)
  )(bind(metric_fn, run_programs=run_programs))


def program(prediction: str) -> str:
  """The program in a model's text, '' if there is none.

  What is before [DONE], with which a base model is shown to end a program; of
  that the first block between ``` that is of Python or of no language (of any,
  if there is none), and all of it where there is no block. A block may begin
  at the end of a line, and lack its end; ``` in docstrings belong to them.
  """
  text = prediction.replace('\r\n', '\n')
  text = text.partition('[DONE]')[0]
  return textwrap.dedent(_fenced(text)).strip()


def _fenced(text: str) -> str:
  """The block of code in a text with ``` in it, else all of it."""
  text = _before_stray(text)
  other, at = None, 0
  while opening := _OPENING.search(text, at):
    at = opening.end()
    tag = opening['tag'] if opening['tag'] is not None else opening['late_tag']
    if tag is None:
      continue  # A docstring, or code within a line.
    closings = _CLOSING.finditer(text, at)
    closing = next((found for found in closings if found['fence']), None)
    code = text[at : closing.start() if closing else len(text)]
    if not tag or tag.lower().startswith('py'):
      return code
    other = code if other is None else other
    if closing is None:
      break
    at = closing.end()
  return text if other is None else other


def _before_stray(text: str) -> str:
  """The text in front of a ``` that closes what was never opened.

  A model whose prompt has opened the block, or that forgot to, ends its program
  with one: the only one there is, alone in its line, behind what Python can
  read (a line of prose may be an expression, but does nothing).
  """
  fences = [found for found in _CLOSING.finditer(text) if found['fence']]
  if len(fences) != 1:
    return text
  before, line = text[: fences[0].start()], text[fences[0].start() :]
  if before.rpartition('\n')[2].strip() or line.partition('\n')[0] != '```':
    return text
  try:
    tree = ast.parse(textwrap.dedent(before))
  except (SyntaxError, ValueError, MemoryError, RecursionError):
    return text
  does = any(not isinstance(part, ast.Expr) for part in tree.body)
  return before if does else text


def _passed(
  targets: Sequence[Mapping[str, Any]],
  predictions: Sequence[str],
  run_programs: Permission,
) -> list[bool]:
  """Verdicts in the order of the targets; as many at a time as processors."""
  metrics.check_lengths(targets, predictions)
  for i, target in enumerate(targets):
    if not isinstance(target, Mapping):
      raise ValueError(
        f'Target {i} is {target!r}; it must be a mapping with tests and setup, '
        "which the task's postprocess_fn has to make of it."
      )
    tests = target.get('tests')
    if isinstance(tests, str) or not tests or not all(map(str.strip, tests)):
      raise ValueError(
        f'Target {i} has tests={tests!r}: at least one line to run is needed, '
        'in a list.'
      )
  texts = [program(prediction) for prediction in predictions]
  if any(texts):
    check_permission(run_programs)
  pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1)
  try:
    return list(
      pool.map(
        lambda target, text: (
          bool(text)
          and _passes(
            target.get('setup') or '',
            text,
            tuple(target['tests']),
            run_programs == 'with_network',
          )
        ),
        targets,
        texts,
      )
    )
  finally:
    pool.shutdown(cancel_futures=True)  # Of what an interrupt leaves over.


# A metric and its statistics, and the rungs of a search, ask for the same.
@functools.lru_cache(maxsize=20_000)
def _passes(
  setup: str, text: str, tests: tuple[str, ...], network: bool
) -> bool:
  passed = secrets.token_hex(32)
  request = {'setup': setup, 'program': text, 'tests': tests, 'passed': passed}
  result = sandbox.run(
    _DRIVER.read_text(encoding='utf-8'),
    stdin=json.dumps(request),
    limits=LIMITS,
    network=network,
  )
  return result.exit_code == 0 and passed.encode() in result.output
