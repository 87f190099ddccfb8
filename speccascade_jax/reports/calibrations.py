"""A calibration's directory, read and told: text, Markdown and CSV.

Reads what `speccascade calibrate` leaves and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import csv as csv_lib
import dataclasses
import io
import os
import pathlib
import textwrap
from typing import Any

from speccascade_jax.reports import formats
from speccascade_jax.reports import runs

HEADER = 'calibration.json'


@dataclasses.dataclass(frozen=True)
class Bin:
  """Positions whose confidence is in (low, high]."""

  low: float
  high: float
  tokens: int
  confidence: float | None  # Means; None without tokens.
  accuracy: float | None


@dataclasses.dataclass(frozen=True)
class Reliability:
  """How reliable a model is at one temperature; intervals hold 95 %."""

  temperature: float
  tokens: int
  accuracy: float
  confidence: float  # Mean.
  surprisal: float  # Nats a token.
  ece: float
  ece_interval: Sequence[float] | None
  ece_equal_mass: float
  bins: Sequence[Bin]


@dataclasses.dataclass(frozen=True)
class Model:
  """The drafter or the verifier, before and after."""

  name: str
  temperature: float
  temperature_interval: Sequence[float] | None
  before: Reliability
  after: Reliability
  change: float  # Of the ECE.
  change_interval: Sequence[float] | None
  truncated: int

  @property
  def verdict(self) -> str:
    """What the temperature does to the ECE, in a sentence."""
    does = 'does not change measurably'
    low, high = self.change_interval or (self.change, self.change)
    if high < 0:
      does = 'falls'
    elif low > 0:
      does = 'rises'
    said = (
      f'{self.name.capitalize()}: at temperature {self.temperature:g} the ECE '
      f'{does}, from {_percent(self.before.ece)} to '
      f'{_percent(self.after.ece)}.'
    )
    if does == 'rises':
      said += (
        ' What is fitted is the likelihood of the references, not the ECE: the '
        'confidences are better left as they are.'
      )
    return said


@dataclasses.dataclass(frozen=True)
class Calibration:
  """What was calibrated, on what, and what came out."""

  path: pathlib.Path
  header: Mapping[str, Any]  # calibration.json.
  operative_config: str
  models: Sequence[Model]

  @property
  def heading(self) -> str:
    """What was calibrated on what, in a line."""
    get = self.header.get
    return (
      f'{get("task")}, pair {get("pair")}: fitted on {get("num_examples")} '
      f'examples of {get("split")}, told of {get("num_held_out")} of '
      f'{get("held_out_split")} ({self.models[0].before.tokens} tokens)'
    )

  @property
  def notes(self) -> list[str]:
    """What the figures come to, and `caveats`; a sentence each."""
    return [*(model.verdict for model in self.models), *self.caveats]

  @property
  def caveats(self) -> list[str]:
    """What is wrong with the figures, a sentence each."""
    cut = max(model.truncated for model in self.models)
    if not cut:
      return []
    return [
      f'{cut} of the held-out references, or their sources, were cut to the '
      'lengths that were given: of those only the beginning is judged.'
    ]


def is_one(run_dir: str | os.PathLike[str]) -> bool:
  """Whether a directory holds a calibration."""
  return (pathlib.Path(run_dir) / HEADER).is_file()


def load(run_dir: str | os.PathLike[str]) -> Calibration:
  """Reads a directory.

  Raises:
    runs.RunDirError: if it holds no finished calibration, or is damaged.
  """
  path = pathlib.Path(run_dir)
  header = runs.read_json(path / HEADER, 'task')
  if not (path / 'summary.json').is_file():
    raise runs.RunDirError(
      f'{path} has no finished calibration yet. Start the same `speccascade '
      'calibrate` again; it goes on where it stopped.'
    )
  summary = runs.read_json(path / 'summary.json', 'models')
  config = path / 'operative_config.gin'
  return Calibration(
    path=path,
    header=header,
    operative_config=config.read_text('utf-8') if config.is_file() else '',
    models=tuple(_model(n, of) for n, of in summary['models'].items()),
  )


def _model(name: str, of: Mapping[str, Any]) -> Model:
  return Model(
    name=name,
    temperature=of['temperature'],
    temperature_interval=of['temperature_interval'],
    before=_reliability(of['before']),
    after=_reliability(of['after']),
    change=of['ece_change'],
    change_interval=of['ece_change_interval'],
    truncated=of['truncated'],
  )


def _reliability(of: Mapping[str, Any]) -> Reliability:
  return Reliability(**{**of, 'bins': tuple(Bin(**b) for b in of['bins'])})


def _percent(value: float) -> str:
  return f'{100 * value:.1f} %'


def ece(reliability: Reliability) -> str:
  """'2.5 % [2.2, 3.5]'."""
  return _percent(reliability.ece) + _ends(reliability.ece_interval, '.1f', 100)


def temperature(model: Model) -> str:
  """'0.95 [0.93, 0.97]'."""
  return f'{model.temperature:g}' + _ends(model.temperature_interval, '.2f', 1)


def _ends(interval: Sequence[float] | None, form: str, times: float) -> str:
  if interval is None:
    return ''
  return f' [{", ".join(format(times * end, form) for end in interval)}]'


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of the table."""

  heading: str
  meaning: str
  show: Callable[[Model], str]


