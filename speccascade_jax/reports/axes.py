"""What a figure has on its horizontal axis."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

from speccascade_jax.reports import intervals
from speccascade_jax.reports import runs as runs_lib


@dataclasses.dataclass(frozen=True)
class Axis:
  """A measure of cost; less is to the left.

  Attributes:
    value: of a run; None where it is not defined.
    label: below the axis.
    interval: of the value; None if it has none.
    drafter_at: where the drafter is, which has no value of its own.
    verifier_at: likewise.
    percent: the values are shares.
    faster: left of the verifier is faster.
  """

  value: Callable[[runs_lib.Run], float | None]
  label: str
  interval: Callable[[runs_lib.Run], intervals.Interval | None]
  drafter_at: float | None = None
  verifier_at: float | None = None
  percent: bool = False
  faster: bool = False


def _latency_interval(run: runs_lib.Run) -> intervals.Interval | None:
  """By the bootstrap; for older sweeps by the standard error."""
  found = run.interval('relative_latency')
  if found is None and run.relative_latency and run.relative_latency_sem:
    spread = 1.96 * run.relative_latency_sem
    at = run.relative_latency
    found = intervals.Interval(at - spread, at + spread)
  return found


LATENCY = Axis(
  value=lambda run: run.relative_latency,
  label='Mean latency relative to the verifier alone (1 = as slow)',
  interval=_latency_interval,
  verifier_at=1.0,
  faster=True,
)
REJECTION = Axis(
  value=lambda run: run.rejection_rate,
  label='Rejection rate (% of the drafted tokens that were judged)',
  interval=lambda run: None,
  # Nobody judges the drafter alone, so nothing of it is rejected.
  drafter_at=0.0,
  percent=True,
)
DEFERRAL = Axis(
  value=lambda run: run.deferral_rate,
  label='Deferral rate (% of the output that the rule left to the verifier)',
  interval=lambda run: None,
  drafter_at=0.0,
  verifier_at=1.0,
  percent=True,
)
