"""Colours and type of the figures, on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

from matplotlib import patheffects

from speccascade_jax.reports import series as series_lib


@dataclasses.dataclass(frozen=True)
class Theme:
  """What is not a curve's own."""

  dark: bool
  page: str
  ink: str
  faint: str
  grid: str
  good: str  # Of the quarter that is faster and as good,
  good_ink: str  # and of its name.

  def colour(self, style: series_lib.Style) -> str:
    """A curve's colour on this page."""
    return style.dark if self.dark else style.light

  def face(self, style: series_lib.Style) -> dict[str, Any]:
    """A marker's colours; the edge sets it off from those it lies on."""
    colour = self.colour(style)
    if style.hollow:
      return dict(mfc=self.page, mec=colour, mew=1.5)
    return dict(mfc=colour, mec=self.page, mew=0.7)

  def halo(self) -> Sequence[Any]:
    """For text that lies on lines."""
    return [patheffects.withStroke(linewidth=3, foreground=self.page)]

  def settings(self) -> dict[str, Any]:
    """For `matplotlib.rc_context`."""
    return {
      'font.family': 'DejaVu Sans',  # Comes with matplotlib.
      'font.size': 10,
      'text.color': self.ink,
      'figure.facecolor': self.page,
      'savefig.facecolor': self.page,
      'axes.facecolor': self.page,
      'axes.edgecolor': self.faint,
      'axes.labelcolor': self.ink,
      'axes.titleweight': 'bold',
      'axes.titlesize': 11.5,
      'axes.titlelocation': 'left',
      'axes.spines.top': False,
      'axes.spines.right': False,
      'axes.axisbelow': True,
      'grid.color': self.grid,
      'grid.linewidth': 0.8,
      'xtick.color': self.faint,
      'ytick.color': self.faint,
      'xtick.labelcolor': self.ink,
      'ytick.labelcolor': self.ink,
      'legend.labelcolor': self.ink,
    }


LIGHT = Theme(
  *(False, '#ffffff', '#1d2733', '#66717e', '#e6eaee', '#e9f5f0', '#0b7a5b')
)
DARK = Theme(
  *(True, '#161b22', '#eef2f6', '#a3aebb', '#2b333d', '#16302a', '#58c9a5')
)
