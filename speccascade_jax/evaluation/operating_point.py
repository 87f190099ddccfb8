"""Choosing a method and its settings under a constraint, from few examples.

Two questions can be asked of a pair and a task: what is fastest among all that
reach a share of the verifier's quality, and what is best among all that take at
most a share of its latency. Every candidate answers with a quality and a
latency relative to the verifier on the same examples, and with bootstrap
replicates of both, paired across candidates. In each replicate one candidate
would be chosen; how often that happens says which ones are worth more examples
(successive halving), and how often a candidate meets the constraint says
whether it can be trusted to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import comparison
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import scoring

CLOCKS = {'wall': 'wall clock', 'model': 'cost model'}


@dataclasses.dataclass(frozen=True)
class Constraint:
  """What is asked for; exactly one of `quality` and `latency`.

  Attributes:
    quality: at least this share of the verifier's quality; the fastest wins.
    latency: at most this share of the verifier's latency; the best wins.
    confidence: share of the bootstrap replicates that must meet it. 0.5 takes
      what meets it as measured, more leaves a margin for other examples.
  """

  quality: float | None = None
  latency: float | None = None
  confidence: float = 0.8

  def __post_init__(self):
    if (self.quality is None) == (self.latency is None):
      raise ValueError(
        'A constraint is either quality (such as 0.99 of the verifier) or '
        f'latency (such as 0.6 of it); got quality={self.quality!r}, '
        f'latency={self.latency!r}.'
      )
    for name in ('quality', 'latency'):
      value = getattr(self, name)
      if value is not None and not 0 < value < float('inf'):
        raise ValueError(
          f'{name} is {value!r}; it is a share of the verifier, above 0.'
        )
    if not 0 <= self.confidence <= 1:
      raise ValueError(
        f'confidence is {self.confidence!r}; it must be from 0 to 1.'
      )

  def __str__(self):
    if self.quality is not None:
      return f"at least {100 * self.quality:g} % of the verifier's quality"
    return f"at most {self.latency:g} of the verifier's latency"

  def margin(self, quality: Any, reference: Any, latency: Any) -> Any:
    """How far it is exceeded; met where not negative. Numbers or arrays."""
    if self.quality is not None:
      return quality - self.quality * reference
    return self.latency - latency

  def gain(self, quality: Any, latency: Any) -> Any:
    """What is made as large as possible."""
    return -latency if self.quality is not None else quality


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One point of the grid, beside the verifier on the same examples.

  Attributes:
    key: of its run.
    point: method and settings.
    quality: of its texts.
    reference: the verifier's quality.
    latency: relative to the verifier's.
    qualities: bootstrap replicates of `quality`.
    references: of `reference`, over the same examples.
    latencies: of `latency`, likewise.
  """

  key: str
  point: methods.RunPoint
  quality: float
  reference: float
  latency: float
  qualities: np.ndarray
  references: np.ndarray
  latencies: np.ndarray

  def margin(self, constraint: Constraint) -> float:
    """See `Constraint.margin`, as measured."""
    margin = constraint.margin(self.quality, self.reference, self.latency)
    return float(margin)

  def margins(self, constraint: Constraint) -> np.ndarray:
    """Likewise, in every replicate."""
    return constraint.margin(self.qualities, self.references, self.latencies)

  def trust(self, constraint: Constraint) -> float:
    """Share of the replicates that meet the constraint."""
    return float((self.margins(constraint) >= 0).mean())


def measure(
  directory: results.RunDirectory,
  points: Mapping[str, methods.RunPoint],
  examples: Sequence[base.Example],
  metric_fns: Sequence[base.MetricFn],
  metric: str,
  counts: np.ndarray,
  *,
  max_length: int,
  clock: str,
) -> dict[str, Candidate]:
  """What runs come to on some examples, from the lines of their logs.

  Args:
    directory: that has the lines.
    points: runs of one company, the verifier among them, by key.
    examples: that all of them have.
    metric_fns: see `base.MetricFn`.
    metric: name of the value that is the quality.
    counts: see `bootstrap.draws`; at least one replicate.
    max_length: most output tokens.
    clock: a name of `CLOCKS`.

  Returns:
    Candidates by key, the verifier's own included.
  """

  def rows_of(key):
    rows = directory.runs[key].log.rows
    return [rows[example.example] for example in examples]

  (own,) = (key for key, point in points.items() if point.is_reference)
  verifier = comparison.Verifier(
    points[own], rows_of(own), directory.runs[own].timings()
  )
  targets = [example.target for example in examples]
  quality, replicates, latency = {}, {}, {}
  for key, point in points.items():
    rows = rows_of(key)
    predictions = [row['prediction'] for row in rows]
    quality[key] = scoring.score(metric_fns, targets, predictions)[0][metric]
    found = bootstrap.quality(
      metric_fns, targets, predictions, counts, recompute=True
    )
    if metric not in found:
      raise ValueError(
        f'{metric} is not defined on every draw of {len(examples)} examples; '
        'give the first of the rungs more examples.'
      )
    replicates[key] = np.array(found[metric])
    if clock == 'wall':
      times = comparison.wall_clock(rows, verifier, counts)
      name = 'relative_latency'
    else:
      times = comparison.modelled(
        rows,
        point,
        verifier,
        directory.call_times,
        counts,
        max_length=max_length,
      )
      name = 'modelled_relative_latency'
    latency[key] = times.summary[name], np.array(times.replicates.get(name))
  if clock != 'wall' and directory.call_times is None:
    raise ValueError(
      'The cost model needs the times of single calls, which this generator '
      "does not measure; use clock='wall'."
    )
  return {
    key: Candidate(
      key,
      point,
      quality[key],
      quality[own],
      latency[key][0],
      replicates[key],
      replicates[own],
      latency[key][1],
    )
    for key, point in points.items()
  }


def wins(
  candidates: Sequence[Candidate], constraint: Constraint
) -> dict[str, float]:
  """Share of the replicates in which each candidate would be chosen, by key.

  A replicate in which nothing meets the constraint goes to the candidate that
  comes closest.
  """
  margins = np.stack([c.margins(constraint) for c in candidates])
  gains = np.stack(
    [constraint.gain(c.qualities, c.latencies) for c in candidates]
  )
  met = np.where(margins >= 0, gains, -np.inf).argmax(0)
  chosen = np.where((margins >= 0).any(0), met, margins.argmax(0))
  counts = np.bincount(chosen, minlength=len(candidates)) / chosen.size
  return {
    c.key: float(n) for c, n in zip(candidates, counts.tolist(), strict=True)
  }


def ranked(
  candidates: Sequence[Candidate], constraint: Constraint
) -> list[Candidate]:
  """Most promising first: by wins, then by how surely the constraint is met."""
  won = wins(candidates, constraint)
  return sorted(
    candidates,
    key=lambda c: (-won[c.key], -c.trust(constraint), -c.margin(constraint)),
  )


def choose(
  candidates: Sequence[Candidate], constraint: Constraint
) -> Candidate | None:
  """The best as measured among those that surely meet the constraint.

  Returns:
    None if none does.
  """
  sure = [
    c
    for c in candidates
    if c.margin(constraint) >= 0
    and c.trust(constraint) >= constraint.confidence
  ]
  return max(
    sure, key=lambda c: constraint.gain(c.quality, c.latency), default=None
  )
