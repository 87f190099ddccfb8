"""Candidates of a search: points of a grid, measured beside the verifier.

Every candidate answers with a quality and with a latency relative to the
verifier's on the same examples, and with bootstrap replicates of both. The
draws are common to all, so that replicates of two candidates are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math

import numpy as np

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import comparison
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import scoring

CLOCKS = {'wall': 'wall clock', 'model': 'cost model'}


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One point of the grid, beside the verifier on the same examples.

  Attributes:
    key: of its run.
    point: method and settings.
    quality: of its texts; larger is better.
    reference: the verifier's quality.
    latency: relative to the verifier's.
    qualities: bootstrap replicates of `quality`.
    references: of `reference`, over the same examples.
    latencies: of `latency`, likewise.
    timed_apart: examples whose latency is set against one of the verifier
      that was measured in another start, see `comparison`.
    starts: of the search in which it was timed. Candidates of several starts
      are each set against a verifier of their own, but a machine that drifts
      does not slow down all of them alike.
  """

  key: str
  point: methods.RunPoint
  quality: float
  reference: float
  latency: float
  qualities: np.ndarray
  references: np.ndarray
  latencies: np.ndarray
  timed_apart: int = 0
  starts: frozenset[int] = frozenset()

  @property
  def share(self) -> float | None:
    """Of the verifier's quality; None where that is not above 0."""
    return self.quality / self.reference if self.reference > 0 else None

  def share_interval(self) -> list[float] | None:
    """95 % interval of `share`; None where a replicate has none."""
    if not (self.references > 0).all():
      return None
    return bootstrap.interval(self.qualities / self.references)

  def latency_interval(self) -> list[float] | None:
    """95 % interval of `latency`."""
    return bootstrap.interval(self.latencies)


def measure(
  directory: results.RunDirectory,
  points: Mapping[str, methods.RunPoint],
  examples: Sequence[base.Example],
  metric_fn: base.MetricFn,
  metric: str,
  counts: np.ndarray,
  *,
  max_length: int,
  clock: str,
) -> tuple[dict[str, Candidate], list[str]]:
  """What runs come to on some examples, from the lines of their logs.

  Args:
    directory: that has the lines.
    points: runs of one company, the verifier among them, by key.
    examples: that all of them have.
    metric_fn: that reports `metric`, see `scoring.reporting`.
    metric: name of the value that is the quality.
    counts: see `bootstrap.draws`; at least one replicate.
    max_length: most output tokens.
    clock: a name of `CLOCKS`; the cost model needs the directory's
      `call_times`.

  Returns:
    Candidates by key, the verifier's own included; and the keys of those that
    are none, because `metric` is not a finite number on all of their examples
    or on some draw of them.

  Raises:
    ValueError: if the verifier's own quality is not.
  """
  verifier = comparison.verifier(directory, points, examples)
  assert verifier is not None, 'A search has the verifier in its company.'
  own = next(key for key, point in points.items() if point.is_reference)
  targets = [example.target for example in examples]
  quality, replicates, undefined = {}, {}, []
  for key in points:
    rows = directory.runs[key].rows(examples)
    predictions = [row['prediction'] for row in rows]
    value = scoring.score([metric_fn], targets, predictions)[0][metric]
    found = bootstrap.quality(
      [metric_fn], targets, predictions, counts, recompute=True
    )
    if metric in found and math.isfinite(value):
      quality[key], replicates[key] = value, np.array(found[metric])
    else:
      undefined.append(key)
  if own in undefined:
    raise ValueError(
      f"{metric} of the verifier's texts is not a finite number on every draw "
      f'of {len(examples)} examples: compare on more of them, or by another '
      'metric.'
    )
  candidates = {}
  for key in quality:
    rows, apart = directory.runs[key].rows(examples), 0
    if clock == 'wall':
      times = comparison.wall_clock(rows, verifier, counts)
      name, apart = 'relative_latency', times.summary['timed_apart']
    else:
      times = comparison.modelled(
        rows,
        points[key],
        verifier,
        directory.call_times,
        counts,
        max_length=max_length,
      )
      name = 'modelled_relative_latency'
    candidates[key] = Candidate(
      key=key,
      point=points[key],
      quality=quality[key],
      reference=quality[own],
      latency=times.summary[name],
      qualities=replicates[key],
      references=replicates[own],
      latencies=np.array(times.replicates[name]),
      timed_apart=apart,
      starts=frozenset(row.get('start', 0) for row in rows),
    )
  return candidates, undefined
