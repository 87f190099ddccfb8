"""A sweep as one HTML page that needs nothing else, not even a network."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
import functools
import json
from typing import Any

import jinja2

from speccascade_jax.reports import caveats
from speccascade_jax.reports import columns
from speccascade_jax.reports import expected as expected_lib
from speccascade_jax.reports import expected_tables
from speccascade_jax.reports import figures as figures_lib
from speccascade_jax.reports import formats
from speccascade_jax.reports import headline
from speccascade_jax.reports import headline_tables
from speccascade_jax.reports import operating_point
from speccascade_jax.reports import runs as runs_lib
from speccascade_jax.reports import series as series_lib
from speccascade_jax.reports import tables

_EXAMPLES = 6
# Name of the picture's file -> its title and how it is drawn.
_FIGURES: Mapping[str, tuple[str, Callable[..., figures_lib.Figure]]] = {
  'quality_vs_latency': (
    'Quality against latency',
    figures_lib.quality_vs_latency,
  ),
  'quality_vs_rejection_rate': (
    'Quality against rejection rate',
    figures_lib.quality_vs_rejection_rate,
  ),
  'quality_vs_deferral_rate': (
    'Quality against deferral rate',
    figures_lib.quality_vs_deferral_rate,
  ),
}


def figures(sweep: runs_lib.Sweep) -> dict[str, figures_lib.Figure]:
  """The page's pictures, not the dark ones, by the names of their files."""
  return {name: draw(sweep) for name, (_, draw) in _FIGURES.items()}


