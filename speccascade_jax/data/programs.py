"""pass@1 of programs that a model wrote, as for MBPP.

Scoring runs what the model wrote, in the sandbox of `sandbox`, and only where
the caller says so: `run_programs=True`.
"""

from __future__ import annotations

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
_FENCE = re.compile(r'(?m)^[ \t]*```[ \t]*([\w+-]*)[^\n]*$')
_CODE = re.compile(r'(?m)^[ \t]*(def|class|import|from|async|@)[ \t]*\w')


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
  standard library alone. The same text with the same tests is run once.

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

  In this order: what stands between [BEGIN] and [DONE], the first of which
  the prompt may have had; the first fenced block of Python or of no language
  (of any, if there is none), which the prompt may have opened; all of it.
  """
  text = prediction.replace('\r\n', '\n')
  text = text.partition('[DONE]')[0]
  before, begin, after = text.partition('[BEGIN]')
  text = after if begin else before
  return textwrap.dedent(_fenced(text)).strip()


def _fenced(text: str) -> str:
  """The block of code in a text with ``` in it, else all of it."""
  fences = list(_FENCE.finditer(text))
  if not fences:
    return text
  if not fences[0][1] and _CODE.search(text[: fences[0].start()]):
    return text[: fences[0].start()]  # The prompt opened the block.
  starts, ends = fences[::2], fences[1::2]
  blocks = []
  for i, start in enumerate(starts):
    end = ends[i].start() if i < len(ends) else len(text)
    blocks.append((start[1].lower(), text[start.end() : end]))
  python = [code for tag, code in blocks if not tag or tag.startswith('py')]
  return python[0] if python else blocks[0][1]


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
