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
import csv as csv_lib
import dataclasses
import io
import math
import textwrap

from speccascade_jax.reports import intervals
from speccascade_jax.reports import runs as runs_lib
from speccascade_jax.reports import series as series_lib
from speccascade_jax.reports import tables

# What is read as latency, and how people call it.
CLOCKS = {
  'relative_latency': 'wall clock',
  'modelled_relative_latency': 'cost model',
}
_DEFERRING = ('chow', 'chow_log', 'diff', 'diff_log', 'opt', 'opt_log')
_FROM_VERIFIER = (*_DEFERRING, 'token_v1', 'token_v2', 'lossy', 'lossy_exact')
_TO_DRAFTER = (*_DEFERRING, 'token_v1', 'token_v2', 'token_v3')

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

  def end(rule: str, of: tuple[str, ...]) -> list[runs_lib.Run]:
    first = curve[0]
    if first.alpha is None or first.rule not in of:
      return []
    return [
      run
      for run in runs_lib.trial_means(group.runs)
      if (run.rule, run.gamma, run.verification, run.alpha)
      == (rule, first.gamma, first.verification, None)
    ]

  before = end('verifier_only', _FROM_VERIFIER)
  behind = end('drafter_only', _TO_DRAFTER)
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


def show(answer: Answer | None, form: str = '.2f') -> str:
  """A cell: '0.63 [0.60, 0.71]', '0.63 [0.60, -] 91%', 'not reached, 4%'."""
  if answer is None:
    return '-'
  share = ''
  if answer.reached is not None and 0 < answer.reached < 1:
    # Never 0 % or 100 % of what is not none or all.
    share = f'{min(max(round(100 * answer.reached), 1), 99)}%'
  if answer.value is None:
    return f'not reached, {share}' if share else 'not reached'
  shown = format(answer.value, form)
  if answer.interval is not None:
    shown += f' {tables.bounds(answer.interval)}'
  return f'{shown} {share}'.rstrip()


def cells(row: Row, clock: str) -> list[str]:
  """A row's cells under `headings` of one clock."""
  quality = row.quality[clock]
  value = quality and quality.value
  return [
    show(row.latency[clock]),
    '-' if value is None else f'{value:.2f}',
    '-' if value is None else show(row.gain[clock], '+.2f'),
  ]


def text(rows: Sequence[Row], metric: str) -> str:
  """For a terminal: a block for every group and clock, then how to read it."""
  name = tables.metric_name(metric)
  blocks = []
  for group, of_group in _by_group(rows):
    for clock, called in CLOCKS.items():
      if all(row.latency[clock] is None for row in of_group):
        continue
      lines_of = [['method', 'gamma', *headings([clock], name, short=True)]]
      lines_of += [[*_first(row), *cells(row, clock)] for row in of_group]
      widths = [max(map(len, column)) for column in zip(*lines_of)]
      lines = [
        f"{group.title}, {called}: latency at the verifier's {name} "
        f'({of_group[0].reference:.2f}),',
        f'{name} within its latency',
      ]
      for number, line in enumerate(lines_of):
        label, *rest = (c.ljust(w) for c, w in zip(line, widths))
        lines.append(f'  {"  ".join([label, *rest])}'.rstrip())
        if number == 0:
          lines.append(f'  {"-" * (sum(widths) + 2 * len(widths) - 2)}')
      blocks.append('\n'.join(lines) + '\n')
  reading = [
    '\n'.join(textwrap.wrap(note, 79, subsequent_indent='  ')) + '\n'
    for note in notes(rows)
  ]
  return '\n'.join(blocks) + ('\n' + ''.join(reading) if blocks else '')


