"""`speccascade report RUN_DIR`: tables, figures and a page from result files.

    speccascade report runs/quickstart

Of a sweep or a calibration. Needs no model, no device and no configuration.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import pathlib
import sys

from speccascade_jax.reports import calibration_page
from speccascade_jax.reports import calibrations
from speccascade_jax.reports import expected as expected_lib
from speccascade_jax.reports import expected_tables
from speccascade_jax.reports import headline
from speccascade_jax.reports import headline_tables
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
  made = _calibration if calibrations.is_one(run_dir) else _sweep
  files, text = made(run_dir, expected)
  folder = pathlib.Path(run_dir) / 'report' if output is None else output
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
  sys.stdout.write(text)
  print(f'\nThe report is in {folder}: {", ".join(files)}')
  print(f'Open {(folder / "index.html").resolve().as_uri()}')
  return folder


def _sweep(
  run_dir: str, expected: str | None
) -> tuple[dict[str, str | bytes], str]:
  """Files of a sweep's report by name, and what the terminal shows."""
  sweep = runs.load(run_dir)
  rows = headline.find(sweep)
  beside = _beside(sweep, rows, expected)
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
    'run_dir', metavar='RUN_DIR', help='folder of a sweep or a calibration'
  )
  parser.add_argument(
    '--output', metavar='DIR', help='where to write; RUN_DIR/report by default'
  )
  parser.add_argument(
    '--expected',
    metavar='FILE',
    help='published figures to compare with; by default the expected.json '
    'beside the gin file of the sweep',
  )
  args = parser.parse_args(argv)
  report(run_dir=args.run_dir, output=args.output, expected=args.expected)
