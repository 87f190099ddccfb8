"""Quality against latency, rejections and deferrals, as PNG.

One panel a temperature, one curve a method, its points in the order of alpha
(larger markers: larger alpha); where many curves would share a panel, every
gamma has one of its own. The verifier and the drafter alone are marked, the
verifier's quality is drawn through as a line, and the quarter in which a
method is both faster and as good is shaded.

Bars are 95 % intervals, as far as there are replicates. Across is that of the
latency ratio; upright that of the difference to the verifier's quality, drawn
from the verifier's line: a bar that ends below the line is worse than the
verifier, whatever the examples. (Intervals of the quality itself are wider,
mostly by how hard the examples happen to be, which all runs share.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import io
from typing import Any

import matplotlib
from matplotlib import layout_engine
from matplotlib import patheffects
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure as Canvas
import matplotlib.lines

from speccascade_jax.reports import intervals
from speccascade_jax.reports import operating_point
from speccascade_jax.reports import runs as runs_lib
from speccascade_jax.reports import series as series_lib
from speccascade_jax.reports import tables

_DPI = 160
_COLUMNS = 2
_PANEL_INCHES = (5.4, 4.1)
_CURVES = 8  # More than that in a panel are hard to tell apart.


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


@dataclasses.dataclass(frozen=True)
class _Theme:
  dark: bool
  page: str
  ink: str
  faint: str
  grid: str
  good: str

  def colour(self, style: series_lib.Style) -> str:
    return style.dark if self.dark else style.light


_LIGHT = _Theme(False, '#ffffff', '#1d2733', '#66717e', '#e6eaee', '#e9f5f0')
_DARK = _Theme(True, '#161b22', '#eef2f6', '#a3aebb', '#2b333d', '#16302a')


@dataclasses.dataclass(frozen=True)
class _Axis:
  """What is on the horizontal axis."""

  value: Callable[[runs_lib.Run], float | None]
  label: str
  interval: Callable[[runs_lib.Run], intervals.Interval | None]
  drafter_at: float | None = None  # Where the drafter has no value itself.
  verifier_at: float | None = None
  percent: bool = False
  faster: bool = False  # Left of the verifier is faster.


def _latency_interval(run: runs_lib.Run) -> intervals.Interval | None:
  """By the bootstrap; for older sweeps by the standard error."""
  found = run.interval('relative_latency')
  if found is None and run.relative_latency and run.relative_latency_sem:
    spread = 1.96 * run.relative_latency_sem
    at = run.relative_latency
    found = intervals.Interval(at - spread, at + spread)
  return found


_LATENCY = _Axis(
  value=lambda run: run.relative_latency,
  label='Mean latency relative to the verifier alone (1 = as slow)',
  interval=_latency_interval,
  verifier_at=1.0,
  faster=True,
)
_REJECTION = _Axis(
  value=lambda run: run.rejection_rate,
  label='Rejection rate (% of the drafted tokens that were judged)',
  interval=lambda run: None,
  # Nobody judges the drafter alone, so nothing of it is rejected.
  drafter_at=0.0,
  percent=True,
)
_DEFERRAL = _Axis(
  value=lambda run: run.deferral_rate,
  label='Deferral rate (% of the output that the rule left to the verifier)',
  interval=lambda run: None,
  drafter_at=0.0,
  verifier_at=1.0,
  percent=True,
)


def quality_vs_latency(sweep: runs_lib.Sweep, dark: bool = False) -> Figure:
  """Primary metric against relative latency; faster is to the left."""
  return _draw(sweep, _LATENCY, _DARK if dark else _LIGHT)


def quality_vs_rejection_rate(
  sweep: runs_lib.Sweep, dark: bool = False
) -> Figure:
  """Primary metric against rejection rate; cheaper is to the left."""
  return _draw(sweep, _REJECTION, _DARK if dark else _LIGHT)


def quality_vs_deferral_rate(
  sweep: runs_lib.Sweep, dark: bool = False
) -> Figure:
  """Primary metric against deferral rate; what the rule alone decides."""
  return _draw(sweep, _DEFERRAL, _DARK if dark else _LIGHT)


@dataclasses.dataclass(frozen=True)
class _Contents:
  """What one panel shows."""

  title: str
  group: runs_lib.Group
  curves: list[series_lib.Series]


def _contents(sweep: runs_lib.Sweep) -> tuple[list[_Contents], int]:
  """The panels in the order of reading, and how many lie side by side."""
  groups = sweep.groups()
  curves = [series_lib.of_group(group, sweep) for group in groups]
  gammas = sorted({run.gamma for run in sweep.runs if run.gamma is not None})
  if len(gammas) < 2 or max(map(len, curves)) <= _CURVES:
    panels = [_Contents(g.title, g, c) for g, c in zip(groups, curves)]
    return panels, min(_COLUMNS, len(panels))
  split = [
    _Contents(
      f'{group.title}, gamma {gamma}',
      group,
      series_lib.of_group(group, sweep, gamma),
    )
    for group in groups
    for gamma in gammas
  ]
  return split, min(len(gammas), _COLUMNS + 1)


def _draw(sweep: runs_lib.Sweep, axis: _Axis, theme: _Theme) -> Figure:
  contents, columns = _contents(sweep)
  groups = [content.group for content in contents]
  rows = -(-len(contents) // columns)
  with matplotlib.rc_context(_settings(theme)):
    canvas = Canvas(
      figsize=(_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows + 0.8),
      dpi=_DPI,
      layout=layout_engine.ConstrainedLayoutEngine(
        w_pad=0.12, h_pad=0.1, wspace=0.03
      ),
    )
    agg = backend_agg.FigureCanvasAgg(canvas)
    # Panels for several gammas are there to be compared.
    split = len({group.title for group in groups}) < len(groups)
    panels = list(
      canvas.subplots(
        rows,
        columns,
        squeeze=False,
        sharey='row' if split and len(contents) == rows * columns else False,
      ).flat
    )
    placed: list[tuple[Any, float, float, runs_lib.Run]] = []
    entries: dict[str, Any] = {}
    for panel, content in zip(panels, contents):
      placed += _panel(panel, content, sweep, axis, theme, entries)
    for panel in panels[len(groups) :]:
      panel.remove()
    verifier = any(group.verifier for group in groups)
    sampled = any(run.replicates for run in sweep.runs)
    _legend(canvas, entries, theme, verifier, sampled)
    out = io.BytesIO()
    canvas.savefig(out, format='png', metadata={'Software': None})
    # Only now is the layout known, and with it where the points are.
    width, height = agg.get_width_height()
    marks = []
    for panel, x, y, run in placed:
      at = panel.transData.transform((x, y))
      marks.append(Mark(at[0] / width, 1 - at[1] / height, run))
  return Figure(out.getvalue(), width, height, tuple(marks))


def _panel(panel, content, sweep, axis, theme, entries):
  """Draws one panel; returns what was placed where."""
  metric, group = sweep.primary_metric, content.group
  placed, bars = [], []
  panel.set_title(content.title)
  panel.set_xlabel(axis.label)
  panel.set_ylabel(f'{tables.metric_name(metric)} (larger is better)')
  point = operating_point.find(group, metric)
  for curve in content.curves:
    known = [
      (axis.value(run), run.quality[metric], run)
      for run in curve.runs
      if None not in (axis.value(run), run.quality.get(metric))
    ]
    if known:
      line = _curve(panel, curve, known, axis, theme)
      bars += _bars(panel, curve, known, axis, theme, group, metric)
      entries.setdefault(curve.name, line)
      placed += [(panel, x, y, run) for x, y, run in known]
  placed += _references(panel, group, metric, axis, theme)
  if not placed:
    panel.text(
      0.5, 0.5, 'nothing measured', ha='center', transform=panel.transAxes
    )
    return placed
  _frame(panel, placed, bars, group, metric, axis, theme)
  drawn = {run.key for _, _, _, run in placed}
  if point.fastest is not None and point.fastest.key in drawn:
    _ring(panel, point, axis, theme)
  return placed


def _curve(panel, curve: series_lib.Series, known, axis: _Axis, theme: _Theme):
  colour = theme.colour(curve.style)
  xs, ys, runs = zip(*known)
  panel.plot(xs, ys, curve.style.line, color=colour, lw=1.6, zorder=3)
  for i, (x, y, _) in enumerate(known):
    # One point alone is of middling size.
    size = 6.0 + 4.0 * i / (len(known) - 1) if len(known) > 1 else 8.0
    face = _face(curve.style, theme)
    panel.plot(x, y, curve.style.marker, ms=size, zorder=4, **face)
  # For the legend alone.
  return matplotlib.lines.Line2D(
    [],
    [],
    color=colour,
    ls=curve.style.line if len(runs) > 1 else '',
    marker=curve.style.marker,
    ms=7,
    **_face(curve.style, theme),
  )


def _bars(panel, curve, known, axis, theme, group, metric):
  """Draws the intervals; returns the heights of their ends."""
  colour, heights = theme.colour(curve.style), []
  line: dict[str, Any] = dict(color=colour, lw=1, alpha=0.4, zorder=2)
  verifier = group.verifier
  reference = verifier and verifier.quality.get(metric)
  for x, y, run in known:
    across = axis.interval(run)
    if across is not None:
      panel.plot([across.low, across.high], [y, y], **line)
    if verifier is None or reference is None:
      upright = run.interval(f'quality.{metric}')
    else:
      upright = intervals.difference(
        run.replicates.get(f'quality.{metric}'),
        verifier.replicates.get(f'quality.{metric}'),
      )
    if upright is not None:
      ends = [upright.low + (reference or 0), upright.high + (reference or 0)]
      panel.plot([x, x], ends, **line)
      heights += ends
  return heights


def _face(style: series_lib.Style, theme: _Theme) -> dict[str, Any]:
  colour = theme.colour(style)
  if style.hollow:
    return dict(mfc=theme.page, mec=colour, mew=1.5)
  return dict(mfc=colour, mec=theme.page, mew=0.7)


def _references(panel, group, metric, axis: _Axis, theme: _Theme):
  """The verifier and the drafter alone, with their names beside them."""
  placed = []
  for run, style, at, name in (
    (group.verifier, series_lib.VERIFIER, axis.verifier_at, 'Verifier'),
    (group.drafter, series_lib.DRAFTER, axis.drafter_at, 'Drafter'),
  ):
    quality = run and run.quality.get(metric)
    if quality is None:
      continue
    colour = theme.colour(style)
    if name == 'Verifier':
      panel.axhline(quality, color=colour, lw=1, ls=(0, (5, 3)), zorder=1)
    x = axis.value(run)
    x = at if x is None else x
    if x is not None:
      placed.append((panel, x, quality, run))
    elif name == 'Verifier':
      # It has no place on this axis; its line is named at the left end, where
      # nearly nothing is rejected and the curves are far below.
      panel.annotate(
        f'{name} alone',
        (0, quality),
        xycoords=('axes fraction', 'data'),
        xytext=(8, 4),
        textcoords='offset points',
        color=colour,
        fontweight='bold',
        path_effects=_halo(theme),
        zorder=6,
      )
    if x is None:
      continue
    size = 17 if style.marker == '*' else 12  # A star is mostly points.
    panel.plot(
      x, quality, style.marker, color=colour, ms=size, mec=theme.page, zorder=5
    )
    panel.annotate(
      name,
      (x, quality),
      xytext=(0, -9) if name == 'Verifier' else (9, -3),
      textcoords='offset points',
      ha='center' if name == 'Verifier' else 'left',
      va='top' if name == 'Verifier' else 'center',
      color=colour,
      fontweight='bold',
      path_effects=_halo(theme),
      zorder=6,
    )
  return placed


def _frame(
  panel, placed, bars, group, metric, axis: _Axis, theme: _Theme
) -> None:
  """Limits with room for the labels, the grid and the good quarter."""
  reference = group.verifier and group.verifier.quality.get(metric)
  xs, ys = [p[1] for p in placed], [p[2] for p in placed] + bars
  if reference is not None:
    ys.append(reference)  # The line is to be seen, also where no point is.
  spread = max(ys) - min(ys) or max(1.0, abs(ys[0]) * 0.1)
  panel.set_ylim(min(ys) - 0.1 * spread, max(ys) + 0.14 * spread)
  right = max(xs) or 0.01
  panel.set_xlim(0 if not axis.percent else -0.03 * right, right * 1.08)
  panel.grid(True)
  if axis.percent:
    panel.xaxis.set_major_formatter(lambda x, _: f'{100 * x:g}')
  if reference is None or axis.verifier_at is None or not axis.faster:
    return
  panel.axvline(
    axis.verifier_at, color=theme.faint, lw=0.8, ls=(0, (1, 3)), zorder=1
  )
  panel.fill_between(
    [0, axis.verifier_at],
    reference,
    panel.get_ylim()[1],
    color=theme.good,
    lw=0,
    zorder=0,
  )
  panel.annotate(
    'faster, and as good',
    (0, 1),
    xycoords='axes fraction',
    xytext=(7, -7),
    textcoords='offset points',
    va='top',
    color=theme.colour(series_lib.Style('#0b7a5b', '#58c9a5', 'o')),
    fontsize=9,
  )


def _ring(panel, point, axis: _Axis, theme: _Theme) -> None:
  """Circles the operating point and says how much faster it is."""
  run = point.fastest
  x, y = axis.value(run), run.quality[point.metric]
  if x is None:
    return
  panel.plot(
    x, y, 'o', ms=17, mfc='none', mec=theme.ink, mew=1.3, zorder=5, alpha=0.9
  )
  panel.annotate(
    f'{point.speedup:.2f}x faster',
    (x, y),
    xytext=(0, 12),
    textcoords='offset points',
    ha='center',
    va='bottom',
    color=theme.ink,
    fontweight='bold',
    path_effects=_halo(theme),
    zorder=6,
  )


def _legend(
  canvas,
  entries: dict[str, Any],
  theme: _Theme,
  verifier: bool,
  sampled: bool,
) -> None:
  """All curves below the panels, as many in a line as fit."""
  if not entries:
    return
  entry_inches = 0.9 + 0.085 * max(map(len, entries))
  fitting = int(canvas.get_figwidth() / entry_inches)
  title = 'Along a curve the markers grow with alpha.'
  if verifier:
    title += ' Thin dashed line: quality of the verifier alone.'
  if sampled:
    title += (
      '\nBars: 95 % intervals, upright of the difference to the verifier.'
    )
  legend = canvas.legend(
    entries.values(),
    entries.keys(),
    loc='outside lower center',
    ncols=max(1, min(len(entries), fitting)),
    frameon=False,
    handlelength=2.6,
    columnspacing=1.8,
    title=title,
    title_fontsize=9,
  )
  legend.get_title().set_color(theme.faint)
  legend.get_title().set_multialignment('center')


def _halo(theme: _Theme) -> Sequence[Any]:
  return [patheffects.withStroke(linewidth=3, foreground=theme.page)]


def _settings(theme: _Theme) -> dict[str, Any]:
  return {
    'font.family': 'DejaVu Sans',  # Comes with matplotlib.
    'font.size': 10,
    'text.color': theme.ink,
    'figure.facecolor': theme.page,
    'savefig.facecolor': theme.page,
    'axes.facecolor': theme.page,
    'axes.edgecolor': theme.faint,
    'axes.labelcolor': theme.ink,
    'axes.titleweight': 'bold',
    'axes.titlesize': 11.5,
    'axes.titlelocation': 'left',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.axisbelow': True,
    'grid.color': theme.grid,
    'grid.linewidth': 0.8,
    'xtick.color': theme.faint,
    'ytick.color': theme.faint,
    'xtick.labelcolor': theme.ink,
    'ytick.labelcolor': theme.ink,
    'legend.labelcolor': theme.ink,
  }
