"""What a run would cost on a machine that is never disturbed.

Counted calls, times what a call takes::

  verifier alone   start(verifier)                  + calls x verifier, 1 token
  drafter alone    start(drafter)                   + steps x drafter
  a pair           start(drafter) + start(verifier) + steps x drafter
                   + calls x verifier, gamma + 1 tokens

The calls are those that the run counted, example by example; the times are
measured once, in tight loops, when the sweep begins. Noise of the machine
hence moves all runs alike and cannot decide between two of them. Left out is
what a model takes no part in: sampling, the rule, the verification, and the
way of the text to the device and back. Verifier calls of a method without
blocks are priced as calls of one token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from speccascade_jax.evaluation import methods


def widths(points: Iterable[methods.RunPoint]) -> list[int]:
  """Tokens of the verifier calls to be timed: 1, and every gamma + 1."""
  return sorted({1} | {_width(point) for point in points})


def milliseconds(
  row: Mapping[str, Any],
  point: methods.RunPoint,
  times: Mapping[str, float],
) -> float:
  """Modelled latency of one example.

  Args:
    row: a line of the run's log, with its counters.
    point: of the run.
    times: see `base.Timed`.
  """
  models = ('drafter', 'verifier') if point.model == 'pair' else (point.model,)
  return (
    sum(times[f'{model}_start'] for model in models)
    + row['drafter_steps'] * times['drafter_1']
    + row['verifier_calls'] * times[f'verifier_{_width(point)}']
  )


def covers(
  times: Mapping[str, float], points: Iterable[methods.RunPoint]
) -> bool:
  """Whether calls of every width that the points need have been timed."""
  return all(f'verifier_{width}' in times for width in widths(points))


def _width(point: methods.RunPoint) -> int:
  """Tokens that a verifier call of this run scores."""
  return 1 if point.gamma is None else point.gamma + 1
