"""Where the words in a panel go, so that they hide neither points nor words.

Every text has a point that it belongs to. Of the places around that point it
gets the one that covers least: markers, lines and texts that are there
already, and what lies outside the panel. That is known in pixels alone, and
thus not before the layout is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
from typing import Any

# Offsets in points, and the text's corner or side that they lead to.
_AROUND = tuple(
  (dx * reach, dy * reach, across, upright)
  for reach in (1.0, 1.9, 3.0)
  for dx, dy, across, upright in (
    (0, 12, 'center', 'bottom'),
    (0, -12, 'center', 'top'),
    (12, 0, 'left', 'center'),
    (-12, 0, 'right', 'center'),
    (9, 9, 'left', 'bottom'),
    (-9, 9, 'right', 'bottom'),
    (9, -9, 'left', 'top'),
    (-9, -9, 'right', 'top'),
  )
)
_NEARER = 0.01  # Of a text's area that one place further costs.


@dataclasses.dataclass(frozen=True)
class Box:
  """A rectangle in pixels, and how bad it is to cover it."""

  left: float
  low: float
  right: float
  high: float
  weight: float = 1.0

  def shared(self, other: Box) -> float:
    """Area that both cover."""
    width = min(self.right, other.right) - max(self.left, other.left)
    height = min(self.high, other.high) - max(self.low, other.low)
    return max(width, 0.0) * max(height, 0.0)

  @property
  def area(self) -> float:
    return (self.right - self.left) * (self.high - self.low)


@dataclasses.dataclass(frozen=True)
class Label:
  """A text beside a point of the panel, in the panel's coordinates."""

  text: str
  x: float
  y: float
  style: dict[str, Any]


def around(x: float, y: float, half: float, weight: float = 1.0) -> Box:
  """The box of a marker."""
  return Box(x - half, y - half, x + half, y + half, weight)


def along(
  points: Sequence[tuple[float, float]], half: float, weight: float
) -> list[Box]:
  """Boxes strung on the lines between points."""
  found = []
  for (x, y), (to_x, to_y) in zip(points, points[1:]):
    length = max(abs(to_x - x), abs(to_y - y))
    steps = max(1, int(length / (2 * half)))
    for i in range(1, steps):
      share = i / steps
      found.append(
        around(x + share * (to_x - x), y + share * (to_y - y), half, weight)
      )
  return found


def place(
  panel: Any, labels: Iterable[Label], taken: list[Box], renderer: Any
) -> None:
  """Writes the labels, the first ones where they like best.

  Args:
    panel: matplotlib's axes, laid out.
    labels: in the order of their importance.
    taken: what they should not cover; the labels' own boxes are added.
    renderer: of the canvas.
  """
  frame = _box(panel.get_window_extent(renderer))
  for label in labels:
    best = None
    for number, (dx, dy, across, upright) in enumerate(_AROUND):
      note = panel.annotate(
        label.text,
        (label.x, label.y),
        xytext=(dx, dy),
        textcoords='offset points',
        ha=across,
        va=upright,
        zorder=8,
        **label.style,
      )
      # The layout is done, and words are not to move it.
      note.set_in_layout(False)
      box = _box(note.get_window_extent(renderer))
      outside = box.area - box.shared(frame)
      cost = 3 * outside + sum(box.shared(t) * t.weight for t in taken)
      cost += _NEARER * number * box.area
      if best is None or cost < best[0]:
        if best is not None:
          best[1].remove()
        best = (cost, note, box)
      else:
        note.remove()
    if best is not None:
      taken.append(best[2])


def _box(extent: Any) -> Box:
  return Box(extent.x0, extent.y0, extent.x1, extent.y1)
