"""The one error that reading a checkpoint ends in."""

from __future__ import annotations

from collections.abc import Sequence


class CheckpointError(ValueError):
  """A checkpoint that cannot be used; says which file, and what is wrong."""


def first(names: Sequence[str], count: int = 3) -> str:
  """The first few of many names, for a message."""
  more = f' and {len(names) - count} more' if len(names) > count else ''
  return ', '.join(names[:count]) + more
