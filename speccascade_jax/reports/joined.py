"""The headline tables of several sweeps as one, as the paper prints them.

A column a sweep, a row a method: the least latency at the verifier's quality,
and the best quality within its latency, both on the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import pathlib
import textwrap

from speccascade_jax.reports import expected as expected_lib
from speccascade_jax.reports import formats
from speccascade_jax.reports import headline
from speccascade_jax.reports import headline_tables
from speccascade_jax.reports import runs as runs_lib

_CLOCK = 'relative_latency'
_QUESTIONS = {
  'latency': "Latency at the verifier's quality",
  'quality': "Quality within the verifier's latency",
}
# Temperature and truncation, label, gamma.
_Method = tuple[str, str, int | None]


@dataclasses.dataclass(frozen=True)
class Column:
  """A sweep, and the rows of its own headline table."""

  sweep: runs_lib.Sweep
  rows: Sequence[headline.Row]

  @property
  def title(self) -> str:
    """'xsum/test by ROUGE-2, t5_1_1_small -> t5_1_1_xl, verifier 9.12'."""
    header = self.sweep.header
    models = ' -> '.join(header.get('models') or ()) or header.get('pair')
    metric = formats.metric_name(self.sweep.primary_metric)
    references = dict.fromkeys(f'{row.reference:.2f}' for row in self.rows)
    named = f'{header.get("task")}/{header.get("split")} by {metric}, {models}'
    return f'{named}, verifier {" and ".join(references)}'

  def answer(self, method: _Method, question: str) -> headline.Answer | None:
    """None where the sweep has no such method."""
    for row in self.rows:
      if _method(row) == method:
        return getattr(row, question)[_CLOCK]
    return None


def text(columns: Sequence[Column]) -> str:
  """For a terminal; intervals are left to the file."""
  lines = []
  for question, asked in _QUESTIONS.items():
    table = _table(columns, question, _value)
    widths = [max(map(len, column)) for column in zip(*table)]
    lines.append(asked)
    for number, row in enumerate(table):
      first, *rest = (c.ljust(w) for c, w in zip(row, widths))
      lines.append(f'  {"  ".join([first, *rest])}'.rstrip())
      if not number:
        lines.append(f'  {"-" * (sum(widths) + 2 * len(widths) - 2)}')
    lines.append('')
  for number, column in enumerate(columns, 1):
    title = f'({number}) {column.title}'
    lines += textwrap.wrap(title, 79, subsequent_indent='    ')
  return '\n'.join(lines) + '\n'


def markdown(columns: Sequence[Column]) -> str:
  """As GitHub shows it, with intervals."""
  lines = ["# At the verifier's quality, and within its latency", '']
  for question, asked in _QUESTIONS.items():
    heads, *rows = _table(columns, question, headline_tables.show)
    lines += [f'## {asked}', '', formats.markdown_row(heads)]
    lines.append(formats.markdown_row([':--'] + ['--:'] * len(columns)))
    lines += [
      formats.markdown_row([formats.escaped(first), *rest])
      for first, *rest in rows
    ]
    lines.append('')
  lines += [
    f'- ({number}) {formats.escaped(column.title)}'
    for number, column in enumerate(columns, 1)
  ]
  every = [row for column in columns for row in column.rows]
  lines += [f'- {formats.escaped(n)}' for n in headline_tables.notes(every)]
  return '\n'.join(lines) + '\n'


def csv(columns: Sequence[Column]) -> str:
  """The sweeps' own lines one after the other, the run directory in front."""
  lines: list[str] = []
  for column in columns:
    heads, *of_sweep = headline_tables.csv(column.rows).splitlines()
    lines = lines or [f'run_dir,{heads}']
    name = str(column.sweep.path).replace('"', '""')
    lines += [f'"{name}",{line}' for line in of_sweep]
  return '\n'.join(lines) + '\n'


def besides(
  found: Sequence[expected_lib.Beside | None],
) -> list[expected_lib.Beside]:
  """Published figures beside all sweeps', one `Beside` a file.

  Args:
    found: of each sweep, in the order of the columns.
  """
  files: dict[tuple[str, pathlib.Path], list[expected_lib.Comparison]] = {}
  for number, beside in enumerate(found, 1):
    if beside is not None:
      files.setdefault((beside.of, beside.path), []).extend(
        dataclasses.replace(comparison, sweep=f'({number})')
        for comparison in beside.comparisons
      )
  return [
    expected_lib.Beside(of, path, comparisons)
    for (of, path), comparisons in files.items()
  ]


def _table(
  columns: Sequence[Column],
  question: str,
  show: Callable[[headline.Answer | None], str],
) -> list[list[str]]:
  """Headings, and a row a method of any sweep."""
  methods = dict.fromkeys(_method(r) for c in columns for r in c.rows)
  heads = ['method', *(f'({n})' for n in range(1, len(columns) + 1))]
  groups = {group for group, *_ in methods}
  return [heads] + [
    [
      _named(method, len(groups) > 1),
      *(show(column.answer(method, question)) for column in columns),
    ]
    for method in methods
  ]


def _method(row: headline.Row) -> _Method:
  return (row.group.title, row.label, row.gamma)


def _named(method: _Method, grouped: bool) -> str:
  """'SpecCascade [OPT], gamma 5', with the temperature if there are several."""
  group, label, gamma = method
  named = label if gamma is None else f'{label}, gamma {gamma}'
  return f'{group}: {named}' if grouped else named


def _value(answer: headline.Answer | None) -> str:
  if answer is None or answer.value is None:
    return '-'
  return f'{answer.value:.2f}'
