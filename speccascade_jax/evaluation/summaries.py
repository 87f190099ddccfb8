"""What a finished run comes to: summary.json and replicates.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from speccascade_jax import loops
from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import comparison
from speccascade_jax.evaluation import latency
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import scoring

# Of each line, beside its latency; see `speccascade_jax.base.Counters`.
COUNTERS = (
  'drafter_steps',
  'verifier_calls',
  'drafted',
  'accepted',
  'resampled',
  'deferred',
)


@dataclasses.dataclass(frozen=True)
class Scores:
  """How runs are scored.

  Attributes:
    metric_fns: see `base.MetricFn`.
    counts: see `bootstrap.draws`.
    recompute: see `bootstrap.quality`.
    max_length: most output tokens.
  """

  metric_fns: Sequence[base.MetricFn]
  counts: np.ndarray
  recompute: bool
  max_length: int


def write(
  points: Mapping[str, methods.RunPoint],
  directory: results.RunDirectory,
  examples: Sequence[base.Example],
  scores: Scores,
) -> None:
  """Writes the summaries of runs that have all examples.

  Args:
    points: runs of one company, by key; what is compared with the verifier is
      compared with the one among them.
    directory: that has them.
    examples: of the sweep, in order.
    scores: how they are scored.
  """
  verifier = comparison.verifier(directory, points, examples)
  targets = [example.target for example in examples]
  for key, point in points.items():
    run = directory.runs[key]
    rows = run.rows(examples)
    predictions = [row['prediction'] for row in rows]
    quality, signatures = scoring.score(scores.metric_fns, targets, predictions)
    replicates = {
      name: bootstrap.rounded(values)
      for name, values in bootstrap.quality(
        scores.metric_fns,
        targets,
        predictions,
        scores.counts,
        recompute=scores.recompute,
      ).items()
    }
    wall = comparison.wall_clock(rows, verifier, scores.counts)
    model = comparison.modelled(
      rows,
      point,
      verifier,
      directory.call_times,
      scores.counts,
      max_length=scores.max_length,
    )
    run.write_replicates(
      {'quality': replicates} | wall.replicates | model.replicates
    )
    intervals = {
      name: bootstrap.interval(values) for name, values in replicates.items()
    }
    unknown = {'compile_s': None, 'warmup_ms': None}
    run.write_summary(
      {'quality': quality, 'signatures': signatures}
      | {'quality_interval': intervals}
      | summarise(rows, **_kind(point))
      | dict(run.warmup or unknown)
      | wall.summary
      | model.summary
    )


def _kind(point: methods.RunPoint) -> dict[str, bool]:
  pair = point.model == 'pair'
  return {
    'judged': pair and loops.LOOPS[point.method].judges,
    'deferring': pair,
  }


def summarise(
  rows: Sequence[Mapping[str, Any]], *, judged: bool, deferring: bool
) -> dict[str, float | int | None]:
  """Latency statistics and rates over the lines of one run.

  Rates are ratios of sums, so that an example counts by its tokens. Where no
  drafted token is judged there is no acceptance rate; where a model decodes
  alone nothing is deferred, and some rules define no deferral: None.
  """
  total = {
    name: sum(row[name] or 0 for row in rows)
    for name in ('output_tokens', *COUNTERS)
  }
  proposals = total['accepted'] + total['resampled'] if judged else 0
  defined = deferring and all(row['deferred'] is not None for row in rows)
  deferrals = total['output_tokens'] if defined else 0
  return {
    **latency.statistics(
      [row['latency_ms'] for row in rows],
      [row['output_tokens'] for row in rows],
    ),
    'acceptance_rate': _ratio(total['accepted'], proposals),
    'rejection_rate': _ratio(total['resampled'], proposals),
    'deferral_rate': _ratio(total['deferred'], deferrals),
    'block_efficiency': _ratio(total['output_tokens'], total['verifier_calls']),
    'verifier_calls_per_example': total['verifier_calls'] / len(rows),
    'drafter_steps_per_example': total['drafter_steps'] / len(rows),
    'num_examples': len(rows),
    'num_truncated': sum(row['truncated'] for row in rows),
  }


def _ratio(numerator: float, denominator: float) -> float | None:
  return numerator / denominator if denominator else None