@functools.cache
def environment() -> jinja2.Environment:
  """The templates of the package; every value is escaped."""
  return jinja2.Environment(
    loader=jinja2.PackageLoader('speccascade_jax.reports'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )


def render(
  sweep: runs_lib.Sweep,
  rows: Sequence[headline.Row] | None = None,
  beside: expected_lib.Beside | None = None,
  drawn: Mapping[str, figures_lib.Figure] | None = None,
) -> str:
  """The page: operating points, figures, tables, texts and circumstances.

  Args:
    sweep: the runs.
    rows: of the headline table, if they have been computed already.
    beside: published figures to compare with.
    drawn: `figures` of the sweep, if they have been drawn already.
  """
  drawn = figures(sweep) if drawn is None else drawn
  metric = sweep.primary_metric
  points = [operating_point.find(g, metric) for g in sweep.groups()]
  shown = columns.of_sweep(sweep)
  rows = headline.find(sweep) if rows is None else rows
  return (
    environment()
    .get_template('sweep.html')
    .render(
      header=sweep.header,
      heading=tables.heading(sweep),
      metric=formats.metric_name(metric),
      points=[_headline(point, metric) for point in points],
      headline=_headline_groups(points, rows, metric),
      headline_notes=headline_tables.notes(rows),
      beside=_beside(beside),
      figures=[
        _figure(title, drawn[name], draw(sweep, dark=True), sweep)
        for name, (title, draw) in _FIGURES.items()
      ],
      columns=shown,
      groups=[_group(point, shown, sweep) for point in points],
      marks=tables.MARKS,
      texts=_texts(sweep, points),
      caveats=caveats.truncated(sweep)
      + caveats.timed_apart(sweep)
      + caveats.without_interval(sweep),
      unfinished=caveats.unfinished(sweep),
      circumstances=_circumstances(sweep),
      signatures=_signatures(sweep),
      operative_config=sweep.operative_config,
    )
  )


def _headline(
  point: operating_point.OperatingPoint, metric: str
) -> dict[str, Any]:
  """A card: the figure to remember, and the run behind it."""
  name = formats.metric_name(metric)
  run, best = point.fastest, point.best
  card = {
    'title': point.group.title,
    'speedup': None,
    'key': None,
    'sentence': operating_point.sentence(point, name),
    'best': None,
  }
  if run is not None:
    card |= {
      'speedup': f'{point.speedup:.2f}\N{MULTIPLICATION SIGN}',
      'key': run.key,
      'sentence': (
        f'{operating_point.describe(run)}: {name} {run.quality[metric]:.2f}, '
        f'the verifier alone {point.reference:.2f}'
      ),
    }
  if best is not None:
    card['best'] = (
      f"Best within the verifier's time: {operating_point.describe(best)}, "
      f'{name} {best.quality[metric]:.2f} at {best.relative_latency:.2f} of it'
    )
  return card


def _beside(beside: expected_lib.Beside | None) -> dict[str, Any] | None:
  """The published figures' table."""
  if beside is None:
    return None
  rows, sources = expected_tables.table(beside)
  return {
    'title': expected_tables.title(beside),
    'headings': expected_tables.HEADINGS,
    'rows': rows,
    'notes': [f'({n}) {source}' for n, source in enumerate(sources, 1)]
    + [expected_tables.note(beside)],
  }


def _headline_groups(
  points: list[operating_point.OperatingPoint],
  rows: Sequence[headline.Row],
  metric: str,
) -> list[dict[str, Any]]:
  """The headline table's cells, by group."""
  name = formats.metric_name(metric)
  found = []
  for point in points:
    of_group = [r for r in rows if r.group.title == point.group.title]
    if not of_group:
      continue
    clocks = headline.clocks_of(of_group)
    found.append(
      {
        'title': point.group.title,
        'reference': f'{name} {of_group[0].reference:.2f}',
        'clocks': [headline.CLOCKS[clock] for clock in clocks],
        'headings': headline_tables.headings(clocks[:1], name, short=True),
        'rows': [
          [
            row.label,
            '-' if row.gamma is None else str(row.gamma),
            *(
              cell
              for clock in clocks
              for cell in headline_tables.cells(row, clock)
            ),
          ]
          for row in of_group
        ],
      }
    )
  return found


def _figure(
  title: str,
  light: figures_lib.Figure,
  dark: figures_lib.Figure,
  sweep: runs_lib.Sweep,
) -> dict[str, Any]:
  return {
    'title': title,
    'light': _embedded(light),
    'dark': _embedded(dark),
    'width': light.width,
    'height': light.height,
    'marks': [
      {
        'left': f'{100 * mark.x:.3f}%',
        'top': f'{100 * mark.y:.3f}%',
        'key': mark.run.key,
        'tip': _tip(mark.run, sweep),
      }
      for mark in light.marks
    ],
  }


def _embedded(figure: figures_lib.Figure) -> str:
  return 'data:image/png;base64,' + base64.b64encode(figure.png).decode()


def _tip(run: runs_lib.Run, sweep: runs_lib.Sweep) -> str:
  """What is said of a run on hover; one fact a line."""
  lines = [operating_point.describe(run), f'T {run.temperature:g}']
  lines += [
    f'{formats.metric_name(name)} {value:.2f}'
    for name, value in run.quality.items()
    if value is not None
  ]
  for value, form in (
    (run.relative_latency, "{:.2f} of the verifier's latency"),
    (run.modelled_relative_latency, '{:.2f} of it by the cost model'),
    (run.latency_ms_mean, '{:.1f} ms an example'),
    (run.rejection_rate, '{:.1%} rejected'),
    (run.deferral_rate, '{:.1%} deferred'),
    (run.block_efficiency, '{:.2f} tokens a verifier call'),
  ):
    if value is not None:
      lines.append(form.format(value))
  return '\n'.join(lines)


def _group(
  point: operating_point.OperatingPoint,
  shown: list[columns.Column],
  sweep: runs_lib.Sweep,
) -> dict[str, Any]:
  rows = []
  for run in point.group.runs:
    style = series_lib.style_of(run, sweep)
    values = [column.value(run) for column in shown]
    rows.append(
      {
        'key': run.key,
        'mark': tables.mark(run, point),
        'light': style.light,
        'dark': style.dark,
        'glyph': style.glyph,
        'tip': _tip(run, sweep),
        'cells': [
          # JSON sorts as it is; what is missing sorts last, see the script.
          {'text': column.show(run), 'value': json.dumps(value)}
          for column, value in zip(shown, values, strict=True)
        ],
      }
    )
  return {'title': point.group.title, 'rows': rows}


def _texts(
  sweep: runs_lib.Sweep, points: list[operating_point.OperatingPoint]
) -> list[dict[str, Any]]:
  """What the models wrote for the first examples, at the lowest temperature."""
  point = points[0]
  runs = {
    'Verifier': point.group.verifier,
    'Drafter': point.group.drafter,
  }
  chosen = point.fastest or point.best
  if chosen is not None:
    runs[operating_point.describe(chosen)] = chosen
  written = {
    name: runs_lib.predictions(sweep, run.key)
    for name, run in runs.items()
    if run is not None
  }
  return [
    {
      'source': example['source'],
      'rows': [('Reference', _as_text(example['target']))]
      + [(name, of.get(example['example'])) for name, of in written.items()],
    }
    for example in runs_lib.examples(sweep, _EXAMPLES)
  ]


def _as_text(target: Any) -> str:
  """A target is a text, or several that are all right."""
  return target if isinstance(target, str) else json.dumps(target)


def _circumstances(sweep: runs_lib.Sweep) -> dict[str, str]:
  header: Mapping[str, Any] = sweep.header
  known = {
    'Task': f'{header.get("task")}, split {header.get("split")}',
    'Pair': header.get('pair'),
    'Examples': header.get('num_examples'),
    'Seed': header.get('seed'),
    'Device': header.get('device'),
    'Host': header.get('host'),
    'Begun': header.get('created'),
    'Resumed': len(header.get('resumed') or []) or None,
    'Commit': header.get('commit'),
    'Versions': ', '.join(
      f'{name} {version}'
      for name, version in (header.get('versions') or {}).items()
    ),
    'Compile time': _compile_time(sweep),
    'Command': f'speccascade {header.get("command", "sweep")} '
    '--gin_file=operative_config.gin',
  }
  return {k: str(v) for k, v in known.items() if v not in (None, '')}


def _compile_time(sweep: runs_lib.Sweep) -> str | None:
  """Programs are shared by the runs of a curve; the longest is of interest."""
  times = [run.compile_s for run in sweep.runs if run.compile_s is not None]
  if not times:
    return None
  return f'at most {max(times):.1f} s a program, not part of any latency'


def _signatures(sweep: runs_lib.Sweep) -> dict[str, str]:
  return {
    formats.metric_name(name): signature
    for run in sweep.runs[:1]
    for name, signature in run.signatures.items()
  }
