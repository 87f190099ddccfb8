"""Figures that were published, beside those of a sweep.

An `expected.json` says what to compare with, and where each figure is from::

  {
    "of": "Narasimhan et al., 2025",
    "figures": [
      {"figure": "max_length", "value": 80, "task": "xsum", "source": "App. F"},
      {"figure": "latency", "label": "SpecCascade [OPT]", "gamma": 5,
       "temperature": 1.0, "value": 0.7, "source": "Table 2"}
    ]
  }

A `figure` is one of three kinds: 'latency' and 'quality', the two answers of
the headline table, for a curve; a column of table.csv such as 'rejection_rate'
or 'quality.bleu', for a run; or a name of sweep.json, for the whole sweep. What
the figure is of is told by the same names: label, alpha, gamma, temperature,
truncations; task and models say for which sweeps it holds. A figure without a
source is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import os
import pathlib
from typing import Any

from speccascade_jax.reports import headline
from speccascade_jax.reports import intervals
from speccascade_jax.reports import runs as runs_lib

FILE = 'expected.json'
_CURVE = ('latency', 'quality')
_OF_SWEEP = ('task', 'models', 'split')
_OF_RUN = ('label', 'alpha', 'gamma', 'temperature', 'top_k', 'top_p', 'min_p')
_NUMBERS = ('value', *_OF_RUN[1:])
_TEXTS = ('task', 'split', 'label')


class ExpectedError(ValueError):
  """A file of expected figures that cannot be used; says why."""


@dataclasses.dataclass(frozen=True)
class Figure:
  """One published figure.

  Attributes:
    name: see above, 'figure'.
    value: as published.
    source: where.
    of: what it is of, by name.
  """

  name: str
  value: float
  source: str
  of: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A published figure and ours.

  Attributes:
    figure: the published one.
    ours: None where the sweep has nothing like it.
    interval: of ours; None without replicates.
    sweep: which one of several; empty if there is but one.
  """

  figure: Figure
  ours: float | None
  interval: intervals.Interval | None
  sweep: str = ''


@dataclasses.dataclass(frozen=True)
class Beside:
  """All comparisons of a sweep with what was published.

  Attributes:
    of: whose figures they are.
    path: of the file.
    comparisons: those that hold for the sweep.
  """

  of: str
  path: pathlib.Path
  comparisons: Sequence[Comparison]


def find(sweep: runs_lib.Sweep) -> pathlib.Path | None:
  """The expected.json beside a gin file that the sweep was set up by."""
  for file in reversed(sweep.header.get('gin_files') or ()):
    path = pathlib.Path(file).parent / FILE
    if path.is_file():
      return path
  return None


def compare(
  sweep: runs_lib.Sweep,
  rows: Sequence[headline.Row],
  path: str | os.PathLike[str],
) -> Beside:
  """The figures of a file that hold for a sweep, beside the sweep's.

  Args:
    sweep: the runs.
    rows: of its headline table.
    path: of the file.

  Raises:
    ExpectedError: if it is not such a file.
  """
  of, figures = load(path)
  apt = [figure for figure in figures if _holds(figure, sweep)]
  return Beside(
    of, pathlib.Path(path), [_beside(figure, sweep, rows) for figure in apt]
  )


def load(path: str | os.PathLike[str]) -> tuple[str, list[Figure]]:
  """Whose figures a file has, and the figures.

  Raises:
    ExpectedError: naming the figure that is not as it must be.
  """
  try:
    content = json.loads(pathlib.Path(path).read_text('utf-8'))
  except OSError as error:
    raise ExpectedError(f'{path} cannot be read: {error}') from error
  except ValueError as error:
    raise ExpectedError(f'{path} is not JSON ({error}).') from error
  if not isinstance(content, dict) or {*content} != {'of', 'figures'}:
    raise ExpectedError(
      f"{path} must say 'of' whom and which 'figures', and nothing else."
    )
  of, figures = content['of'], content['figures']
  if not isinstance(of, str) or not isinstance(figures, list):
    raise ExpectedError(
      f"{path}: 'of' must be a text and 'figures' a list; they are {of!r} and "
      f'{figures!r}.'
    )
  return of, [
    _figure(entry, f'{path}, figure {number}')
    for number, entry in enumerate(figures, 1)
  ]


