"""`speccascade report RUN_DIR`: tables, figures and a page from result files.

    speccascade report runs/quickstart
    speccascade report runs/paper/t5_*/*

Of a sweep or a calibration; of several sweeps each one's, and one table of
all. Needs no model, no device and no configuration.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
import os
import pathlib
import sys

from speccascade_jax.reports import calibration_page
from speccascade_jax.reports import calibrations
from speccascade_jax.reports import expected as expected_lib
from speccascade_jax.reports import expected_tables
from speccascade_jax.reports import headline
from speccascade_jax.reports import headline_tables
from speccascade_jax.reports import joined
from speccascade_jax.reports import page
from speccascade_jax.reports import reliability
from speccascade_jax.reports import runs
from speccascade_jax.reports import tables


def report(
  *, run_dir: str, output: str | None = None, expected: str | None = None
) -> pathlib.Path:
  """Prints the tables and writes the files.

  Args:
    run_dir: of a `speccascade sweep`, finished or not, or of a finished
      `speccascade calibrate`.
    output: folder of the tables, the figures and index.html; RUN_DIR/report
      by default.
    expected: file of published figures to compare with, see
      `reports.expected`; by default the expected.json beside the gin file
      that the sweep was set up by, if there is one.

  Returns:
    The folder.
  """
  if calibrations.is_one(run_dir):
    files, text = _calibration(run_dir, expected)
  else:
    sweep = runs.load(run_dir)
    rows = headline.find(sweep)
    files, text = _sweep(sweep, rows, _beside(sweep, rows, expected))
  folder = _write(output or pathlib.Path(run_dir) / 'report', files)
  sys.stdout.write(text)
  print(f'\nThe report is in {folder}: {", ".join(files)}')
  print(f'Open {(folder / "index.html").resolve().as_uri()}')
  return folder


def join(
  *,
  run_dirs: Sequence[str],
  output: str | None = None,
  expected: str | None = None,
) -> pathlib.Path:
  """The report of each of several sweeps, and one table of all.

  Args:
    run_dirs: of sweeps; each gets its own report in RUN_DIR/report.
    output: folder of the table of all; report/ in the innermost folder that
      all of them are in by default.
    expected: as in `report`.

  Returns:
    The folder.

  Raises:
    ValueError: if one of them is a calibration, or there twice.
  """
  for run_dir in run_dirs:
    if calibrations.is_one(run_dir):
      raise ValueError(
        f'{run_dir} is a calibration, which joins no table: report it alone.'
      )
  paths = [pathlib.Path(run_dir).resolve() for run_dir in run_dirs]
  if len({*paths}) < len(paths):
    raise ValueError(f'A folder is named twice among {", ".join(run_dirs)}.')
  columns, besides = [], []
  for run_dir in run_dirs:
    sweep = runs.load(run_dir)
    column = joined.Column(sweep, headline.find(sweep))
    columns.append(column)
    besides.append(_beside(sweep, column.rows, expected))
  for column, beside in zip(columns, besides):
    files, _ = _sweep(column.sweep, column.rows, beside)
    print(f'{_write(column.sweep.path / "report", files)}: {column.title}')
  tables_of_all = joined.besides(besides)
  files = {
    'headline.md': joined.markdown(columns),
    'headline.csv': joined.csv(columns),
  }
  if tables_of_all:
    files['expected.md'] = '\n'.join(
      map(expected_tables.markdown, tables_of_all)
    )
  common = pathlib.Path(os.path.commonpath(paths))
  folder = _write(output or common / 'report', files)
  parts = [joined.text(columns), *map(expected_tables.text, tables_of_all)]
  sys.stdout.write('\n' + '\n'.join(parts))
  print(f'\nThe table of all is in {folder}: {", ".join(files)}')
  return folder


def _write(
  folder: str | pathlib.Path, files: Mapping[str, str | bytes]
) -> pathlib.Path:
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
  return folder


def _sweep(
  sweep: runs.Sweep,
  rows: Sequence[headline.Row],
  beside: expected_lib.Beside | None,
) -> tuple[dict[str, str | bytes], str]:
  """Files of a sweep's report by name, and what the terminal shows."""
  drawn = page.figures(sweep)
  files: dict[str, str | bytes] = {
    'table.md': tables.markdown(sweep),
    'table.csv': tables.csv(sweep),
    'headline.md': headline_tables.markdown(rows, sweep.primary_metric),
    'headline.csv': headline_tables.csv(rows),
    **{f'{name}.png': figure.png for name, figure in drawn.items()},
    'index.html': page.render(sweep, rows, beside, drawn),
  }
  text = f'{tables.text(sweep)}\n'
  text += headline_tables.text(rows, sweep.primary_metric)
  if beside:
    files['expected.md'] = expected_tables.markdown(beside)
    text += f'\n{expected_tables.text(beside)}'
  return files, text


def _calibration(
  run_dir: str, expected: str | None
) -> tuple[dict[str, str | bytes], str]:
  """Likewise of a calibration."""
  if expected is not None:
    raise ValueError(
      f'{run_dir} is a calibration, which nothing published is compared with; '
      f'leave out --expected {expected}.'
    )
  calibration = calibrations.load(run_dir)
  files: dict[str, str | bytes] = {
    'table.md': calibrations.markdown(calibration),
    'bins.csv': calibrations.csv(calibration),
    'reliability.png': reliability.draw(calibration).png,
    'index.html': calibration_page.render(calibration),
  }
  return files, calibrations.text(calibration)


def _beside(
  sweep: runs.Sweep, rows: Sequence[headline.Row], expected: str | None
) -> expected_lib.Beside | None:
  """The comparison that was asked for, or that lies beside the gin file."""
  path = expected or expected_lib.find(sweep)
  if path is None:
    return None
  beside = expected_lib.compare(sweep, rows, path)
  if not beside.comparisons and expected is not None:
    models = sweep.header.get('models', 'that the pair does not name')
    print(
      f'{path} has no figure for task {sweep.header.get("task")!r} with models '
      f'{models}.'
    )
  return beside if beside.comparisons else None


def main(argv: Sequence[str]) -> None:
  """The command; `argv` are the arguments behind its name."""
  parser = argparse.ArgumentParser(
    'speccascade report',
    description='Tables, figures and an HTML page from the folder of a run.',
  )
  parser.add_argument(
    'run_dirs',
    metavar='RUN_DIR',
    nargs='+',
    help='folder of a sweep or a calibration; of several sweeps one table is '
    'made',
  )
  parser.add_argument(
    '--output',
    metavar='DIR',
    help='where to write; RUN_DIR/report by default, of several sweeps '
    'report/ in the folder that all are in',
  )
  parser.add_argument(
    '--expected',
    metavar='FILE',
    help='published figures to compare with; by default the expected.json '
    'beside the gin file of the sweep',
  )
  args = parser.parse_args(argv)
  if len(args.run_dirs) > 1:
    join(run_dirs=args.run_dirs, output=args.output, expected=args.expected)
    return
  (run_dir,) = args.run_dirs
  report(run_dir=run_dir, output=args.output, expected=args.expected)
