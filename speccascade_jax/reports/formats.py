"""How names, numbers and lines of a table are written."""

from __future__ import annotations

from collections.abc import Sequence
import math

from speccascade_jax.reports import intervals

_METRIC_NAMES = {
  'bleu': 'BLEU',
  'chrf': 'chrF',
  'rouge1': 'ROUGE-1',
  'rouge2': 'ROUGE-2',
  'rougeL': 'ROUGE-L',
  'rougeLsum': 'ROUGE-Lsum',
}


def metric_name(metric: str) -> str:
  """How people write the name of a metric."""
  return _METRIC_NAMES.get(metric, metric)


def bounds(interval: intervals.Interval) -> str:
  """'[0.60, 0.71]'; an end that is not reached is a dash."""
  ends = [
    f'{end:.2f}' if math.isfinite(end) else '-'
    for end in (interval.low, interval.high)
  ]
  return f'[{", ".join(ends)}]'


def markdown_row(cells: Sequence[str]) -> str:
  """A line of a Markdown table."""
  return f'| {" | ".join(cells)} |'


def escaped(cell: str) -> str:
  """Text that Markdown takes literally."""
  for character in '\\`*_[]<>|':
    cell = cell.replace(character, f'\\{character}')
  return cell
