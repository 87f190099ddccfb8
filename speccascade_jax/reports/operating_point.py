"""Which setting to use: the two columns of the paper's headline table."""

from __future__ import annotations

import dataclasses

from speccascade_jax.reports import runs as runs_lib


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
  """What a group of comparable runs recommends.

  Attributes:
    group: the runs.
    metric: of the quality; larger is better.
    reference: the verifier's quality; None without a verifier run.
    fastest: the run of least relative latency, below 1, whose quality is the
      verifier's or better; None if there is none.
    best: the run of the best quality whose relative latency is at most 1, the
      verifier excepted; None if there is none.
  """

  group: runs_lib.Group
  metric: str
  reference: float | None
  fastest: runs_lib.Run | None
  best: runs_lib.Run | None

  @property
  def speedup(self) -> float | None:
    """How many times as fast as the verifier the fastest run is."""
    latency = self.fastest and self.fastest.relative_latency
    return 1 / latency if latency else None

  def is_good(self, run: runs_lib.Run) -> bool:
    """Whether a run is faster than the verifier, and as good or better."""
    quality, latency = run.quality.get(self.metric), run.relative_latency
    if self.reference is None or quality is None or latency is None:
      return False
    return latency < 1 and quality >= self.reference


def find(group: runs_lib.Group, metric: str) -> OperatingPoint:
  """Compares the trial means of the runs with the verifier's.

  A tie in latency goes to the better quality, and the other way round.

  Args:
    group: runs at one temperature and truncation.
    metric: name of the quality metric; larger is better.
  """
  verifier = group.verifier
  reference = verifier.quality.get(metric) if verifier else None
  found = OperatingPoint(group, metric, reference, None, None)
  if reference is None:
    return found
  scored: list[tuple[float, float, runs_lib.Run]] = []
  for run in runs_lib.trial_means(group.runs):
    quality, latency = run.quality.get(metric), run.relative_latency
    if run.alone != 'verifier' and None not in (quality, latency):
      scored.append((latency or 0.0, quality or 0.0, run))
  good = [s for s in scored if found.is_good(s[2])]
  quick = [s for s in scored if s[0] <= 1]
  fastest = min(good, key=lambda s: (s[0], -s[1]), default=None)
  best = max(quick, key=lambda s: (s[1], -s[0]), default=None)
  return dataclasses.replace(
    found, fastest=fastest and fastest[2], best=best and best[2]
  )


def describe(run: runs_lib.Run) -> str:
  """A run's method and settings: 'SpecCascade [OPT], alpha 0.2, gamma 4'."""
  parts = [run.label]
  if run.strength is not None:
    parts.append(run.strength if run.truncation else f'alpha {run.strength}')
  if run.gamma is not None:
    parts.append(f'gamma {run.gamma}')
  return ', '.join(parts)


def sentence(point: OperatingPoint, metric_name: str) -> str:
  """One line for people: the fastest run at the verifier's quality."""
  title, reference = point.group.title, point.reference
  if reference is None:
    return f'{title}: no verifier run to compare with.'
  run = point.fastest
  if run is None:
    return (
      f'{title}: no run is both faster than the verifier and as good '
      f'({metric_name} {reference:.2f}).'
    )
  return (
    f'{title}: {describe(run)} is {point.speedup:.2f}x faster than '
    f'the verifier at {metric_name} {run.quality[point.metric]:.2f} '
    f'(verifier {reference:.2f}).'
  )
