"""What runs of the past tell of those to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import pathlib
from typing import Any

from speccascade_jax.evaluation import expectation
from speccascade_jax.launch import inputs

_TIMES = ('call_times.json', 'bench.json')
_COUNTS = ('drafter_steps', 'verifier_calls', 'output_tokens')


@dataclasses.dataclass(frozen=True)
class Found:
  """What one path tells.

  Attributes:
    path: as it was given.
    runs: of a sweep.
    call_times: milliseconds of single calls, see `base.Timed`; None if there
      are none.
    pair: what was measured, as `inputs.pair_name` or `inputs.role_names` call
      it; None if that is not recorded.
    dtype: that it computed in; None likewise.
    task: of the texts; None for those of bench.
    device: that it was measured on; None likewise.
  """

  path: pathlib.Path
  runs: Sequence[expectation.Measured] = ()
  call_times: Mapping[str, float] | None = None
  pair: str | Mapping[str, str] | None = None
  dtype: str | None = None
  task: str | None = None
  device: str | None = None


@dataclasses.dataclass(frozen=True)
class Wanted:
  """Of what something has to be measured to tell of a plan.

  Attributes:
    pairs: what the plan's pair may be called, see `Found.pair`.
    dtype: that it computes in.
    task: None if it is not known.
  """

  pairs: Sequence[str | Mapping[str, str]]
  dtype: str
  task: str | None


@dataclasses.dataclass(frozen=True)
class Known:
  """What has been measured and tells of a plan.

  Attributes:
    runs: of the same pair on the same task.
    call_times: of the same pair; None if unknown.
    begun: whether beginning a text has been timed as well; else it is 0.
    notes: what was left out and why, a sentence each.
  """

  runs: Sequence[expectation.Measured] = ()
  call_times: Mapping[str, float] | None = None
  begun: bool = True
  notes: Sequence[str] = ()


def read(paths: Sequence[str]) -> list[Found]:
  """What run directories of sweeps, and files of call times, tell.

  Args:
    paths: RUN_DIRs of `speccascade sweep`, or of `speccascade bench`, which
      times calls alone; or their call_times.json and bench.json.

  Raises:
    ValueError: if one is neither, or a file in it is not as it was written.
  """
  return [_found(pathlib.Path(name)) for name in paths]


def apt(found: Sequence[Found], wanted: Wanted) -> Known:
  """What of it tells of a plan; of two that do, the later one wins."""
  runs: list[expectation.Measured] = []
  times: dict[str, float] = {}
  notes = []
  for one in found:
    other = _other(one, wanted)
    if other is not None:
      notes.append(f'{one.path} tells nothing of this: {other}.')
      continue
    if one.call_times is not None:
      times |= one.call_times
      if one.device is not None:
        notes.append(f'Calls were timed on {one.device} ({one.path}).')
    if one.runs and one.task != wanted.task:
      notes.append(
        f'The runs in {one.path} are of texts of {one.task}, not of '
        f'{wanted.task or "a task"}: they tell no number of calls.'
      )
      continue
    runs = [*one.runs, *runs]
  begun = {f'{model}_start' for model in inputs.ROLES} <= {*times}
  unknown = {'drafter_start': 0.0, 'verifier_start': 0.0}
  return Known(runs, (unknown | times) if times else None, begun, notes)


def _other(one: Found, wanted: Wanted) -> str | None:
  """What else it is of; None if it is of what is wanted, as far as it says."""
  if one.pair is not None and one.pair not in wanted.pairs:
    pair = one.pair
    if not isinstance(pair, str):
      pair = ' -> '.join(map(str, pair.values()))
    return f'it was measured of {pair}'
  if one.dtype is not None and one.dtype != wanted.dtype:
    return f'it was measured in {one.dtype}, and this is {wanted.dtype}'
  return None


def _found(path: pathlib.Path) -> Found:
  folder = path.parent if path.is_file() else path
  header = {}
  if (folder / 'sweep.json').is_file():
    header = _json(folder / 'sweep.json')
  runs = [] if path.is_file() else _runs(path, header)
  files = [path] if path.is_file() else [path / name for name in _TIMES]
  contents = [(file, _json(file)) for file in files if file.is_file()]
  times = {k: v for at, what in contents for k, v in _times(at, what).items()}
  if not times and not (header and path.is_dir()):
    raise ValueError(
      f'{path} tells nothing that was measured: name the RUN_DIR of a sweep '
      'or of bench.'
    )
  for _, content in contents:
    # A sweep says in sweep.json what bench says beside its times.
    header = header or content
  pair, digest = header.get('pair'), header.get('pair_digest')
  return Found(
    path,
    runs,
    times or None,
    pair=pair if isinstance(pair, (str, dict)) else None,
    # See `loading.load_pair`; behind it may be which model is int8.
    dtype=[*digest.split('-'), None][1] if isinstance(digest, str) else None,
    task=header.get('task'),
    device=header.get('device'),
  )


def _times(path: pathlib.Path, content: Mapping[str, Any]) -> dict[str, float]:
  found = content.get('ms')
  found = dict(found) if isinstance(found, dict) else {}
  parts = content.get('parts')  # Of bench.
  rows = parts.get('calls') if isinstance(parts, dict) else None
  if isinstance(rows, list):
    names = {'drafter step': 'drafter_1', 'verifier step': 'verifier_1'}
    for row in rows:
      if not isinstance(row, dict) or not isinstance(row.get('name'), str):
        raise ValueError(f'{path}: {row!r} is no call with a name.')
      called = row['name'].replace('verifier call of ', 'verifier_')
      if (name := names.get(called, called)).count(' ') == 0:
        found[name] = row.get('ms_best')
  if not {'drafter_1', 'verifier_1'} <= {*found}:
    raise ValueError(
      f'{path} holds no times of single calls, as `speccascade sweep` leaves '
      'them in call_times.json and `speccascade bench` in bench.json.'
    )
  return {k: _number(v, f'{path}: the time of {k}') for k, v in found.items()}


def _runs(
  run_dir: pathlib.Path, header: Mapping[str, Any]
) -> list[expectation.Measured]:
  keys = header.get('runs', [])
  if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys):
    raise ValueError(
      f'{run_dir / "sweep.json"}: runs is {keys!r}; it must be the names of '
      'folders.'
    )
  folders = [run_dir / 'runs' / key for key in keys]
  return [
    _run(folder, header.get('max_length'))
    for folder in folders
    if (folder / 'summary.json').is_file()
  ]


def _run(folder: pathlib.Path, max_length: Any) -> expectation.Measured:
  log = folder / 'examples.jsonl'
  texts = []
  for number, line in enumerate(log.read_text('utf-8').splitlines(), 1):
    row = _object(line, f'{log}, line {number},')
    counts = [
      _number(row.get(k), f'{log}, line {number}: {k}') for k in _COUNTS
    ]
    texts.append(expectation.Calls(*counts))
  if not texts:
    raise ValueError(f'{log} has no line, although the run is finished.')
  rate = _json(folder / 'summary.json').get('acceptance_rate')
  if rate is not None:
    rate = _number(rate, f'{folder / "summary.json"}: acceptance_rate')
  return expectation.Measured(
    config=_json(folder / 'config.json'),
    texts=texts,
    max_length=int(_number(max_length, f'max_length of {folder.parents[1]}')),
    acceptance_rate=rate,
  )


def _number(value: Any, what: str) -> float:
  """Refuses what is no count and no time, such as the text '2.0'."""
  if type(value) not in (int, float) or not 0 <= value < math.inf:
    raise ValueError(f'{what} is {value!r}; it must be a number, 0 or more.')
  return value


def _json(path: pathlib.Path) -> dict[str, Any]:
  return _object(path.read_text('utf-8'), str(path))


def _object(text: str, where: str) -> dict[str, Any]:
  try:
    content = json.loads(text)
  except ValueError as error:
    raise ValueError(f'{where} is not JSON ({error}).') from error
  if not isinstance(content, dict):
    raise ValueError(f'{where} holds no JSON object.')
  return content
