"""A run beside the verifier's: latency and quality, with their intervals.

Only times of one start of a sweep may be compared: between two starts, hours
or weeks may lie, and another load of the machine. Each example's latency is
set against the verifier's of the same start; where there is none, against the
one there is, and the example is counted as *timed apart*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import cost_model
from speccascade_jax.evaluation import latency
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import results

Rows = Sequence[Mapping[str, Any]]  # Lines of a log, see `results`.


@dataclasses.dataclass(frozen=True)
class Verifier:
  """The verifier's run that others are compared with.

  Attributes:
    point: of the run.
    rows: one line an example.
    timings: lines with example, start and latency_ms: the rows, and those of
      later starts that timed the verifier again.
  """

  point: methods.RunPoint
  rows: Rows
  timings: Rows


def verifier(
  directory: results.RunDirectory,
  points: Mapping[str, methods.RunPoint],
  examples: Sequence[base.Example],
) -> Verifier | None:
  """The one among runs of a company that the others are compared with."""
  for key, point in points.items():
    if point.is_reference:
      run = directory.runs[key]
      return Verifier(point, run.rows(examples), run.timings())
  return None


@dataclasses.dataclass(frozen=True)
class Compared:
  """What goes into summary.json and into replicates.json."""

  summary: dict[str, Any]
  replicates: dict[str, list[float]]


def beside(rows: Rows, timings: Rows) -> tuple[dict[int, float], int]:
  """The verifier's latency of every example of a run.

  Args:
    rows: of the run.
    timings: see `Verifier`.

  Returns:
    Milliseconds by example, of the row's own start where there is one; and
    how many examples have none.

  Raises:
    ValueError: if the verifier lacks an example.
  """
  by_start = {(t['example'], t.get('start')): t['latency_ms'] for t in timings}
  anyhow = {t['example']: t['latency_ms'] for t in reversed(timings)}
  missing = sorted({row['example'] for row in rows} - set(anyhow))
  if missing:
    raise ValueError(f'The verifier run lacks examples {missing[:5]}.')
  found, apart = {}, 0
  for row in rows:
    example = row['example']
    own = by_start.get((example, row.get('start')))
    apart += own is None
    found[example] = anyhow[example] if own is None else own
  return found, apart


def wall_clock(
  rows: Rows, verifier: Verifier | None, counts: np.ndarray
) -> Compared:
  """Measured latency relative to the verifier's, by pairs of one start.

  Args:
    rows: of the run, in the order of the examples.
    verifier: None if there is none to compare with.
    counts: see `bootstrap.draws`.
  """
  names = ('', '_sem', '_interval')
  if verifier is None:
    nothing = {f'relative_latency{name}': None for name in names}
    return Compared(nothing | {'timed_apart': None}, {})
  reference, apart = beside(rows, verifier.timings)
  times = latency.relative(
    {row['example']: row['latency_ms'] for row in rows}, reference
  )
  replicates = bootstrap.rounded(
    bootstrap.ratio(
      np.array([row['latency_ms'] for row in rows]),
      np.array([reference[row['example']] for row in rows]),
      counts,
    )
  )
  values = (times.ratio, times.ratio_sem, bootstrap.interval(replicates))
  summary: dict[str, Any] = {
    f'relative_latency{name}': value
    for name, value in zip(names, values, strict=True)
  }
  return Compared(
    summary | {'timed_apart': apart}, {'relative_latency': replicates}
  )


def modelled(
  rows: Rows,
  point: methods.RunPoint,
  verifier: Verifier | None,
  call_times: Mapping[str, float] | None,
  counts: np.ndarray,
  *,
  max_length: int,
) -> Compared:
  """The same by the cost model; None where the calls were not timed.

  Args:
    rows: see `wall_clock`.
    point: of the run.
    verifier: see `wall_clock`.
    call_times: see `base.Timed`.
    counts: see `bootstrap.draws`.
    max_length: most output tokens.
  """
  names = (
    *('modelled_latency_ms', 'modelled_relative_latency'),
    'modelled_relative_latency_interval',
  )
  summary: dict[str, Any] = dict.fromkeys(names)
  if call_times is None:
    return Compared(summary, {})
  own = _modelled(rows, point, call_times, max_length)
  summary[names[0]] = float(own.mean())
  if verifier is None:
    return Compared(summary, {})
  by_example = {row['example']: row for row in verifier.rows}
  others = [by_example[row['example']] for row in rows]
  reference = _modelled(others, verifier.point, call_times, max_length)
  replicates = bootstrap.rounded(bootstrap.ratio(own, reference, counts))
  summary[names[1]] = float(own.mean() / reference.mean())
  summary[names[2]] = bootstrap.interval(replicates)
  return Compared(summary, {'modelled_relative_latency': replicates})


def _modelled(rows, point, call_times, max_length) -> np.ndarray:
  return np.array(
    [
      cost_model.milliseconds(row, point, call_times, max_length=max_length)
      for row in rows
    ]
  )
