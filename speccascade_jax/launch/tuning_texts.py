"""What `speccascade tune` tells of a search, in words."""

from __future__ import annotations

from speccascade_jax.evaluation import candidates as candidates_lib
from speccascade_jax.evaluation import choosing
from speccascade_jax.evaluation import tuning

_SHOWN = 5  # Candidates of a rung, besides the verifier.


def rung(
  found: tuning.Rung, constraint: choosing.Constraint, metric: str
) -> str:
  """The first few candidates of a rung and the verifier, as a table."""
  count = found.num_examples
  lines = [f'\n{count} examples, {len(found.candidates) - 1} candidates:']
  heads = ('candidate', metric, 'of V', 'latency', 'meets', 'wins')
  rows = [
    (
      str(c.point),
      f'{c.quality:.2f}',
      '-' if c.share is None else f'{c.share:.3f}',
      f'{c.latency:.3f}',
      f'{constraint.trust(c):.0%}',
      f'{found.wins[c.key]:.0%}',
    )
    # The verifier, the last of them, may be what is chosen.
    for c in (*found.candidates[:-1][:_SHOWN], found.candidates[-1])
  ]
  widths = [max(map(len, column)) for column in zip(heads, *rows)]
  for row in (heads, *rows):
    label, *rest = row
    cells = [label.ljust(widths[0])]
    cells += [cell.rjust(w) for cell, w in zip(rest, widths[1:])]
    lines.append(f'  {"  ".join(cells)}')
  lines += [
    f'  {point} is out: its {metric} is not a finite number on every draw.'
    for point in found.undefined
  ]
  most = max(found.candidates, key=lambda c: c.timed_apart)
  if most.timed_apart:
    lines.append(f'  Caution: {timed_apart(most, count)}')
  starts = frozenset[int]().union(*(c.starts for c in found.candidates))
  if len(starts) > 1:
    lines.append(
      f'  Caution: they were timed in {len(starts)} starts, between which a '
      'machine may drift; where it is\n  close, search in a run directory of '
      'its own.'
    )
  return '\n'.join(lines)


def confirmed(
  candidate: candidates_lib.Candidate,
  constraint: choosing.Constraint,
  clock: str,
  num_examples: int,
) -> list[str]:
  """What was found on held-out examples, a line each."""
  values = f'({candidate.quality:.2f}, {candidate.reference:.2f})'
  if candidate.share is None:
    quality = f'no share of the verifier, whose quality is not above 0 {values}'
  else:
    quality = (
      f'{candidate.share:.3f}{_interval(candidate.share_interval())} of the '
      f"verifier's quality {values}"
    )
  lines = [
    quality,
    f'{candidate.latency:.3f}{_interval(candidate.latency_interval())} of its '
    f'latency, by the {candidates_lib.CLOCKS[clock]}',
  ]
  if candidate.timed_apart:
    lines.append(f'caution: {timed_apart(candidate, num_examples)}')
  trust = f'{constraint.trust(candidate):.0%} of replicates'
  return [*lines, f'{_VERDICTS[verdict(candidate, constraint)]} ({trust})']


_VERDICTS = {
  'met': 'meets the constraint',
  'within_interval': 'misses the constraint, by less than its 95 % interval',
  'missed': 'MISSES the constraint: raise tune.confidence, or give the last '
  'rung more examples, and confirm on others, with another tune.seed or '
  'tune.held_out_split, in a run directory of its own',
}


def verdict(
  candidate: candidates_lib.Candidate, constraint: choosing.Constraint
) -> str:
  """'met', 'within_interval' (missed, by less than it is known) or 'missed'."""
  if constraint.margin(candidate) >= 0:
    return 'met'
  # The upper end of the 95 % interval of the margin is not below 0.
  within = constraint.trust(candidate) >= 0.025
  return 'within_interval' if within else 'missed'


def nothing(found: tuning.Rung, constraint: choosing.Constraint) -> str:
  """Why there is no choice, and what to do."""
  closest = max(
    found.candidates,
    key=lambda c: (constraint.margin(c) >= 0, constraint.trust(c)),
  )
  if constraint.margin(closest) >= 0:
    how = (
      f'it meets it as measured, but in {constraint.trust(closest):.1%} of the '
      f'replicates where tune.confidence asks for {constraint.confidence:.1%}'
    )
    what = 'Lower tune.confidence, give the last rung more examples in a run '
    what += 'directory of its own, ask for less'
  else:
    how = 'it misses it as measured'
    what = 'Ask for less'
  return (
    f'nothing meets the constraint, {constraint}. {closest.point} comes '
    f'closest: quality {closest.quality:.2f} (verifier '
    f'{closest.reference:.2f}), latency {closest.latency:.3f}; {how}. {what}, '
    'or add alphas and gammas.'
  )


def timed_apart(candidate: candidates_lib.Candidate, num_examples: int) -> str:
  """That some times were compared across starts."""
  return (
    f'{candidate.timed_apart} of {num_examples} latencies of '
    f'{candidate.point} are set against a verifier timed in another start.'
  )


def _interval(values: list[float] | None) -> str:
  return '' if values is None else f' [{values[0]:.3f}, {values[1]:.3f}]'
