"""A benchmark's results as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MISSING = '-'


def render(results: Mapping[str, Any]) -> str:
  """Markdown of what `speccascade bench` found; `results` as in its JSON."""
  parts = results['parts']
  pair = results['pair']
  lines = [
    f'{pair["drafter"]} drafting for {pair["verifier"]}, gamma '
    f'{results["gamma"]}, {results["input_length"]} tokens in, '
    f'{results["max_length"]} out.',
    f'{results["device"]}: {parts["bandwidth_gb_per_s"]:.1f} GB/s and '
    f'{parts["gflop_per_s"]:.0f} GFLOP/s; peak memory '
    f'{results["peak_bytes"] / 1e6:.0f} MB.',
    '',
    *_table(
      ('call', 'ms', 'best', 'floor', 'times floor', 'bound'),
      [
        (
          row['name'],
          f'{row["ms_p50"]:.3g}',
          f'{row["ms_best"]:.3g}',
          f'{row["floor_ms"]:.3g}',
          f'{row["times_floor"]:.2f}',
          row['bound'],
        )
        for row in parts['calls']
      ],
    ),
    '',
    f'A round takes {parts["round_over_parts"]:.2f} times what its drafter '
    'steps and its verifier call take alone.',
  ]
  heads = (
    *('method', 'batch', 'tokens/s', 'x verifier', 'kept', 'tokens/call'),
    'compile s',
  )
  for title, rows in (
    ('Methods', results['methods']),
    ('Lossless, by how often the drafter is right', results['acceptances']),
  ):
    lines += ['', f'{title}:', '', *_table(heads, [_row(r) for r in rows])]
  return '\n'.join(lines) + '\n'


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
  return (
    row['name'],
    f'{row["batch"]}',
    f'{row["tokens_per_s"]:.4g}',
    _number(row.get('times_verifier')),
    _number(row['acceptance_rate']),
    _number(row['block_efficiency']),
    f'{row["compile_s"]:.1f}',
  )


def _number(value: float | None) -> str:
  return _MISSING if value is None else f'{value:.2f}'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(heads, *rows)]
  first, *rest = widths

  def line(cells: Sequence[str]) -> str:
    padded = [cells[0].ljust(first)]
    padded += [cell.rjust(n) for cell, n in zip(cells[1:], rest)]
    return f'| {" | ".join(padded)} |'

  rule = [f'{"-" * first}', *(f'{"-" * (n - 1)}:' for n in rest)]
  return [line(heads), f'| {" | ".join(rule)} |', *map(line, rows)]
