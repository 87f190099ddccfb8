"""A sweep as a table: for the terminal, as Markdown and as CSV.

One row a run. The text and Markdown tables are grouped by temperature and
truncation, with the verifier and the drafter first; the CSV is flat, complete
and unrounded. Intervals hold 95 % of the bootstrap replicates; those of a
difference are paired, see `intervals`.
"""

from __future__ import annotations

from collections.abc import Sequence
import csv as csv_lib
import dataclasses
import io
import shutil
import textwrap

from speccascade_jax.reports import caveats
from speccascade_jax.reports import columns
from speccascade_jax.reports import formats
from speccascade_jax.reports import intervals
from speccascade_jax.reports import operating_point
from speccascade_jax.reports import runs as runs_lib

# What the letter in front of a row says, in the order of precedence.
MARKS = {
  'V': 'verifier alone',
  'D': 'drafter alone',
  '*': "fastest at the verifier's quality or better",
  '+': "at the verifier's quality or better, and faster",
}


def mark(run: runs_lib.Run, point: operating_point.OperatingPoint) -> str:
  """The run's letter of `MARKS`, or ''."""
  if run.alone is not None:
    return run.alone[0].upper()
  if point.fastest is not None and run.point == point.fastest.point:
    return '*'
  return '+' if point.is_good(run) else ''


def text(sweep: runs_lib.Sweep, width: int | None = None) -> str:
  """The table for a terminal, with the operating points below.

  Args:
    sweep: the runs.
    width: characters a line; by default those of the terminal. Columns that
      do not fit are left out and named.
  """
  if width is None:
    width = shutil.get_terminal_size((100, 24)).columns
  all_columns, groups = columns.of_sweep(sweep), sweep.groups()
  shown = _fitting(all_columns, groups, width)
  widths = [_width(column, groups) for column in shown]
  lines = [heading(sweep), '']
  points = [operating_point.find(g, sweep.primary_metric) for g in groups]
  used = set()
  for point in points:
    head = '  ' + _join([c.heading for c in shown], widths)
    lines += [point.group.title, head, '  ' + '-' * (len(head) - 2)]
    for run in point.group.runs:
      sign = mark(run, point)
      used.add(sign)
      cells = _join([c.show(run) for c in shown], widths)
      lines.append(f'{sign or " "} {cells}'.rstrip())
    lines.append('')
  lines += [f'{m} {meaning}' for m, meaning in MARKS.items() if m in used]
  hidden = [c.heading for c in all_columns if c not in shown]
  notes = _sentences(sweep, points) + caveats.of_sweep(sweep)
  if hidden:
    notes.append(
      f'Left out to fit {width} characters: {", ".join(hidden)}. The files of '
      'the report have them.'
    )
  lines.append('')
  for note in notes:
    lines += textwrap.wrap(note, max(width, 40), subsequent_indent='  ')
  return '\n'.join(lines) + '\n'


def markdown(sweep: runs_lib.Sweep) -> str:
  """The table as GitHub shows it, all columns."""
  shown = columns.of_sweep(sweep)
  lines = [f'# {formats.escaped(heading(sweep))}', '']
  points = [
    operating_point.find(g, sweep.primary_metric) for g in sweep.groups()
  ]
  for point in points:
    heads = [c.heading for c in shown]
    rules = [':--' if c.form == '' else '--:' for c in shown]
    lines += [
      f'## {point.group.title}',
      '',
      formats.markdown_row(heads),
      formats.markdown_row(rules),
    ]
    for run in point.group.runs:
      cells = [formats.escaped(c.show(run)) for c in shown]
      sign = mark(run, point)
      if sign in ('V', 'D', '*'):
        cells[0] = f'**{cells[0]}**'
      if sign in ('*', '+'):
        cells[0] += f' \\{sign}'
      lines.append(formats.markdown_row(cells))
    lines.append('')
  for sign in '*+':
    lines.append(f'\\{sign} {MARKS[sign]}  ')
  lines.append('')
  lines += [f'- {formats.escaped(line)}' for line in _sentences(sweep, points)]
  lines += [f'- {formats.escaped(line)}' for line in caveats.of_sweep(sweep)]
  lines += ['', *(f'- {c.heading}: {c.meaning}' for c in shown)]
  return '\n'.join(lines) + '\n'


def csv(sweep: runs_lib.Sweep) -> str:
  """Everything that is known of every finished run, one line a run.

  Metrics have columns `quality.NAME`, and the ends of intervals `NAME.low` and
  `NAME.high`; `difference` is that of the primary metric to the verifier's of
  the same trial. What was not measured is empty.
  """
  names = [
    f.name
    for f in dataclasses.fields(runs_lib.Run)
    if f.name not in ('quality', 'signatures', 'replicates')
  ]
  metrics = sweep.metrics
  clocks = ('relative_latency', 'modelled_relative_latency')
  sampled = [*clocks, *(f'quality.{m}' for m in metrics)]
  paired = columns.differences(sweep)
  out = io.StringIO()
  writer = csv_lib.writer(out, lineterminator='\n')
  writer.writerow(
    [
      *names,
      *(f'quality.{m}' for m in metrics),
      *(f'{name}.{end}' for name in sampled for end in ('low', 'high')),
      *(f'difference{end}' for end in ('', '.low', '.high')),
    ]
  )
  for group in sweep.groups():
    for run in group.runs:
      writer.writerow(
        [
          *(getattr(run, name) for name in names),
          *(run.quality.get(m) for m in metrics),
          *(end for name in sampled for end in _ends(run.interval(name))),
          *_flat(paired.get(run.key)),
        ]
      )
  return out.getvalue()


def heading(sweep: runs_lib.Sweep) -> str:
  """What was run on what, in a line."""
  header = sweep.header
  parts = [
    f'{header.get("task", "sweep")}/{header.get("split", "?")}',
    f'{header.get("num_examples", "?")} examples',
    f'pair {header.get("pair", "?")}',
    str(header.get('device') or 'unknown device'),
  ]
  return ', '.join(parts)


def _ends(
  interval: intervals.Interval | None,
) -> tuple[float | None, float | None]:
  return (interval.low, interval.high) if interval else (None, None)


def _flat(
  difference: tuple[float, intervals.Interval | None] | None,
) -> tuple[float | None, ...]:
  if difference is None:
    return (None, None, None)
  return (difference[0], *_ends(difference[1]))


def _sentences(
  sweep: runs_lib.Sweep, points: Sequence[operating_point.OperatingPoint]
) -> list[str]:
  name = formats.metric_name(sweep.primary_metric)
  return [operating_point.sentence(point, name) for point in points]


def _fitting(
  all_columns: list[columns.Column],
  groups: Sequence[runs_lib.Group],
  width: int,
) -> list[columns.Column]:
  shown = list(all_columns)
  while True:
    needed = 2 + sum(_width(c, groups) + 2 for c in shown) - 2
    droppable = [c for c in shown if c.keep < columns.ALWAYS]
    if needed <= width or not droppable:
      return shown
    shown.remove(min(droppable, key=lambda c: c.keep))


def _width(column: columns.Column, groups: Sequence[runs_lib.Group]) -> int:
  cells = [column.show(run) for group in groups for run in group.runs]
  return max(map(len, [column.heading, *cells]))


def _join(cells: Sequence[str], widths: Sequence[int]) -> str:
  """The label to the left, figures to the right."""
  first, *rest = (
    cell.rjust(width) if i else cell.ljust(width)
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
  )
  return '  '.join([first, *rest])
