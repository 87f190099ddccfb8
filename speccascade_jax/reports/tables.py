"""A sweep as a table: for the terminal, as Markdown and as CSV.

One row a run. The text and Markdown tables are grouped by temperature and
truncation, with the verifier and the drafter first; the CSV is flat, complete
and unrounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import csv as csv_lib
import dataclasses
import io
import shutil
import textwrap
from typing import Any

from speccascade_jax.reports import operating_point
from speccascade_jax.reports import runs as runs_lib

_METRIC_NAMES = {
  'bleu': 'BLEU',
  'chrf': 'chrF',
  'rouge1': 'ROUGE-1',
  'rouge2': 'ROUGE-2',
  'rougeL': 'ROUGE-L',
  'rougeLsum': 'ROUGE-Lsum',
}

# What the letter in front of a row says, in the order of precedence.
MARKS = {
  'V': 'verifier alone',
  'D': 'drafter alone',
  '*': "fastest at the verifier's quality or better",
  '+': "at the verifier's quality or better, and faster",
}


def metric_name(metric: str) -> str:
  """How people write the name of a metric."""
  return _METRIC_NAMES.get(metric, metric)


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of the grouped tables.

  Attributes:
    heading: short, for the table's head.
    meaning: one sentence with the unit.
    value: of a run; None is shown as a dash.
    form: format specification of the value.
    keep: columns of the smallest number go first where space is short.
    text: the cell's text where it is more than the value in that form.
  """

  heading: str
  meaning: str
  value: Callable[[runs_lib.Run], Any]
  form: str
  keep: int
  text: Callable[[runs_lib.Run], str | None] | None = None

  def show(self, run: runs_lib.Run) -> str:
    """The cell's text."""
    if self.text is not None:
      return self.text(run) or '-'
    value = self.value(run)
    return '-' if value is None else format(value, self.form)


def _field(name: str) -> Callable[[runs_lib.Run], Any]:
  return lambda run: getattr(run, name)


def _metric(name: str) -> Callable[[runs_lib.Run], Any]:
  return lambda run: run.quality.get(name)


_ALWAYS = 99
_RATES = (
  ('accept', 'acceptance_rate', 'Drafted tokens kept, of those judged', 4),
  ('reject', 'rejection_rate', 'Drafted tokens replaced, of those judged', 8),
  ('defer', 'deferral_rate', 'Output handed to the verifier by the rule', 7),
)


def columns(sweep: runs_lib.Sweep) -> list[Column]:
  """The columns of a sweep's tables, the method's label first.

  The temperature is the group's; the trial has a column if there are several.
  """
  found = [
    Column('method', 'Name of the method', _field('label'), '', _ALWAYS),
    Column(
      'alpha',
      "The rule's trade-off, or the strength of the method's truncation",
      _field('alpha'),
      'g',
      _ALWAYS,
      text=_field('strength'),
    ),
    Column('gamma', 'Tokens drafted a round', _field('gamma'), 'd', 6),
  ]
  if any(run.trial for run in sweep.runs):
    found.append(Column('trial', 'Repetition', _field('trial'), 'd', 9))
  for name in sweep.metrics:
    primary = name == sweep.primary_metric
    found.append(
      Column(
        metric_name(name),
        'Quality over all examples; larger is better',
        _metric(name),
        '.2f',
        _ALWAYS if primary else 2,
      )
    )
  found += [
    Column(
      'rel.lat',
      "Mean latency over the verifier's on the same examples",
      _field('relative_latency'),
      '.2f',
      _ALWAYS,
    ),
    Column(
      'ms',
      'Mean latency of an example at batch size 1, in milliseconds',
      _field('latency_ms_mean'),
      '.1f',
      5,
    ),
  ]
  for heading, name, meaning, keep in _RATES:
    found.append(Column(heading, meaning, _field(name), '.1%', keep))
  found += [
    Column(
      'tok/call',
      'Block efficiency: output tokens per verifier call',
      _field('block_efficiency'),
      '.2f',
      3,
    ),
    Column(
      'calls',
      'Verifier calls per example',
      _field('verifier_calls_per_example'),
      '.1f',
      1,
    ),
  ]
  return found


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
  all_columns, groups = columns(sweep), sweep.groups()
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
  notes = _sentences(sweep, points) + truncated(sweep) + unfinished(sweep)
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
  shown = columns(sweep)
  lines = [f'# {_escaped(heading(sweep))}', '']
  points = [
    operating_point.find(g, sweep.primary_metric) for g in sweep.groups()
  ]
  for point in points:
    heads = [c.heading for c in shown]
    rules = [':--' if c.form == '' else '--:' for c in shown]
    lines += [f'## {point.group.title}', '', _row(heads), _row(rules)]
    for run in point.group.runs:
      cells = [_escaped(c.show(run)) for c in shown]
      sign = mark(run, point)
      if sign in ('V', 'D', '*'):
        cells[0] = f'**{cells[0]}**'
      if sign in ('*', '+'):
        cells[0] += f' \\{sign}'
      lines.append(_row(cells))
    lines.append('')
  for sign in '*+':
    lines.append(f'\\{sign} {MARKS[sign]}  ')
  lines.append('')
  lines += [f'- {_escaped(line)}' for line in _sentences(sweep, points)]
  left = truncated(sweep) + unfinished(sweep)
  lines += [f'- {_escaped(line)}' for line in left]
  lines += ['', *(f'- {c.heading}: {c.meaning}' for c in shown)]
  return '\n'.join(lines) + '\n'


