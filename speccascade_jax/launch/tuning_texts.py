"""What `speccascade tune` tells of a search, in words."""

from __future__ import annotations

import numpy as np

from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import operating_point
from speccascade_jax.evaluation import running
from speccascade_jax.evaluation import tuning

_SHOWN = 5  # Candidates of a rung.


def rung(
  found: tuning.Rung, constraint: operating_point.Constraint, metric: str
) -> str:
  """The first few candidates of a rung, as a table."""
  lines = [
    f'\n{found.num_examples} examples, {len(found.candidates) - 1} candidates:'
  ]
  heads = ('candidate', metric, 'of V', 'latency', 'meets', 'wins')
  rows = [
    (
      name(c.point),
      f'{c.quality:.2f}',
      f'{c.quality / c.reference:.3f}' if c.reference else '-',
      f'{c.latency:.3f}',
      f'{c.trust(constraint):.0%}',
      f'{found.wins[c.key]:.0%}',
    )
    for c in found.candidates[:_SHOWN]
  ]
  widths = [max(map(len, column)) for column in zip(heads, *rows)]
  for row in (heads, *rows):
    label, *rest = row
    cells = [label.ljust(widths[0])]
    cells += [cell.rjust(w) for cell, w in zip(rest, widths[1:])]
    lines.append(f'  {"  ".join(cells)}')
  return '\n'.join(lines)


def name(point: methods.RunPoint) -> str:
  """Method, alpha, temperature and gamma."""
  gamma = '' if point.gamma is None else f' gamma={point.gamma}'
  return f'{running.name_of(point)}{gamma}'


def confirmed(
  candidate: operating_point.Candidate,
  constraint: operating_point.Constraint,
  clock: str,
) -> list[str]:
  """What was found on held-out examples, a line each."""
  if candidate.reference:
    share = candidate.quality / candidate.reference
    low, high = np.percentile(
      candidate.qualities / candidate.references, [2.5, 97.5]
    )
    quality = f"{share:.3f} [{low:.3f}, {high:.3f}] of the verifier's quality"
  else:
    quality = 'the verifier has no quality to compare with'
  low, high = np.percentile(candidate.latencies, [2.5, 97.5])
  lines = [
    f'{quality} ({candidate.quality:.2f}, {candidate.reference:.2f})',
    f'{candidate.latency:.3f} [{low:.3f}, {high:.3f}] of its latency, by the '
    f'{operating_point.CLOCKS[clock]}',
  ]
  _, high = np.percentile(candidate.margins(constraint), [2.5, 97.5])
  if candidate.margin(constraint) >= 0:
    verdict = 'meets the constraint'
  elif high >= 0:
    verdict = 'misses the constraint, by less than its 95 % interval'
  else:
    verdict = 'MISSES the constraint: let the last rung have more examples'
  return [
    *lines,
    f'{verdict} ({candidate.trust(constraint):.0%} of replicates)',
  ]


def nothing(found: tuning.Rung, constraint: operating_point.Constraint) -> str:
  """Why there is no choice, and what to do."""
  closest = max(found.candidates, key=lambda c: c.trust(constraint))
  return (
    f'nothing meets the constraint, {constraint}, in '
    f'{constraint.confidence:.0%} of the replicates. {name(closest.point)} '
    f'comes closest, with {closest.trust(constraint):.0%}: quality '
    f'{closest.quality:.2f} (verifier {closest.reference:.2f}), latency '
    f'{closest.latency:.3f}. Ask for less, lower tune.confidence, or add '
    'alphas and gammas.'
  )
