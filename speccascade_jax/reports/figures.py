"""Quality against latency, rejections and deferrals, as PNG.

One panel a temperature, one curve a method, its points in the order of alpha
(larger markers: larger alpha); where many curves would share a panel, every
gamma has one of its own. The verifier and the drafter alone are marked, the
verifier's quality is drawn through as a line, the quarter in which a method is
both faster and as good is shaded, and the operating point has a ring.

Bars are 95 % intervals, as far as there are replicates. Across is that of the
latency ratio; upright that of the difference to the verifier's quality, drawn
from the verifier's line: a bar that ends below the line is worse than the
verifier, whatever the examples. (Intervals of the quality itself are wider,
mostly by how hard the examples happen to be, which all runs share.) What of
this a figure has is said below it.
"""

from __future__ import annotations

import dataclasses
import io
import textwrap
from typing import Any

import matplotlib
from matplotlib import layout_engine
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure as Canvas
import matplotlib.lines

from speccascade_jax.reports import axes
from speccascade_jax.reports import panel as panel_lib
from speccascade_jax.reports import runs as runs_lib
from speccascade_jax.reports import series as series_lib
from speccascade_jax.reports import theme as theme_lib

_DPI = 160
_COLUMNS = 2
_PANEL_INCHES = (5.4, 4.1)
_ONLY_INCHES = 7.4  # Width of a panel that is the only one in its line.
_CURVES = 8  # More than that in a panel are hard to tell apart.
_LEGEND_INCHES, _NOTE_INCHES = 0.225, 0.17  # Height of a line.
_LETTERS_PER_INCH = 14.5  # Of the notes, at least.


@dataclasses.dataclass(frozen=True)
class Mark:
  """A drawn run: its place in fractions of the picture, from top left."""

  x: float
  y: float
  run: runs_lib.Run


@dataclasses.dataclass(frozen=True)
class Figure:
  """A picture and what is where in it."""

  png: bytes
  width: int  # Pixels.
  height: int
  marks: tuple[Mark, ...]


def quality_vs_latency(sweep: runs_lib.Sweep, dark: bool = False) -> Figure:
  """Primary metric against relative latency; faster is to the left."""
  return _draw(sweep, axes.LATENCY, dark)


def quality_vs_rejection_rate(
  sweep: runs_lib.Sweep, dark: bool = False
) -> Figure:
  """Primary metric against rejection rate; cheaper is to the left."""
  return _draw(sweep, axes.REJECTION, dark)


def quality_vs_deferral_rate(
  sweep: runs_lib.Sweep, dark: bool = False
) -> Figure:
  """Primary metric against deferral rate; what the rule alone decides."""
  return _draw(sweep, axes.DEFERRAL, dark)


def _contents(
  sweep: runs_lib.Sweep,
) -> tuple[list[panel_lib.Content], int, bool]:
  """Panels in the order of reading, how many to a line, and if by gamma."""
  groups = sweep.groups()
  curves = [series_lib.of_group(group, sweep) for group in groups]
  gammas = sorted({run.gamma for run in sweep.runs if run.gamma is not None})
  if len(gammas) < 2 or max(map(len, curves)) <= _CURVES:
    panels = [
      panel_lib.Content(g.title, g, c)
      for g, c in zip(groups, curves, strict=True)
    ]
    return panels, min(_COLUMNS, len(panels)), False
  split = [
    panel_lib.Content(
      f'{group.title}, gamma {gamma}',
      group,
      series_lib.of_group(group, sweep, gamma),
    )
    for group in groups
    for gamma in gammas
  ]
  return split, min(len(gammas), _COLUMNS + 1), True


