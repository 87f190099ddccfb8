"""A sweep as a table: for the terminal, as Markdown and as CSV.

One row a run. The text and Markdown tables are grouped by temperature and
truncation, with the verifier and the drafter first; the CSV is flat, complete
and unrounded. Intervals hold 95 % of the bootstrap replicates; those of a
difference are paired, see `intervals`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import csv as csv_lib
import dataclasses
import io
import math
import shutil
import textwrap
from typing import Any

from speccascade_jax.reports import intervals
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


def bounds(interval: intervals.Interval) -> str:
  """'[0.60, 0.71]'; an end that is not reached is a dash."""
  ends = [
    f'{end:.2f}' if math.isfinite(end) else '-'
    for end in (interval.low, interval.high)
  ]
  return f'[{", ".join(ends)}]'


def differences(
  sweep: runs_lib.Sweep,
) -> dict[str, tuple[float, intervals.Interval | None]]:
  """The primary metric less the verifier's of the same trial, by run."""
  metric = sweep.primary_metric
  name = f'quality.{metric}'
  found = {}
  for group in sweep.groups():
    for run in group.runs:
      verifier = group.verifier_of(run)
      if verifier is None:
        continue
      quality = run.quality.get(metric)
      reference = verifier.quality.get(metric)
      if quality is None or reference is None:
        continue
      found[run.key] = (
        quality - reference,
        intervals.difference(
          run.replicates.get(name), verifier.replicates.get(name)
        ),
      )
  return found


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
    if primary and any(run.replicates for run in sweep.runs):
      found.append(_difference(sweep))
  found.append(
    Column(
      'rel.lat',
      "Mean latency over the verifier's on the same examples",
      _field('relative_latency'),
      '.2f',
      _ALWAYS,
      text=_relative_latency,
    )
  )
  if any(run.interval('relative_latency') for run in sweep.runs):
    found.append(
      Column(
        'rel.lat 95%',
        'Interval of the relative latency',
        _field('relative_latency'),
        '',
        0,
        text=_interval('relative_latency'),
      )
    )
  if any(run.modelled_relative_latency for run in sweep.runs):
    found.append(
      Column(
        'model',
        'Relative latency by the cost model: counted calls, times what a call '
        'takes',
        _field('modelled_relative_latency'),
        '.2f',
        4,
      )
    )
  found += [
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


def _difference(sweep: runs_lib.Sweep) -> Column:
  found = differences(sweep)

  def text(run: runs_lib.Run) -> str | None:
    if run.key not in found:
      return None
    value, interval = found[run.key]
    return f'{value:+.2f} {bounds(interval) if interval else ""}'.rstrip()

  name = metric_name(sweep.primary_metric)
  return Column(
    f'{name} - V',
    f"{name} less the verifier's, with the paired interval",
    lambda run: found[run.key][0] if run.key in found else None,
    '+.2f',
    0,
    text=text,
  )


def _relative_latency(run: runs_lib.Run) -> str | None:
  if run.relative_latency is None:
    return None
  return f'{run.relative_latency:.2f}{"~" if run.timed_apart else ""}'


def _interval(name: str) -> Callable[[runs_lib.Run], str | None]:
  def text(run: runs_lib.Run) -> str | None:
    found = run.interval(name)
    return bounds(found) if found else None

  return text


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
  notes = _sentences(sweep, points) + caveats(sweep)
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
  lines = [f'# {escaped(heading(sweep))}', '']
  points = [
    operating_point.find(g, sweep.primary_metric) for g in sweep.groups()
  ]
  for point in points:
    heads = [c.heading for c in shown]
    rules = [':--' if c.form == '' else '--:' for c in shown]
    lines += [
      f'## {point.group.title}',
      '',
      markdown_row(heads),
      markdown_row(rules),
    ]
    for run in point.group.runs:
      cells = [escaped(c.show(run)) for c in shown]
      sign = mark(run, point)
      if sign in ('V', 'D', '*'):
        cells[0] = f'**{cells[0]}**'
      if sign in ('*', '+'):
        cells[0] += f' \\{sign}'
      lines.append(markdown_row(cells))
    lines.append('')
  for sign in '*+':
    lines.append(f'\\{sign} {MARKS[sign]}  ')
  lines.append('')
  lines += [f'- {escaped(line)}' for line in _sentences(sweep, points)]
  lines += [f'- {escaped(line)}' for line in caveats(sweep)]
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
  paired = differences(sweep)
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


def caveats(sweep: runs_lib.Sweep) -> list[str]:
  """What limits the figures, a line each."""
  return (
    truncated(sweep)
    + timed_apart(sweep)
    + without_interval(sweep)
    + unfinished(sweep)
  )


def timed_apart(sweep: runs_lib.Sweep) -> list[str]:
  """A line if runs are compared with a verifier of another start."""
  apart = [run for run in sweep.runs if run.timed_apart]
  if not apart:
    return []
  most = max(run.timed_apart or 0 for run in apart)
  return [
    f'~ {len(apart)} runs have up to {most} of '
    f'{sweep.header.get("num_examples", "?")} examples timed in another start '
    'of the sweep than the verifier; another load of the machine is in their '
    'relative latency.'
  ]


def without_interval(sweep: runs_lib.Sweep) -> list[str]:
  """A line if others have intervals and the primary metric has none."""
  name = f'quality.{sweep.primary_metric}'
  if any(name in r.replicates or not r.replicates for r in sweep.runs):
    return []
  return [
    f'{metric_name(sweep.primary_metric)} has no intervals: the metric gives '
    'no statistics by example. sweep.recompute_metrics resamples it all the '
    'same.'
  ]


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


def markdown_row(cells: Sequence[str]) -> str:
  """A line of a Markdown table."""
  return f'| {" | ".join(cells)} |'


def escaped(cell: str) -> str:
  """Text that Markdown takes literally."""
  for character in '\\`*_[]<>|':
    cell = cell.replace(character, f'\\{character}')
  return cell