def _figure(entry: Any, where: str) -> Figure:
  if not isinstance(entry, dict):
    raise ExpectedError(f'{where} is {entry!r}; it must be an object.')
  known = ('figure', 'value', 'source', *_OF_SWEEP, *_OF_RUN)
  unknown = [name for name in entry if name not in known]
  if unknown:
    raise ExpectedError(
      f'{where} says {", ".join(unknown)}; what can be said is '
      f'{", ".join(known)}.'
    )
  for name in ('figure', 'source'):
    if not isinstance(entry.get(name), str) or not entry[name].strip():
      raise ExpectedError(f'{where} has no {name}.')
  for name in _NUMBERS:
    value = entry.get(name, 0)
    if type(value) not in (int, float) or not math.isfinite(value):
      raise ExpectedError(f'{where}: {name} is {value!r}; it must be a number.')
  for name in _TEXTS:
    if not isinstance(entry.get(name, ''), str):
      raise ExpectedError(
        f'{where}: {name} is {entry[name]!r}; it must be a text.'
      )
  models = entry.get('models', [])
  if not isinstance(models, list) or not all(
    isinstance(m, str) for m in models
  ):
    raise ExpectedError(
      f'{where}: models is {models!r}; it must be the names of two in '
      'gin/models.'
    )
  if 'value' not in entry:
    raise ExpectedError(f'{where} has no value.')
  of = {k: v for k, v in entry.items() if k in (*_OF_SWEEP, *_OF_RUN)}
  return Figure(entry['figure'], entry['value'], entry['source'], of)


def _holds(figure: Figure, sweep: runs_lib.Sweep) -> bool:
  return all(
    figure.of[name] == sweep.header.get(name)
    for name in _OF_SWEEP
    if name in figure.of
  )


def _beside(
  figure: Figure, sweep: runs_lib.Sweep, rows: Sequence[headline.Row]
) -> Comparison:
  """A figure and ours; of several runs that it could mean, none is taken."""
  if 'label' not in figure.of:
    value = sweep.header.get(figure.name)
    numeric = isinstance(value, (int, float))
    return Comparison(figure, value if numeric else None, None)
  if figure.name in _CURVE:
    curves = [row for row in rows if _is_of(figure, row.run, but=('alpha',))]
    return _from_curve(figure, curves[0] if len(curves) == 1 else None)
  found = runs_lib.trial_means(run for run in sweep.runs if _is_of(figure, run))
  return _from_run(figure, found[0] if len(found) == 1 else None)


def _is_of(figure: Figure, run: runs_lib.Run, but: Sequence[str] = ()) -> bool:
  return all(
    getattr(run, name) == figure.of[name]
    for name in _OF_RUN
    if name in figure.of and name not in but
  )


def _from_curve(figure: Figure, row: headline.Row | None) -> Comparison:
  answers = None if row is None else getattr(row, figure.name)
  answer = answers and answers['relative_latency']
  if answer is None:
    return Comparison(figure, None, None)
  return Comparison(figure, answer.value, answer.interval)


def _from_run(figure: Figure, run: runs_lib.Run | None) -> Comparison:
  if run is None:
    return Comparison(figure, None, None)
  metric = figure.name.removeprefix('quality.')
  if metric != figure.name:
    value = run.quality.get(metric)
  elif figure.name in runs_lib.MEASURED:
    value = getattr(run, figure.name)
  else:
    raise ExpectedError(
      f'{figure.name!r} is measured of no run; what is measured is quality.'
      f'METRIC, {", ".join(runs_lib.MEASURED)}.'
    )
  return Comparison(figure, value, run.interval(figure.name))