def csv(sweep: runs_lib.Sweep) -> str:
  """Everything that is known of every finished run, one line a run.

  Metrics have columns `quality.NAME`; what was not measured is empty.
  """
  names = [
    f.name
    for f in dataclasses.fields(runs_lib.Run)
    if f.name not in ('quality', 'signatures')
  ]
  metrics = sweep.metrics
  out = io.StringIO()
  writer = csv_lib.writer(out, lineterminator='\n')
  writer.writerow([*names, *(f'quality.{m}' for m in metrics)])
  for group in sweep.groups():
    for run in group.runs:
      writer.writerow(
        [
          *(getattr(run, name) for name in names),
          *(run.quality.get(m) for m in metrics),
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


def truncated(sweep: runs_lib.Sweep) -> list[str]:
  """A line if inputs were cut; none where it is not known."""
  # All runs read the same inputs, but an unfinished sweep may lack a few.
  count = max((run.num_truncated or 0 for run in sweep.runs), default=0)
  if not count:
    return []
  return [
    f'Inputs cut to the input length: {count} of '
    f'{sweep.header.get("num_examples", "?")}. Quality suffers; sweep with a '
    'larger input_length.'
  ]


def unfinished(sweep: runs_lib.Sweep) -> list[str]:
  """A line for every run that was begun and is left out."""
  lines = []
  for run in sweep.unfinished:
    settings = [run.label, f'T {run.temperature:g}']
    if run.alpha is not None:
      settings.append(f'{run.truncation or "alpha"} {run.alpha:g}')
    if run.gamma is not None:
      settings.append(f'gamma {run.gamma}')
    of = f' of {run.total}' if run.total else ''
    lines.append(
      f'Left out, unfinished: {", ".join(settings)} ({run.done}{of} examples '
      'done).'
    )
  return lines


def _sentences(
  sweep: runs_lib.Sweep, points: Sequence[operating_point.OperatingPoint]
) -> list[str]:
  name = metric_name(sweep.primary_metric)
  return [operating_point.sentence(point, name) for point in points]


def _fitting(
  all_columns: list[Column], groups: Sequence[runs_lib.Group], width: int
) -> list[Column]:
  shown = list(all_columns)
  while True:
    needed = 2 + sum(_width(c, groups) + 2 for c in shown) - 2
    droppable = [c for c in shown if c.keep < _ALWAYS]
    if needed <= width or not droppable:
      return shown
    shown.remove(min(droppable, key=lambda c: c.keep))


def _width(column: Column, groups: Sequence[runs_lib.Group]) -> int:
  cells = [column.show(run) for group in groups for run in group.runs]
  return max(map(len, [column.heading, *cells]))


def _join(cells: Sequence[str], widths: Sequence[int]) -> str:
  """The label to the left, figures to the right."""
  first, *rest = (
    cell.rjust(width) if i else cell.ljust(width)
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
  )
  return '  '.join([first, *rest])


def _row(cells: Sequence[str]) -> str:
  return f'| {" | ".join(cells)} |'


def _escaped(cell: str) -> str:
  """Text that Markdown takes literally."""
  for character in '\\`*_[]<>|':
    cell = cell.replace(character, f'\\{character}')
  return cell
