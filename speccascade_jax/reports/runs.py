"""The run directory of a sweep, read into plain dataclasses.

Reads the files that `speccascade sweep` leaves behind and nothing else, so
that every table and figure is drawn again without a model, a device or the
task. What a run did not measure is None, never a guess and never NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import json
import math
import os
import pathlib
from typing import Any

from speccascade_jax.reports import intervals


class RunDirError(ValueError):
  """A directory that no report can be made of; says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Run:
  """One finished point of the grid. None: not measured, or not defined."""

  key: str
  label: str  # The method's name in tables.
  model: str  # 'pair', 'verifier' or 'drafter'.
  rule: str | None
  verification: str | None
  alpha: float | None
  gamma: int | None
  temperature: float
  top_k: int | None
  top_p: float | None
  min_p: float | None
  trial: int
  seed: int
  quality: Mapping[str, float | None]  # By metric.
  signatures: Mapping[str, str]  # By metric.
  relative_latency: float | None  # To the verifier's on the same examples.
  relative_latency_sem: float | None
  latency_ms_mean: float | None  # Per example, batch size 1.
  latency_ms_p50: float | None
  latency_ms_p95: float | None
  tokens_per_s: float | None
  compile_s: float | None
  warmup_ms: float | None
  acceptance_rate: float | None  # Of the drafted tokens that were judged.
  rejection_rate: float | None  # Likewise.
  deferral_rate: float | None  # Of the output tokens.
  block_efficiency: float | None  # Output tokens per verifier call.
  verifier_calls_per_example: float | None
  drafter_steps_per_example: float | None
  num_examples: int | None
  num_truncated: int | None = None  # Of them, inputs that were cut.
  # What runs of older sweeps do not have.
  eta: float | None = None
  method: str | None = None  # How the pair decoded.
  options: str | None = None  # Of the method, as 'fallback 0.6'.
  truncation: str | None = None  # Of the method; alpha is its strength.
  modelled_latency_ms: float | None = None  # By the cost model, per example.
  modelled_relative_latency: float | None = None  # To the verifier's.
  timed_apart: int | None = None  # Examples: the verifier at another start.
  # Of drafter and verifier, as '0.95, 1.1'; None where they are as they are.
  confidence_temperatures: str | None = None
  replicates: intervals.Replicates = dataclasses.field(
    default_factory=dict, compare=False, repr=False
  )

  def interval(self, name: str) -> intervals.Interval | None:
    """95 % of 'relative_latency', 'quality.METRIC' and so on; or None."""
    return intervals.interval(self.replicates.get(name))

  @property
  def alone(self) -> str | None:
    """'verifier' or 'drafter' where this is what others are compared with."""
    if self.model == 'pair' or self.truncation is not None:
      return None
    return self.model

  @property
  def strength(self) -> str | None:
    """What moves along the curve: '0.2', or 'top_p 0.9'."""
    if self.alpha is None:
      return None
    return f'{self.truncation or ""} {self.alpha:g}'.strip()

  @property
  def point(self) -> tuple:
    """What the trials of one point of the grid have in common."""
    return tuple(getattr(self, name) for name in (*_CONFIG, 'seed'))


@dataclasses.dataclass(frozen=True)
class Unfinished:
  """A point of the grid without a summary; reports leave it out."""

  key: str
  label: str
  alpha: float | None
  truncation: str | None
  gamma: int | None
  temperature: float
  done: int  # Examples.
  total: int | None


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that may be compared: equal temperature and truncation."""

  temperature: float
  top_k: int | None
  top_p: float | None
  min_p: float | None
  eta: float | None
  runs: tuple[Run, ...]

  @property
  def title(self) -> str:
    """Such as 'T = 1, top-p 0.9'."""
    parts = [f'T = {self.temperature:g}']
    for name in _TRUNCATIONS:
      value = getattr(self, name)
      if value is not None:
        parts.append(f'{name.replace("_", "-")} {value:g}')
    return ', '.join(parts)

  @property
  def verifier(self) -> Run | None:
    """The verifier alone: trial means if there were several trials."""
    return self._alone('verifier')

  def verifier_of(self, run: Run) -> Run | None:
    """The verifier's run of the same trial, to be paired with."""
    for other in self.runs:
      if other.alone == 'verifier' and other.trial == run.trial:
        return other
    return None

  @property
  def drafter(self) -> Run | None:
    """The drafter alone, likewise."""
    return self._alone('drafter')

  def _alone(self, model: str) -> Run | None:
    found = trial_means(run for run in self.runs if run.alone == model)
    return found[0] if found else None


