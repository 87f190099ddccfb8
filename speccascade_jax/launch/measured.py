"""What runs of the past tell of those to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from speccascade_jax.evaluation import expectation

_TIMES = ('call_times.json', 'bench.json')


@dataclasses.dataclass(frozen=True)
class Known:
  """What has been measured.

  Attributes:
    runs: of a sweep.
    call_times: milliseconds of single calls, see `base.Timed`; None if unknown.
    begun: whether beginning a text has been timed as well; else it is 0.
  """

  runs: Sequence[expectation.Measured] = ()
  call_times: Mapping[str, float] | None = None
  begun: bool = True


def read(paths: Sequence[str]) -> Known:
  """What run directories of sweeps, and files of call times, tell together.

  Args:
    paths: RUN_DIRs of `speccascade sweep`, or of `speccascade bench`, which
      times calls alone; or their call_times.json and bench.json. Later ones
      win.

  Raises:
    ValueError: if one is neither.
  """
  runs: list[expectation.Measured] = []
  times: dict[str, float] = {}
  for name in paths:
    path = pathlib.Path(name)
    if (path / 'sweep.json').is_file():
      runs = [*_runs(path), *runs]
    files = [path] if path.is_file() else [path / of for of in _TIMES]
    found = {k: v for f in files if f.is_file() for k, v in _times(f).items()}
    if not found and not (path / 'sweep.json').is_file():
      raise ValueError(
        f'{path} tells nothing that was measured: name the RUN_DIR of a sweep '
        'or of bench.'
      )
    times |= found
  begun = {f'{model}_start' for model in ('drafter', 'verifier')} <= {*times}
  unknown = {'drafter_start': 0.0, 'verifier_start': 0.0}
  return Known(runs, (unknown | times) if times else None, begun)


def _times(path: pathlib.Path) -> dict[str, float]:
  content = _json(path)
  found = content.get('ms', {})
  if 'parts' in content:  # Of bench.
    names = {'drafter step': 'drafter_1', 'verifier step': 'verifier_1'}
    for row in content['parts']['calls']:
      called = row['name'].replace('verifier call of ', 'verifier_')
      if (name := names.get(called, called)).count(' ') == 0:
        found[name] = row['ms_best']
  if not {'drafter_1', 'verifier_1'} <= {*found}:
    raise ValueError(
      f'{path} holds no times of single calls, as `speccascade sweep` leaves '
      'them in call_times.json and `speccascade bench` in bench.json.'
    )
  return found


def _runs(run_dir: pathlib.Path) -> list[expectation.Measured]:
  found = []
  for key in _json(run_dir / 'sweep.json').get('runs', ()):
    folder = run_dir / 'runs' / key
    if not (folder / 'summary.json').is_file():
      continue
    summary = _json(folder / 'summary.json')
    calls = summary['verifier_calls_per_example']
    steps = summary['drafter_steps_per_example']
    rows = (folder / 'examples.jsonl').read_text('utf-8').splitlines()
    tokens = [json.loads(row)['output_tokens'] for row in rows]
    found.append(
      expectation.Measured(
        config=_json(folder / 'config.json'),
        calls=expectation.Calls(steps, calls, sum(tokens) / len(tokens)),
        acceptance_rate=summary.get('acceptance_rate'),
      )
    )
  return found


def _json(path: pathlib.Path) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text('utf-8'))
  except ValueError as error:
    raise ValueError(f'{path} is not JSON ({error}).') from error
  if not isinstance(content, dict):
    raise ValueError(f'{path} holds no JSON object.')
  return content
