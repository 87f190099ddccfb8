"""What runs of the past tell of those to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from speccascade_jax.evaluation import expectation

_TIMES = 'call_times.json'


@dataclasses.dataclass(frozen=True)
class Known:
  """What has been measured.

  Attributes:
    runs: of a sweep.
    call_times: milliseconds of single calls, see `base.Timed`; None if unknown.
  """

  runs: Sequence[expectation.Measured] = ()
  call_times: Mapping[str, float] | None = None


def read(paths: Sequence[str]) -> Known:
  """What run directories of sweeps, and files of call times, tell together.

  Args:
    paths: RUN_DIRs; or JSON files with milliseconds by name under 'ms', as a
      RUN_DIR's call_times.json has them. Later ones win.

  Raises:
    ValueError: if one is neither.
  """
  runs: list[expectation.Measured] = []
  times: dict[str, float] = {}
  for name in paths:
    path = pathlib.Path(name)
    if path.is_file():
      times |= _times(path)
    elif (path / 'sweep.json').is_file():
      runs = [*_runs(path), *runs]
      if (path / _TIMES).is_file():
        times |= _times(path / _TIMES)
    elif (path / _TIMES).is_file():
      times |= _times(path / _TIMES)
    else:
      raise ValueError(
        f'{path} tells nothing that was measured: name the RUN_DIR of a sweep, '
        'or a JSON file of call times.'
      )
  return Known(runs, times or None)


def _times(path: pathlib.Path) -> dict[str, float]:
  content = _json(path)
  found = content.get('ms', {})
  needed = ('drafter_1', 'drafter_start', 'verifier_start', 'verifier_1')
  lacking = [k for k in needed if not isinstance(found.get(k), (int, float))]
  if lacking:
    raise ValueError(
      f'{path} lacks {", ".join(lacking)}: it holds no times of single calls, '
      'as `speccascade sweep` leaves them in call_times.json.'
    )
  return dict(found)


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