@dataclasses.dataclass(frozen=True)
class Sweep:
  """A run directory: what was run, on what, and what came out."""

  path: pathlib.Path
  header: Mapping[str, Any]  # sweep.json.
  operative_config: str
  runs: tuple[Run, ...]  # Finished ones, in the order of display.
  unfinished: tuple[Unfinished, ...]

  @property
  def primary_metric(self) -> str:
    """The metric on the figures' axes."""
    return self.header['primary_metric']

  @property
  def metrics(self) -> tuple[str, ...]:
    """All metrics, the primary one first."""
    rest = [m for m in self.header['metrics'] if m != self.primary_metric]
    return (self.primary_metric, *rest)

  def groups(self) -> list[Group]:
    """The runs by temperature and truncation, coldest first.

    Within a group the verifier comes first, then the drafter, then the
    methods in the order of display; a curve's points by gamma and alpha.
    """
    by_setting: dict[tuple, list[Run]] = {}
    for run in self.runs:
      setting = (run.temperature, *(getattr(run, t) for t in _TRUNCATIONS))
      by_setting.setdefault(setting, []).append(run)
    groups = []
    for setting in sorted(
      by_setting, key=lambda s: [-1 if v is None else v for v in s]
    ):
      runs = tuple(_displayed(by_setting[setting]))
      truncation: dict[str, Any] = dict(zip(_TRUNCATIONS, setting[1:]))
      groups.append(Group(temperature=setting[0], runs=runs, **truncation))
    return groups


def load(run_dir: str | os.PathLike[str]) -> Sweep:
  """Reads a run directory.

  Raises:
    RunDirError: if it is not one, if a file in it is damaged, or if not a
      single run has finished.
  """
  path = pathlib.Path(run_dir)
  if not (path / 'sweep.json').is_file():
    raise RunDirError(
      f'{path} is not a run directory: '
      + (
        'it has no sweep.json.' if path.is_dir() else 'there is no such folder.'
      )
      + ' Name the RUN_DIR of a `speccascade sweep`.'
    )
  header = read_json(path / 'sweep.json', 'primary_metric', 'metrics', 'runs')
  runs, unfinished = [], []
  for key in header['runs']:
    folder = path / 'runs' / str(key)
    if (folder / 'summary.json').is_file():
      runs.append(_run(folder))
    else:
      unfinished.append(_unfinished(folder, header.get('num_examples')))
  if not runs:
    done = sum(run.done for run in unfinished)
    raise RunDirError(
      f'{path} has no finished run yet: the methods at one temperature take '
      'turns and are scored together, when they have all examples. Of its '
      f'{len(unfinished)} runs {done} examples are done. '
      'Start the same `speccascade sweep` again; it goes on where it stopped.'
    )
  config = path / 'operative_config.gin'
  return Sweep(
    path=path,
    header=header,
    operative_config=config.read_text('utf-8') if config.is_file() else '',
    runs=tuple(runs),
    unfinished=tuple(unfinished),
  )


def trial_means(runs: Iterable[Run]) -> list[Run]:
  """One run for all trials of a point: what was measured is averaged.

  A value that some trial lacks is None. The key is that of the first trial;
  the standard error of the ratio shrinks as that of a mean does.
  """
  by_point: dict[tuple, list[Run]] = {}
  for run in runs:
    by_point.setdefault(run.point, []).append(run)
  return [_mean(trials) for trials in by_point.values()]


def examples(sweep: Sweep, count: int) -> list[dict[str, Any]]:
  """The first `count` lines of the sweep's examples: source and target."""
  return _read_lines(sweep.path / 'examples.jsonl', count)


def predictions(sweep: Sweep, key: str) -> dict[int, str]:
  """What a run generated, by example."""
  rows = _read_lines(sweep.path / 'runs' / key / 'examples.jsonl')
  return {row['example']: row['prediction'] for row in rows}


_TRUNCATIONS = ('top_k', 'top_p', 'min_p', 'eta')
_CONFIG = (
  *('label', 'model', 'rule', 'verification', 'alpha', 'gamma'),
  *('temperature', *_TRUNCATIONS, 'method', 'options', 'truncation'),
  'confidence_temperatures',
)
MEASURED = (
  *('relative_latency', 'relative_latency_sem', 'latency_ms_mean'),
  *('latency_ms_p50', 'latency_ms_p95', 'tokens_per_s', 'compile_s'),
  *('warmup_ms', 'acceptance_rate', 'rejection_rate', 'deferral_rate'),
  *('block_efficiency', 'verifier_calls_per_example'),
  *('drafter_steps_per_example', 'num_examples', 'num_truncated'),
  *('modelled_latency_ms', 'modelled_relative_latency', 'timed_apart'),
)
# Counts, of which trials have no mean.
_COUNTS = ('num_examples', 'num_truncated', 'timed_apart')


