"""What a run would cost on a machine that is never disturbed.

Counted calls, times what a call takes::

  verifier alone    start(verifier)              + calls x verifier, 1 token
  drafter alone     start(drafter)               + steps x drafter
  speculation       start(both) + steps x drafter
                    + calls x verifier, gamma + 1 tokens
  oracle cascade    start(both) + steps x drafter + calls x verifier, 1 token
  token cascade     start(both) + steps x drafter + calls x verifier, K tokens
  sequence cascade  start(drafter) + steps x drafter and, where the text is the
                    verifier's, start(verifier) + calls x verifier, 1 token

The calls are those that the run counted, example by example; the times are
measured once, in tight loops, when the sweep begins. Noise of the machine
hence moves all runs alike and cannot decide between two of them. Left out is
what a model takes no part in: sampling, the rule, the verification, and the
way of the text to the device and back.

A token cascade's verifier catches up on all tokens since its last call. How
many those were in each call is not counted. An example's calls are priced as
if they had shared its tokens evenly: K is the least of 1, 4, 16, .., the most
output tokens (the widths that the loop has) that holds tokens / calls. That is
a little too much where the drafter wrote the end of the text, and too little
where the calls were far from even.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from speccascade_jax.evaluation import methods


def widths(points: Iterable[methods.RunPoint], *, max_length: int) -> list[int]:
  """Tokens of the verifier calls to be timed: 1, and all that runs need."""
  needed = {1}
  for point in points:
    if _catches_up(point):
      needed |= {*catch_up_widths(max_length)}
    else:
      needed.add(_width(point))
  return sorted(needed)


def milliseconds(
  row: Mapping[str, Any],
  point: methods.RunPoint,
  times: Mapping[str, float],
  *,
  max_length: int,
) -> float:
  """Modelled latency of one example.

  Args:
    row: a line of the run's log, with its counters.
    point: of the run.
    times: see `base.Timed`.
    max_length: most output tokens.
  """
  steps, calls = row['drafter_steps'], row['verifier_calls']
  width = _width(point)
  if _catches_up(point) and calls:
    share = row['output_tokens'] / calls
    width = next(k for k in catch_up_widths(max_length) if k >= share)
  return (
    sum(times[f'{model}_start'] for model in _started(point, calls))
    + steps * times['drafter_1']
    + calls * times[f'verifier_{width}']
  )


def covers(
  times: Mapping[str, float],
  points: Iterable[methods.RunPoint],
  *,
  max_length: int,
) -> bool:
  """Whether calls of every width that the points need have been timed."""
  needed = widths(points, max_length=max_length)
  return all(f'verifier_{width}' in times for width in needed)


def timed_widths(times: Mapping[str, float]) -> list[int]:
  """Of the verifier calls that have been timed."""
  names = (name.removeprefix('verifier_') for name in times)
  return sorted(int(width) for width in names if width.isdigit())


def catch_up_widths(max_length: int) -> list[int]:
  """Of a token cascade's verifier calls; those of `decoding.token_cascade`."""
  found = [1]
  while found[-1] * 4 < max_length:
    found.append(found[-1] * 4)
  return found if max_length == 1 else [*found, max_length]


def _started(point: methods.RunPoint, calls: int) -> tuple[str, ...]:
  """The models that begin a text."""
  if point.model != 'pair':
    return (point.model,)
  # Where a sequence cascade keeps the draft, not even the encoder runs.
  if point.method == 'sequence_cascade' and not calls:
    return ('drafter',)
  return ('drafter', 'verifier')


def _catches_up(point: methods.RunPoint) -> bool:
  return point.model == 'pair' and point.method == 'token_cascade'


def _width(point: methods.RunPoint) -> int:
  """Tokens that a verifier call of this run scores, unless it catches up."""
  return 1 if point.gamma is None else point.gamma + 1
