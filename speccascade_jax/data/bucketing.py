"""Which examples share a batch: NumPy on lengths, no text in sight.

A batch has one of a few fixed shapes, so that a step compiles a few times and
little of a batch is padding. What an epoch looks like is a function of the
lengths, the seed and the number of the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
  """Widths of a batch, in tokens with the end of sequence."""

  inputs: int
  targets: int

  @property
  def cost(self) -> int:
    """Tokens of a row, padding included."""
    return self.inputs + self.targets

  def holds(self, sizes: np.ndarray) -> np.ndarray:
    """[N, 2] lengths of inputs and targets -> [N] whether an example fits."""
    return np.all(sizes <= np.array(self), axis=-1)


class Group(NamedTuple):
  """The examples of one batch, `rows` or fewer of them."""

  shape: Shape
  rows: int
  members: np.ndarray  # [n] indices of examples, n <= rows.


# Translation is as long on both sides, summarisation long on one. With these
# three quarters of the tokens of both Debian tasks are text (a test says 70 %).
# Batches of one shape hold 19 % at 128 by 128 for debian_en_de and 32 % at 256
# by 64 for debian_synopsis.
SHAPES = (
  Shape(16, 16),
  Shape(24, 32),
  Shape(32, 40),
  Shape(48, 64),
  Shape(64, 80),
  Shape(96, 128),
  Shape(48, 16),
  Shape(64, 16),
  Shape(80, 24),
  Shape(112, 24),
  Shape(160, 24),
  Shape(256, 32),
)


def fitting(shapes: Sequence[Shape], longest: Shape) -> tuple[Shape, ...]:
  """Those of `shapes` that `longest` holds, then `longest`; cheapest first.

  A shape that is too wide on one side is cut there.
  """
  cut = {Shape(*np.minimum(shape, longest).tolist()) for shape in shapes}
  return tuple(sorted(cut | {longest}, key=lambda shape: (shape.cost, shape)))


def rows_of(shape: Shape, batch_tokens: int, multiple_of: int) -> int:
  """Rows of a batch of about `batch_tokens` tokens, padding included.

  Args:
    shape: of the batch.
    batch_tokens: inputs and targets together.
    multiple_of: what the rows are rounded down to, and at least; the number
      of devices that share a batch, say.
  """
  return max(1, batch_tokens // (shape.cost * multiple_of)) * multiple_of


def pack(
  order: np.ndarray,
  sizes: np.ndarray,
  shapes: Sequence[Shape],
  rows: Sequence[int],
) -> list[Group]:
  """Puts every example of `order` into one batch.

  An example goes to the cheapest shape that holds it. What is left of a shape
  when its full batches are made goes on to the next shape that holds it, so
  that only batches of the last shape, or of none that is wider, are not full.

  Args:
    order: [n] indices of examples, in the order in which they are taken.
    sizes: [N, 2] lengths of inputs and targets of all examples.
    shapes: from cheap to dear; the last holds every example.
    rows: of a batch, one a shape.

  Returns:
    Batches, cheap shapes first.
  """
  wanted = sizes[order]
  fits = np.stack([shape.holds(wanted) for shape in shapes], axis=-1)  # [n, K]
  queue = fits.argmax(axis=-1)  # The first that fits.
  groups = []
  for k, (shape, full) in enumerate(zip(shapes, rows)):
    waiting = np.flatnonzero(queue == k)
    whole = len(waiting) - len(waiting) % full
    rest = waiting[whole:]
    if k + 1 < len(shapes):
      # The last shape holds all, so that there always is a next one.
      queue[rest] = k + 1 + fits[rest, k + 1 :].argmax(axis=-1)
      waiting = waiting[:whole]
    for start in range(0, len(waiting), full):
      members = order[waiting[start : start + full]]
      groups.append(Group(shape, full, members))
  return groups


def stream(
  size: int, start: int, count: int, entropy: Sequence[int]
) -> np.ndarray:
  """Positions `start` to `start + count` of endless shuffled passes.

  Pass after pass over `size` examples, each shuffled for itself. Any stretch
  of it can be had without what precedes it.

  Args:
    size: number of examples.
    start: first position.
    count: number of positions.
    entropy: seeds the shuffles; the number of the pass is added to it.

  Returns:
    [count] indices below `size`.
  """
  first, last = start // size, (start + count - 1) // size
  passes = [
    np.random.default_rng([*entropy, number]).permutation(size)
    for number in range(first, last + 1)
  ]
  return np.concatenate(passes)[start - first * size :][:count]