def _run(folder: pathlib.Path) -> Run:
  config = _config(folder)
  settings: dict[str, Any] = {name: config.get(name) for name in _CONFIG}
  if settings['options'] is not None:
    pairs = sorted(settings['options'].items())
    given = [f'{k} {v}' for k, v in pairs if v is not None]
    settings['options'] = ', '.join(given) or None
  calibrated = settings['confidence_temperatures']
  if calibrated is not None:
    found = ', '.join(f'{t:g}' for t in calibrated)
    settings['confidence_temperatures'] = found
  summary = read_json(folder / 'summary.json', 'quality')
  measured: dict[str, Any] = {
    name: _number(summary.get(name)) for name in MEASURED
  }
  return Run(
    key=folder.name,
    **settings,
    trial=config.get('trial') or 0,
    seed=config.get('seed') or 0,
    quality={k: _number(v) for k, v in summary['quality'].items()},
    signatures=summary.get('signatures') or {},
    **measured,
    replicates=_replicates(folder / 'replicates.json'),
  )


def _replicates(path: pathlib.Path) -> dict[str, tuple[float, ...]]:
  """By flat names; {} for the runs of older sweeps, which have none."""
  if not path.is_file():
    return {}
  content = read_json(path, 'quality')
  quality = content.pop('quality')
  flat = content | {f'quality.{name}': v for name, v in quality.items()}
  return {name: tuple(values) for name, values in flat.items() if values}


def _unfinished(folder: pathlib.Path, total: int | None) -> Unfinished:
  if not (folder / 'config.json').is_file():
    # Killed between the header and the first of the folders.
    return Unfinished(
      folder.name, '(not begun)', None, None, None, 0.0, 0, total
    )
  config = _config(folder)
  log = folder / 'examples.jsonl'
  return Unfinished(
    key=folder.name,
    label=config['label'],
    alpha=config.get('alpha'),
    truncation=config.get('truncation'),
    gamma=config.get('gamma'),
    temperature=config['temperature'],
    # A torn last line has no newline and does not count.
    done=log.read_bytes().count(b'\n') if log.is_file() else 0,
    total=total,
  )


def _config(folder: pathlib.Path) -> dict[str, Any]:
  return read_json(folder / 'config.json', 'label', 'model', 'temperature')


def _displayed(runs: Sequence[Run]) -> list[Run]:
  """A stable order: methods as given, a method's points along its curve."""
  methods = list(dict.fromkeys((run.label, run.verification) for run in runs))
  alone = {'verifier': 0, 'drafter': 1}

  def place(run: Run) -> tuple:
    return (
      alone.get(run.alone or '', 2),
      methods.index((run.label, run.verification)),
      run.gamma or 0,
      -math.inf if run.alpha is None else run.alpha,
      run.trial,
    )

  return sorted(runs, key=place)


def _mean(trials: Sequence[Run]) -> Run:
  if len(trials) == 1:
    return trials[0]
  measured: dict[str, Any] = {
    name: _average([getattr(run, name) for run in trials])
    for name in MEASURED
    if name not in _COUNTS
  }
  sem = measured['relative_latency_sem']
  if sem is not None:
    measured['relative_latency_sem'] = sem / math.sqrt(len(trials))
  quality = {
    name: _average([run.quality.get(name) for run in trials])
    for name in trials[0].quality
  }
  replicates = intervals.mean([run.replicates for run in trials])
  return dataclasses.replace(
    trials[0], quality=quality, replicates=replicates, **measured
  )


def _average(values: Sequence[float | None]) -> float | None:
  known = [value for value in values if value is not None]
  return sum(known) / len(known) if len(known) == len(values) else None


def _number(value: Any) -> float | None:
  """JSON's NaN and infinities are no measurements."""
  if isinstance(value, (int, float)) and math.isfinite(value):
    return value
  return None


def read_json(path: pathlib.Path, *required: str) -> dict[str, Any]:
  """An object of JSON that has the required names.

  Raises:
    RunDirError: if it has not.
  """
  try:
    content = json.loads(path.read_text('utf-8'))
  except FileNotFoundError as error:
    raise RunDirError(f'{path} is missing; is the copy complete?') from error
  except ValueError as error:
    raise RunDirError(f'{path} is not JSON ({error}).') from error
  lacking = [
    name
    for name in required
    if not isinstance(content, dict) or content.get(name) is None
  ]
  if lacking:
    raise RunDirError(
      f'{path} has no {", ".join(lacking)}: it was not written by '
      'this version of speccascade, or has been changed since.'
    )
  return content


def _read_lines(
  path: pathlib.Path, count: int | None = None
) -> list[dict[str, Any]]:
  return list(_lines(path, count)) if path.is_file() else []


def _lines(path: pathlib.Path, count: int | None) -> Iterator[dict[str, Any]]:
  with open(path, encoding='utf-8', newline='\n') as file:
    for number, line in enumerate(file):
      if number == count or not line.endswith('\n'):
        return
      try:
        yield json.loads(line)
      except ValueError as error:
        raise RunDirError(
          f'{path}, line {number + 1} is damaged ({error}).'
        ) from error
