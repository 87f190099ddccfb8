"""Reliability diagrams, as PNG: how often a model is right that says so.

Four panels: drafter and verifier, before and after. A marker is a bin of
confidence, its area the bin's share of all tokens. On the diagonal a model is
right as often as it says; the line from a marker to it is what the bin
contributes to the expected calibration error.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import io
import textwrap
from typing import Any

import matplotlib
from matplotlib import layout_engine
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure as Canvas

from speccascade_jax.reports import calibrations
from speccascade_jax.reports import theme as theme_lib

_DPI = 160
_PANEL_INCHES = 4.7
_NOTE_INCHES = 0.55
_AREA = 620.0  # Of the marker of a bin with all tokens [points^2].
_LEAST_AREA = 7.0  # What is still seen.
# (light, dark): above the diagonal, and below it.
_UNSURE = ('#0072b2', '#4ba3e0')
_OVERSURE = ('#d55e00', '#ff7a33')
_NOTE = (
  'A marker is a bin of confidence, its area the share of all tokens in it. '
  'On the dashed line a model is right as often as it says; upright lines are '
  'what bins contribute to the expected calibration error (ECE).'
)


@dataclasses.dataclass(frozen=True)
class Mark:
  """A drawn bin: its place in fractions of the picture, from top left."""

  x: float
  y: float
  tip: str


@dataclasses.dataclass(frozen=True)
class Diagram:
  """A picture and what is where in it."""

  png: bytes
  width: int  # Pixels.
  height: int
  marks: tuple[Mark, ...]


def draw(calibration: calibrations.Calibration, dark: bool = False) -> Diagram:
  """The diagrams of a calibration, models across, before above after."""
  theme = theme_lib.DARK if dark else theme_lib.LIGHT
  models = calibration.models
  width = _PANEL_INCHES * len(models)
  with matplotlib.rc_context(theme.settings()):
    canvas = Canvas(
      figsize=(width, 2 * _PANEL_INCHES + _NOTE_INCHES),
      dpi=_DPI,
      layout=layout_engine.ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1),
    )
    agg = backend_agg.FigureCanvasAgg(canvas)
    panels = canvas.subplots(2, len(models), squeeze=False)
    drawn = []
    for column, model in enumerate(models):
      before = f'{model.name.capitalize()}, as it is'
      after = f'{model.name.capitalize()}, at temperature {model.temperature:g}'
      for row, title, reliability in (
        (0, before, model.before),
        (1, after, model.after),
      ):
        panel = panels[row, column]
        panel.set_title(title)
        _panel(panel, reliability, theme)
        drawn.append((panel, reliability))
      panels[1, column].set_xlabel('Probability of the likeliest token')
    for row in range(2):
      panels[row, 0].set_ylabel("It is the reference's")
    note = '\n'.join(textwrap.wrap(_NOTE, int(width * 12.5)))
    canvas.supxlabel(note, fontsize=9, color=theme.faint)
    canvas.draw_without_rendering()
    canvas.set_layout_engine('none')
    out = io.BytesIO()
    canvas.savefig(out, format='png', metadata={'Software': None})
    pixels, height = agg.get_width_height()
    marks = tuple(_marks(drawn, pixels, height))
  return Diagram(out.getvalue(), pixels, height, marks)


def _panel(
  panel: Any, reliability: calibrations.Reliability, theme: theme_lib.Theme
) -> None:
  panel.plot([0, 1], [0, 1], color=theme.faint, lw=1, ls=(0, (5, 3)), zorder=1)
  for each in reliability.bins:
    if each.confidence is None or each.accuracy is None:
      continue
    over = each.confidence > each.accuracy
    colour = (_OVERSURE if over else _UNSURE)[theme.dark]
    panel.plot(
      [each.confidence] * 2,
      [each.confidence, each.accuracy],
      color=colour,
      lw=1.6,
      alpha=0.7,
      zorder=2,
    )
    panel.scatter(
      each.confidence,
      each.accuracy,
      s=max(_LEAST_AREA, _AREA * each.tokens / reliability.tokens),
      color=colour,
      edgecolor=theme.page,
      linewidth=0.7,
      zorder=3,
    )
  panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect='equal')
  ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
  for axis in (panel.xaxis, panel.yaxis):
    axis.set_ticks(ticks, [f'{100 * t:g} %' for t in ticks])
  panel.grid(True)
  lines = [
    f'ECE {calibrations.ece(reliability)}',
    f'sure {100 * reliability.confidence:.1f} %, '
    f'right {100 * reliability.accuracy:.1f} %',
    f'{reliability.surprisal:.3f} nats a token',
  ]
  panel.text(
    *(0.03, 0.97, '\n'.join(lines)),
    transform=panel.transAxes,
    va='top',
    linespacing=1.5,
    path_effects=theme.halo(),
    zorder=4,
  )
  words: dict[str, Any] = dict(
    transform=panel.transAxes, fontsize=9, path_effects=theme.halo(), zorder=4
  )
  panel.text(
    *(0.97, 0.04, 'surer than right'),
    ha='right',
    color=_OVERSURE[theme.dark],
    **words,
  )
  panel.text(
    *(0.03, 0.68, 'righter than sure'), color=_UNSURE[theme.dark], **words
  )


def _marks(drawn, width, height) -> Iterator[Mark]:
  for panel, reliability in drawn:
    for each in reliability.bins:
      if each.confidence is None:
        continue
      x, y = panel.transData.transform((each.confidence, each.accuracy))
      tip = '\n'.join(
        [
          f'{100 * each.low:.1f} to {100 * each.high:.1f} %',
          f'{each.tokens} tokens',
          f'sure {100 * each.confidence:.1f} %',
          f'right {100 * each.accuracy:.1f} %',
        ]
      )
      yield Mark(x / width, 1 - y / height, tip)
