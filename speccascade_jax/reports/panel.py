"""One panel of a figure: curves, intervals, the models alone, the ring.

Drawn in two turns. `draw` has the lines and sets the limits; when the figure
is laid out, `finish` adds the markers and the words, whose sizes and places
hang on how far apart things are in pixels. Points that coincide (at T = 0 many
methods write the same texts) are drawn one around the other, the largest
below, so that none is hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

from speccascade_jax.reports import axes
from speccascade_jax.reports import formats
from speccascade_jax.reports import intervals
from speccascade_jax.reports import labels
from speccascade_jax.reports import operating_point
from speccascade_jax.reports import runs as runs_lib
from speccascade_jax.reports import series as series_lib
from speccascade_jax.reports import theme as theme_lib

_SMALLEST, _LARGEST, _ALONE = 6.0, 10.0, 8.0  # Markers, in points.
_STAR, _PENTAGON, _RING = 17.0, 12.0, 17.0
_AROUND = 3.5  # A marker is larger than one that it is drawn around.
# Of a heap; what would be larger is hidden, rather than hide its neighbours.
_HEAP = 24.0
_COINCIDE = 4.0  # Points that are nearer, likewise in points.


@dataclasses.dataclass(frozen=True)
class Content:
  """What a panel shows."""

  title: str
  group: runs_lib.Group
  curves: Sequence[series_lib.Series]


@dataclasses.dataclass(frozen=True)
class Spot:
  """A run's marker."""

  x: float
  y: float
  run: runs_lib.Run
  style: series_lib.Style
  size: float


@dataclasses.dataclass
class Drawn:
  """What `draw` leaves for `finish`."""

  axes: Any
  spots: list[Spot]
  lines: list[list[tuple[float, float]]]
  names: list[labels.Label]
  ring: Spot | None = None


def draw(
  panel: Any,
  content: Content,
  metric: str,
  axis: axes.Axis,
  theme: theme_lib.Theme,
) -> Drawn:
  """Lines, intervals, limits and headings; all that the layout hangs on."""
  group = content.group
  drawn, heights = Drawn(panel, [], [], []), []
  panel.set_title(content.title)
  panel.set_xlabel(axis.label)
  panel.set_ylabel(f'{formats.metric_name(metric)} (larger is better)')
  for curve in content.curves:
    spots = _spots(curve, metric, axis)
    line = [(spot.x, spot.y) for spot in spots]
    if line:
      xs, ys = zip(*line)
      colour = theme.colour(curve.style)
      panel.plot(xs, ys, curve.style.line, color=colour, lw=1.6, zorder=3)
      heights += _bars(panel, curve, spots, axis, theme, group, metric)
      drawn.spots += spots
      drawn.lines.append(line)
  _alone(drawn, group, metric, axis, theme)
  if not drawn.spots:
    panel.text(
      0.5, 0.5, 'nothing measured', ha='center', transform=panel.transAxes
    )
    return drawn
  _frame(drawn, heights, group, metric, axis, theme)
  point = operating_point.find(group, metric)
  for spot in drawn.spots:
    if point.fastest is not None and spot.run.key == point.fastest.key:
      drawn.ring = spot
      style = _written(theme, theme.ink)
      text = f'{point.speedup:.2f}x faster'
      drawn.names.insert(0, labels.Label(text, spot.x, spot.y, style))
  return drawn


def finish(drawn: Drawn, theme: theme_lib.Theme, renderer: Any) -> None:
  """Markers and words, on a panel that has its final place and limits."""
  panel, pixels = drawn.axes, renderer.points_to_pixels(1.0)

  def place(x, y):
    return tuple(panel.transData.transform((x, y)))

  taken = []
  for line in drawn.lines:
    at = [place(x, y) for x, y in line]
    taken += labels.along(at, 3 * pixels, 0.3)
  at = [place(spot.x, spot.y) for spot in drawn.spots]
  sizes = stacked([s.size for s in drawn.spots], at, _COINCIDE * pixels)
  for spot, (x, y), size in zip(drawn.spots, at, sizes, strict=True):
    # The larger, the further below.
    panel.plot(
      *(spot.x, spot.y, spot.style.marker),
      ms=size,
      zorder=5 - size / 100,
      **theme.face(spot.style),
    )
    taken.append(labels.around(x, y, size / 2 * pixels))
  if drawn.ring is not None:
    ring, size = drawn.ring, sizes[drawn.spots.index(drawn.ring)]
    size = max(_RING, size + 6)
    panel.plot(
      *(ring.x, ring.y, 'o'), ms=size, mfc='none', mec=theme.ink, mew=1.3,
      zorder=6, alpha=0.9,
    )  # fmt: skip
    x, y = place(ring.x, ring.y)
    taken.append(labels.around(x, y, size / 2 * pixels))
  labels.place(panel, drawn.names, taken, renderer)


