"""The headline table for the terminal, as Markdown and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
import csv as csv_lib
import io
import math
import textwrap

from speccascade_jax.reports import formats
from speccascade_jax.reports import headline
from speccascade_jax.reports import runs as runs_lib


def show(answer: headline.Answer | None, form: str = '.2f') -> str:
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
    shown += f' {formats.bounds(answer.interval)}'
  return f'{shown} {share}'.rstrip()


def cells(row: headline.Row, clock: str) -> list[str]:
  """A row's cells under `headings` of one clock."""
  quality = row.quality[clock]
  value = quality and quality.value
  return [
    show(row.latency[clock]),
    '-' if value is None else f'{value:.2f}',
    '-' if value is None else show(row.gain[clock], '+.2f'),
  ]


def text(rows: Sequence[headline.Row], metric: str) -> str:
  """For a terminal: a block for every group and clock, then how to read it."""
  name = formats.metric_name(metric)
  blocks = []
  for group, of_group in _by_group(rows):
    for clock, called in headline.CLOCKS.items():
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


def markdown(rows: Sequence[headline.Row], metric: str) -> str:
  """The table as GitHub shows it, both clocks side by side."""
  name = formats.metric_name(metric)
  lines = [f"# At the verifier's {name}, and within its latency", '']
  for group, of_group in _by_group(rows):
    clocks = headline.clocks_of(of_group)
    heads = ['method', 'gamma', *headings(clocks, name)]
    lines += [
      f'## {group.title}',
      '',
      f'Verifier alone: {name} {of_group[0].reference:.2f} at latency 1.',
      '',
      formats.markdown_row(heads),
      formats.markdown_row([':--'] + ['--:'] * (len(heads) - 1)),
    ]
    for row in of_group:
      label, gamma = _first(row)
      line = [formats.escaped(label), gamma]
      for clock in clocks:
        line += cells(row, clock)
      lines.append(formats.markdown_row(line))
    lines.append('')
  lines += [f'- {formats.escaped(note)}' for note in notes(rows)]
  return '\n'.join(lines) + '\n'


def csv(rows: Sequence[headline.Row]) -> str:
  """One line a curve, unrounded; empty where something is not reached.

  `truncation` is the curve's own, whose strengths are its points; `top_k` to
  `eta` are those of all runs that are compared.
  """
  settings = ('temperature', 'top_k', 'top_p', 'min_p', 'eta')
  method = ('model', 'method', 'rule', 'verification', 'options', 'truncation')
  questions = ('latency', 'quality', 'gain')
  heads = [*settings, 'label', *method]
  heads += ['gamma', 'points', 'ends', 'verifier_quality']
  for clock in headline.CLOCKS:
    for question in questions:
      prefix = f'{clock.removesuffix("relative_latency")}{question}'
      heads += [prefix, *(f'{prefix}_{s}' for s in ('low', 'high', 'reached'))]
  out = io.StringIO()
  writer = csv_lib.writer(out, lineterminator='\n')
  writer.writerow(heads)
  for row in rows:
    line = [getattr(row.group, name) for name in settings]
    line += [row.label, *(getattr(row.run, name) for name in method)]
    line += [row.gamma, row.points, '; '.join(row.ends)]
    line.append(row.reference)
    for clock in headline.CLOCKS:
      for answer in (row.latency[clock], row.quality[clock], row.gain[clock]):
        line += _numbers(answer)
    writer.writerow(line)
  return out.getvalue()


def headings(
  clocks: Sequence[str], name: str, short: bool = False
) -> list[str]:
  """Three columns for every clock, which `short` does not name."""
  return [
    what if short else f'{what}, {headline.CLOCKS[clock]}'
    for clock in clocks
    for what in ('latency', name, f'{name} - V')
  ]


def notes(rows: Sequence[headline.Row]) -> list[str]:
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
  return found + _priced(rows)


def _priced(rows: Sequence[headline.Row]) -> list[str]:
  """A sentence if the cost model had to guess how wide calls were."""
  guessed = [
    row.label
    for row in rows
    if row.run.method == 'token_cascade'
    and row.latency['modelled_relative_latency'] is not None
  ]
  if not guessed:
    return []
  return [
    'The cost model takes the catch-up calls of an example to be equally wide, '
    'since their number is counted and their widths are not: '
    f'{", ".join(dict.fromkeys(guessed))}.'
  ]


def _first(row: headline.Row) -> list[str]:
  return [row.label, '-' if row.gamma is None else str(row.gamma)]


def _by_group(
  rows: Sequence[headline.Row],
) -> list[tuple[runs_lib.Group, list[headline.Row]]]:
  found: dict[str, list[headline.Row]] = {}
  for row in rows:
    found.setdefault(row.group.title, []).append(row)
  return [(of_group[0].group, of_group) for of_group in found.values()]


def _numbers(answer: headline.Answer | None) -> list[float | None]:
  if answer is None:
    return [None] * 4
  ends: list[float | None] = [None, None]
  if answer.interval is not None:
    both = (answer.interval.low, answer.interval.high)
    ends = [end if math.isfinite(end) else None for end in both]
  return [answer.value, *ends, answer.reached]
