"""Published figures beside ours: for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
import textwrap

from speccascade_jax.reports import expected
from speccascade_jax.reports import formats

HEADINGS = ('figure', 'of', 'published', 'ours', '95 %', 'source')
_QUESTIONS = {
  'latency': "latency at the verifier's quality",
  'quality': "quality within the verifier's latency",
}


def title(beside: expected.Beside) -> str:
  """Whose figures they are, as a heading."""
  return f'Beside {beside.of}'


def note(beside: expected.Beside) -> str:
  """How to read the table, a sentence."""
  return (
    f'Published figures are those of {beside.of}, as {beside.path} has them; '
    'a dash is what this sweep did not measure.'
  )


def cells(comparison: expected.Comparison, number: int) -> list[str]:
  """A row under `HEADINGS`; the source by its number."""
  figure = comparison.figure
  what = figure.name
  if 'label' in figure.of:
    what = _QUESTIONS.get(what, formats.metric_name(_last(what)))
  return [
    what,
    f'{comparison.sweep} {_subject(figure)}'.lstrip(),
    f'{figure.value:g}',
    '-' if comparison.ours is None else f'{comparison.ours:.4g}',
    '-' if comparison.interval is None else formats.bounds(comparison.interval),
    f'({number})',
  ]


def table(
  beside: expected.Beside,
) -> tuple[list[list[str]], list[str]]:
  """Rows under `HEADINGS`, and the sources that they number from 1."""
  sources = list(dict.fromkeys(c.figure.source for c in beside.comparisons))
  rows = [
    cells(c, 1 + sources.index(c.figure.source)) for c in beside.comparisons
  ]
  return rows, sources


def text(beside: expected.Beside) -> str:
  """For a terminal."""
  rows, sources = table(beside)
  lines_of: Sequence[Sequence[str]] = [HEADINGS, *rows]
  widths = [max(map(len, column)) for column in zip(*lines_of)]
  lines = [title(beside)]
  for number, row in enumerate(lines_of):
    first, second, *rest = (
      c.ljust(w) if i < 2 else c.rjust(w)
      for i, (c, w) in enumerate(zip(row, widths))
    )
    lines.append(f'  {"  ".join([first, second, *rest])}'.rstrip())
    if not number:
      lines.append(f'  {"-" * (sum(widths) + 2 * len(widths) - 2)}')
  for number, source in enumerate(sources, 1):
    lines += textwrap.wrap(f'({number}) {source}', 79, subsequent_indent='    ')
  lines += textwrap.wrap(note(beside), 79, subsequent_indent='  ')
  return '\n'.join(lines) + '\n'


def markdown(beside: expected.Beside) -> str:
  """As GitHub shows it."""
  rows, sources = table(beside)
  lines = [
    f'# {formats.escaped(title(beside))}',
    '',
    formats.markdown_row(HEADINGS),
    formats.markdown_row([':--', ':--', '--:', '--:', '--:', '--:']),
  ]
  lines += [formats.markdown_row([*map(formats.escaped, row)]) for row in rows]
  lines.append('')
  lines += [
    f'- ({number}) {formats.escaped(source)}'
    for number, source in enumerate(sources, 1)
  ]
  return '\n'.join([*lines, f'- {formats.escaped(note(beside))}']) + '\n'


def _last(name: str) -> str:
  return name.removeprefix('quality.')


def _subject(figure: expected.Figure) -> str:
  """'SpecCascade [OPT], T 1, gamma 5', or the task of the whole sweep."""
  of = figure.of
  if 'label' not in of:
    return str(of.get('task', 'the sweep'))
  names = {'temperature': 'T', 'top_k': 'top-k', 'top_p': 'top-p'}
  names |= {'min_p': 'min-p', 'alpha': 'alpha', 'gamma': 'gamma'}
  settings = [f'{names[k]} {of[k]:g}' for k in names if k in of]
  return ', '.join([of['label'], *settings])