def _draw(sweep: runs_lib.Sweep, axis: axes.Axis, dark: bool) -> Figure:
  theme = theme_lib.DARK if dark else theme_lib.LIGHT
  contents, columns, by_gamma = _contents(sweep)
  rows = -(-len(contents) // columns)
  with matplotlib.rc_context(theme.settings()):
    canvas = Canvas(
      dpi=_DPI,
      layout=layout_engine.ConstrainedLayoutEngine(
        w_pad=0.12, h_pad=0.1, wspace=0.03
      ),
    )
    agg = backend_agg.FigureCanvasAgg(canvas)
    full = len(contents) == rows * columns
    panels = list(
      canvas.subplots(
        rows,
        columns,
        squeeze=False,
        # Panels for several gammas are there to be compared.
        sharey='row' if by_gamma and full else False,
      ).flat
    )
    drawn = [
      panel_lib.draw(panel, content, sweep.primary_metric, axis, theme)
      for panel, content in zip(panels, contents)
    ]
    for panel in panels[len(contents) :]:
      panel.remove()
    width = _PANEL_INCHES[0] * columns if columns > 1 else _ONLY_INCHES
    below = _below(canvas, width, contents, drawn, axis, theme)
    canvas.set_size_inches(width, _PANEL_INCHES[1] * rows + below)
    canvas.draw_without_rendering()
    # From here on everything stays where it is.
    canvas.set_layout_engine('none')
    for one in drawn:
      panel_lib.finish(one, theme, agg.get_renderer())
    out = io.BytesIO()
    canvas.savefig(out, format='png', metadata={'Software': None})
    pixels, height = agg.get_width_height()
    marks = tuple(_marks(drawn, pixels, height))
  return Figure(out.getvalue(), pixels, height, marks)


def _marks(drawn, width, height):
  for one in drawn:
    for spot in one.spots:
      x, y = one.axes.transData.transform((spot.x, spot.y))
      yield Mark(x / width, 1 - y / height, spot.run)


def _below(canvas, width, contents, drawn, axis, theme) -> float:
  """Legend and notes below the panels; returns their height [inches]."""
  shown = {spot.run.key for one in drawn for spot in one.spots}
  entries: dict[str, Any] = {}
  for curve in (curve for content in contents for curve in content.curves):
    known = [run for run in curve.runs if run.key in shown]
    if known:
      entries.setdefault(curve.name, _handle(curve, len(known) > 1, theme))
  if not entries:
    return 0.0
  inches = 0.9 + 0.085 * max(map(len, entries))
  fitting = max(1, min(len(entries), int(width / inches)))
  notes = textwrap.wrap(
    ' '.join(_notes(contents, drawn, axis)), int(width * _LETTERS_PER_INCH)
  )
  legend = canvas.legend(
    entries.values(),
    entries.keys(),
    loc='outside lower center',
    ncols=fitting,
    frameon=False,
    handlelength=2.6,
    columnspacing=1.8,
    title='\n'.join(notes),
    title_fontsize=9,
  )
  legend.get_title().set_color(theme.faint)
  legend.get_title().set_multialignment('center')
  lines = -(-len(entries) // fitting)
  return 0.3 + _LEGEND_INCHES * lines + _NOTE_INCHES * len(notes)


def _handle(curve, joined, theme) -> Any:
  """For the legend alone."""
  return matplotlib.lines.Line2D(
    [],
    [],
    color=theme.colour(curve.style),
    ls=curve.style.line if joined else '',
    marker=curve.style.marker,
    ms=7,
    **theme.face(curve.style),
  )


def _notes(contents, drawn, axis) -> list[str]:
  """How to read what is in the figure, a sentence each."""
  runs = [spot.run for one in drawn for spot in one.spots]
  verifier = any(content.group.verifier for content in contents)
  found = [
    'Along a curve the markers grow with alpha; points that coincide are drawn '
    'one around the other.'
  ]
  if verifier:
    found.append('Dashed line: quality of the verifier alone.')
  if verifier and axis.faster:
    found.append('Shaded: faster, and as good.')
  if any(one.ring for one in drawn):
    found.append(
      "Ring: the fastest run at the verifier's quality or better, by the wall "
      'clock.'
    )
  across = any(axis.interval(run) for run in runs)
  upright = any(run.replicates for run in runs)
  if across or upright:
    parts = ['across, of the relative latency'] if across else []
    if upright:
      parts.append(
        "upright, of the difference to the verifier's quality, drawn from the "
        'dashed line'
        if verifier
        else 'upright, of the quality'
      )
    found.append(f'Bars: 95 % intervals; {"; ".join(parts)}.')
  return found