def stacked(
  sizes: Sequence[float], at: Sequence[tuple[float, float]], near: float
) -> list[float]:
  """Marker sizes at which the markers of a heap can be seen, the first few.

  Args:
    sizes: as they would be apart from each other.
    at: the markers' places.
    near: markers at most this far apart, across and upright, coincide.

  Returns:
    The smallest marker of a heap keeps its size; each that is drawn around
    another is larger than that one, as far as there is room.
  """
  found = list(sizes)
  order = sorted(range(len(sizes)), key=lambda i: sizes[i])
  for number, i in enumerate(order):
    inside = [
      found[j]
      for j in order[:number]
      if max(abs(at[i][0] - at[j][0]), abs(at[i][1] - at[j][1])) <= near
    ]
    if inside:
      found[i] = max(found[i], min(max(inside) + _AROUND, _HEAP))
  return found


def _spots(curve, metric, axis) -> list[Spot]:
  known = [
    (axis.value(run), run.quality[metric], run)
    for run in curve.runs
    if None not in (axis.value(run), run.quality.get(metric))
  ]
  last = len(known) - 1
  return [
    Spot(
      *(x, y, run, curve.style),
      size=_SMALLEST + (_LARGEST - _SMALLEST) * i / last if last else _ALONE,
    )
    for i, (x, y, run) in enumerate(known)
  ]


def _bars(panel, curve, spots, axis, theme, group, metric) -> list[float]:
  """Draws the intervals; returns the heights of their ends."""
  heights: list[float] = []
  line: dict[str, Any] = dict(
    color=theme.colour(curve.style), lw=1, alpha=0.4, zorder=2
  )
  verifier, name = group.verifier, f'quality.{metric}'
  reference = verifier and verifier.quality.get(metric)
  for spot in spots:
    across = axis.interval(spot.run)
    if across is not None:
      panel.plot([across.low, across.high], [spot.y, spot.y], **line)
    if verifier is None or reference is None:
      upright = spot.run.interval(name)
    else:
      upright = intervals.difference(
        spot.run.replicates.get(name), verifier.replicates.get(name)
      )
    if upright is not None:
      ends = [upright.low + (reference or 0), upright.high + (reference or 0)]
      panel.plot([spot.x, spot.x], ends, **line)
      heights += ends
  return heights


def _alone(drawn, group, metric, axis, theme) -> None:
  """The verifier and the drafter alone, with their names."""
  for run, style, size, at, name in (
    (group.verifier, series_lib.VERIFIER, _STAR, axis.verifier_at, 'Verifier'),
    (group.drafter, series_lib.DRAFTER, _PENTAGON, axis.drafter_at, 'Drafter'),
  ):
    quality = run and run.quality.get(metric)
    if quality is None:
      continue
    colour = theme.colour(style)
    if name == 'Verifier':
      drawn.axes.axhline(quality, color=colour, lw=1, ls=(0, (5, 3)), zorder=1)
    x = axis.value(run)
    x = at if x is None else x
    written = _written(theme, colour)
    if x is not None:
      drawn.spots.append(Spot(x, quality, run, style, size))
      drawn.names.append(labels.Label(name, x, quality, written))
    elif name == 'Verifier':
      # It has no place on this axis; its line is named at the left end, where
      # nearly nothing is rejected and the curves are far below.
      drawn.axes.annotate(
        f'{name} alone',
        (0, quality),
        xycoords=('axes fraction', 'data'),
        xytext=(8, 4),
        textcoords='offset points',
        zorder=8,
        **written,
      )


def _written(theme, colour) -> dict[str, Any]:
  return dict(color=colour, fontweight='bold', path_effects=theme.halo())


def _frame(drawn, heights, group, metric, axis, theme) -> None:
  """Limits with room for the labels, the grid and the good quarter."""
  panel = drawn.axes
  reference = group.verifier and group.verifier.quality.get(metric)
  xs = [spot.x for spot in drawn.spots]
  ys = [spot.y for spot in drawn.spots] + heights
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