COLUMNS = (
  Column('model', 'The smaller or the larger', lambda m: m.name),
  Column(
    'temperature',
    'At which the references that it was fitted on are likeliest',
    temperature,
  ),
  Column(
    'ECE at 1',
    'Expected calibration error of unscaled confidences, held out',
    lambda m: ece(m.before),
  ),
  Column('ECE at it', 'Likewise, at the temperature', lambda m: ece(m.after)),
  Column(
    'change',
    'Of the ECE in points; the interval is paired',
    lambda m: f'{100 * m.change:+.1f}' + _ends(m.change_interval, '+.1f', 100),
  ),
  Column(
    'right',
    "Positions where the likeliest token is the reference's",
    lambda m: _percent(m.before.accuracy),
  ),
  Column(
    'sure at 1',
    'Mean probability of the likeliest token',
    lambda m: _percent(m.before.confidence),
  ),
  Column(
    'sure at it',
    'Likewise, at the temperature',
    lambda m: _percent(m.after.confidence),
  ),
  Column(
    'nats at 1',
    'Mean surprisal of the references, a token',
    lambda m: f'{m.before.surprisal:.3f}',
  ),
  Column(
    'nats at it',
    'Likewise, at the temperature',
    lambda m: f'{m.after.surprisal:.3f}',
  ),
)


def cells(calibration: Calibration) -> list[list[str]]:
  """The table with a model a column; the names are the first row."""
  return [
    [column.heading, *(column.show(m) for m in calibration.models)]
    for column in COLUMNS
  ]


def text(calibration: Calibration, width: int = 100) -> str:
  """For a terminal: a fact a line and a model a column, and the verdicts."""
  rows = cells(calibration)
  widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
  lines = [calibration.heading, '']
  for number, row in enumerate(rows):
    padded = (cell.ljust(w) for cell, w in zip(row, widths, strict=True))
    lines.append('  '.join(padded).rstrip())
    if not number:
      lines.append('-' * (sum(widths) + 2 * len(widths) - 2))
  lines.append('')
  for note in calibration.notes:
    lines += textwrap.wrap(note, width, subsequent_indent='  ')
  return '\n'.join(lines) + '\n'


def markdown(calibration: Calibration) -> str:
  """The table as GitHub shows it."""
  lines = [
    f'# Calibration: {formats.escaped(calibration.heading)}',
    '',
    formats.markdown_row([column.heading for column in COLUMNS]),
    formats.markdown_row([':--'] + ['--:'] * (len(COLUMNS) - 1)),
  ]
  for model in calibration.models:
    row = [formats.escaped(column.show(model)) for column in COLUMNS]
    lines.append(formats.markdown_row(row))
  lines += ['', *(f'- {formats.escaped(n)}' for n in calibration.notes), '']
  lines += [f'- {column.heading}: {column.meaning}' for column in COLUMNS]
  return '\n'.join(lines) + '\n'


def csv(calibration: Calibration) -> str:
  """Every bin of every diagram, a line each, unrounded."""
  out = io.StringIO()
  writer = csv_lib.writer(out, lineterminator='\n')
  names = [field.name for field in dataclasses.fields(Bin)]
  writer.writerow(['model', 'temperature', 'ece', *names])
  for model in calibration.models:
    for reliability in (model.before, model.after):
      for each in reliability.bins:
        head = [model.name, reliability.temperature, reliability.ece]
        writer.writerow([*head, *(getattr(each, name) for name in names)])
  return out.getvalue()
