"""The paper's headline table, with intervals.

For every curve (a method at one gamma, swept over alpha) two questions:

  latency at quality      the least relative latency at which the method is as
                          good as the verifier
  quality within latency  the best quality that it reaches without being
                          slower than the verifier

Both are answered on the curve, which runs straight from each measured point to
that of the next alpha; nothing is guessed beyond its ends. A method whose law
goes over into the verifier's or the drafter's as alpha falls or grows has a
natural end there: lossless decoding, or the drafter alone decoded
speculatively, with the same gamma. It is part of the curve if the sweep has
measured it.

The answers are found once more in every bootstrap replicate: the interval is
the middle 95 % of those, and their share that reaches the goal at all is told
where it is not 100 %. All of it on the wall clock, and by the cost model.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math

from speccascade_jax.reports import intervals
from speccascade_jax.reports import runs as runs_lib
from speccascade_jax.reports import series as series_lib

# What is read as latency, and how people call it.
CLOCKS = {
  'relative_latency': 'wall clock',
  'modelled_relative_latency': 'cost model',
}
_DEFERRING = ('chow', 'chow_log', 'diff', 'diff_log', 'opt', 'opt_log')
_BOTH = (*_DEFERRING, 'token_v1', 'token_v2', 'ensemble')
_FROM_VERIFIER = (*_BOTH, 'lossy', 'lossy_exact')
_TO_DRAFTER = (*_BOTH, 'token_v3')
# Truncations that keep all there is at the strength 0, or at their largest.
_FROM_NOTHING = ('min_p', 'eta')
_TO_NOTHING = ('top_k', 'top_p')

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Answer:
  """To one of the two questions.

  Attributes:
    value: None where the curve does not reach the goal.
    interval: infinite where the goal is not reached; None without replicates.
    reached: share of the replicates that reach it; None without replicates.
  """

  value: float | None
  interval: intervals.Interval | None
  reached: float | None


@dataclasses.dataclass(frozen=True)
class Row:
  """One curve.

  Attributes:
    group: of the runs.
    label: of the method.
    run: one of the curve's, for its settings.
    gamma: None for what drafts no blocks.
    reference: the verifier's quality.
    points: that the curve has.
    ends: labels of the natural ends that are among them.
    latency: at the verifier's quality, for each of `CLOCKS`; None where the
      points have no such latency.
    quality: within the verifier's latency, likewise.
    gain: that quality less the verifier's, paired, likewise.
  """

  group: runs_lib.Group
  label: str
  run: runs_lib.Run
  gamma: int | None
  reference: float
  points: int
  ends: tuple[str, ...]
  latency: dict[str, Answer | None]
  quality: dict[str, Answer | None]
  gain: dict[str, Answer | None]


def least(points: Sequence[Point], floor: float) -> float | None:
  """The least cost on a polyline at which the gain is at least `floor`.

  Args:
    points: (cost, gain), in the order in which they are joined.
    floor: of the gain; a point on it counts.

  Returns:
    None if no point of the polyline is so good.
  """
  found = [cost for cost, gain in points if gain >= floor]
  for (cost, gain), (next_cost, next_gain) in zip(points, points[1:]):
    if (gain < floor) != (next_gain < floor):
      share = (floor - gain) / (next_gain - gain)
      found.append(cost + share * (next_cost - cost))
  return min(found, default=None)


def find(sweep: runs_lib.Sweep) -> list[Row]:
  """A row for every curve of the groups that have a verifier's run."""
  metric = sweep.primary_metric
  rows = []
  for group in sweep.groups():
    verifier = group.verifier
    if verifier is None or verifier.quality.get(metric) is None:
      continue
    for curve in series_lib.of_group(group, sweep):
      measured, ends = _with_ends(curve.runs, group)
      answers = {c: _answers(measured, verifier, metric, c) for c in CLOCKS}
      rows.append(
        Row(
          group=group,
          label=curve.label,
          run=curve.runs[0],
          gamma=curve.runs[0].gamma,
          reference=verifier.quality[metric] or 0.0,
          points=len(measured),
          ends=ends,
          latency={c: found and found[0] for c, found in answers.items()},
          quality={c: found and found[1] for c, found in answers.items()},
          gain={c: found and found[2] for c, found in answers.items()},
        )
      )
  return rows


def _with_ends(
  curve: Sequence[runs_lib.Run], group: runs_lib.Group
) -> tuple[list[runs_lib.Run], tuple[str, ...]]:
  """The curve's runs, and before and behind them those of its ends."""

  first = curve[0]

  def end(rule: str | None) -> list[runs_lib.Run]:
    same = (first.model, first.method, first.gamma, first.verification)
    return [
      run
      for run in runs_lib.trial_means(group.runs)
      if (run.model, run.method, run.gamma, run.verification) == same
      and (run.rule, run.alpha, run.truncation) == (rule, None, None)
    ]

  before: list[runs_lib.Run] = []
  behind: list[runs_lib.Run] = []
  if first.alpha is None or first.model != 'pair':
    pass  # A point, or the verifier at its own latency: no curve to prolong.
  elif first.truncation is not None:
    before = end(first.rule) if first.truncation in _FROM_NOTHING else []
    behind = end(first.rule) if first.truncation in _TO_NOTHING else []
  else:
    before = end('verifier_only') if first.rule in _FROM_VERIFIER else []
    behind = end('drafter_only') if first.rule in _TO_DRAFTER else []
  ends = tuple(run.label for run in (*before, *behind))
  return [*before, *curve, *behind], ends


def _answers(
  curve: Sequence[runs_lib.Run],
  verifier: runs_lib.Run,
  metric: str,
  clock: str,
) -> tuple[Answer, Answer, Answer] | None:
  """To both questions, and what the second gains over the verifier."""
  quality = f'quality.{metric}'
  points, replicates = [], []
  for run in curve:
    x, y = getattr(run, clock), run.quality.get(metric)
    if x is not None and y is not None:
      points.append((x, y))
      own = run.replicates
      replicates.append(
        list(zip(own.get(clock, ()), own.get(quality, ()), strict=False))
      )
  if not points:
    return None
  references = verifier.replicates.get(quality, ())
  counts = {len(references), *map(len, replicates)}
  # Fewer in one run than in another: not all of them have replicates.
  resampled = list(zip(*replicates)) if len(counts) == 1 else []
  reference = verifier.quality[metric] or 0.0
  fastest = [
    least(of, floor) for of, floor in zip(resampled, references, strict=False)
  ]
  best, bests = _best(points), [_best(of) for of in resampled]
  gains = [
    None if b is None else b - r
    for b, r in zip(bests, references, strict=False)
  ]
  gain = None if best is None else best - reference
  return (
    _answer(least(points, reference), fastest, missed=math.inf),
    _answer(best, bests, missed=-math.inf),
    _answer(gain, gains, missed=-math.inf),
  )


def _best(points: Sequence[Point]) -> float | None:
  """The best quality at a relative latency of at most 1."""
  found = least([(-quality, -latency) for latency, quality in points], -1.0)
  return None if found is None else -found


def _answer(
  value: float | None, replicates: Sequence[float | None], missed: float
) -> Answer:
  reached = [r for r in replicates if r is not None]
  share = len(reached) / len(replicates) if replicates else None
  filled = [missed if r is None else r for r in replicates]
  return Answer(value, intervals.interval(filled) if reached else None, share)


def clocks_of(rows: Sequence[Row]) -> list[str]:
  """The clocks by which anything was measured."""
  return [c for c in CLOCKS if any(row.latency[c] is not None for row in rows)]