def markdown(rows: Sequence[Row], metric: str) -> str:
  """The table as GitHub shows it, both clocks side by side."""
  name = tables.metric_name(metric)
  lines = [f"# At the verifier's {name}, and within its latency", '']
  for group, of_group in _by_group(rows):
    clocks = clocks_of(of_group)
    heads = ['method', 'gamma', *headings(clocks, name)]
    lines += [
      f'## {group.title}',
      '',
      f'Verifier alone: {name} {of_group[0].reference:.2f} at latency 1.',
      '',
      tables.markdown_row(heads),
      tables.markdown_row([':--'] + ['--:'] * (len(heads) - 1)),
    ]
    for row in of_group:
      label, gamma = _first(row)
      line = [tables.escaped(label), gamma]
      for clock in clocks:
        line += cells(row, clock)
      lines.append(tables.markdown_row(line))
    lines.append('')
  lines += [f'- {tables.escaped(note)}' for note in notes(rows)]
  return '\n'.join(lines) + '\n'


def csv(rows: Sequence[Row]) -> str:
  """One line a curve, unrounded; empty where something is not reached."""
  settings = ('temperature', 'top_k', 'top_p', 'min_p')
  questions = ('latency', 'quality', 'gain')
  heads = [*settings, 'label', 'gamma', 'points', 'ends', 'verifier_quality']
  for clock in CLOCKS:
    for question in questions:
      prefix = f'{clock.removesuffix("relative_latency")}{question}'
      heads += [prefix, *(f'{prefix}_{s}' for s in ('low', 'high', 'reached'))]
  out = io.StringIO()
  writer = csv_lib.writer(out, lineterminator='\n')
  writer.writerow(heads)
  for row in rows:
    line = [getattr(row.group, name) for name in settings]
    line += [row.label, row.gamma, row.points, '; '.join(row.ends)]
    line.append(row.reference)
    for clock in CLOCKS:
      for answer in (row.latency[clock], row.quality[clock], row.gain[clock]):
        line += _numbers(answer)
    writer.writerow(line)
  return out.getvalue()


def clocks_of(rows: Sequence[Row]) -> list[str]:
  """The clocks by which anything was measured."""
  return [c for c in CLOCKS if any(row.latency[c] is not None for row in rows)]


def headings(
  clocks: Sequence[str], name: str, short: bool = False
) -> list[str]:
  """Three columns for every clock, which `short` does not name."""
  return [
    what if short else f'{what}, {CLOCKS[clock]}'
    for clock in clocks
    for what in ('latency', name, f'{name} - V')
  ]


def notes(rows: Sequence[Row]) -> list[str]:
  """How to read the table, a sentence each."""
  found = []
  answers = [
    a for r in rows for a in (*r.latency.values(), *r.quality.values())
  ]
  if any(a is not None and a.reached is not None for a in answers):
    found.append(
      'In brackets: 95 % bootstrap intervals, over the same draws of examples '
      'for all methods, V being the verifier; a dash is an end that is not '
      'reached. A share behind them is that of the replicates that get there.'
    )
  ends = {row.label: row.ends for row in rows if row.ends}
  if ends:
    names = sorted({end for of in ends.values() for end in of})
    found.append(
      f'Curves are straight between measured alphas; {" and ".join(names)} '
      f'end{"s" if len(names) == 1 else ""} those of {", ".join(ends)}.'
    )
  return found


def _first(row: Row) -> list[str]:
  return [row.label, '-' if row.gamma is None else str(row.gamma)]


def _by_group(
  rows: Sequence[Row],
) -> list[tuple[runs_lib.Group, list[Row]]]:
  found: dict[str, list[Row]] = {}
  for row in rows:
    found.setdefault(row.group.title, []).append(row)
  return [(of_group[0].group, of_group) for of_group in found.values()]


def _numbers(answer: Answer | None) -> list[float | None]:
  if answer is None:
    return [None] * 4
  ends: list[float | None] = [None, None]
  if answer.interval is not None:
    both = (answer.interval.low, answer.interval.high)
    ends = [end if math.isfinite(end) else None for end in both]
  return [answer.value, *ends, answer.reached]
