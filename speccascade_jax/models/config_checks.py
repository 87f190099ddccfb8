"""What the fields of a model's config may be.

A config may come from a file that claims anything: each field is refused by
its name and value, before memory is spent on what it says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
import math
from typing import Any

# Every layer is traced, and indices have 32 bits.
MOST_LAYERS = 1000
LARGEST = 2**31 - 1


def refuse(config: Any, field: str, wanted: str) -> None:
  """Raises a ValueError that names the field and its value."""
  value = getattr(config, field)
  raise ValueError(
    f'{type(config).__name__}.{field} must be {wanted}, got {value!r:.80}.'
  )


def size(config: Any, field: str, least: int = 1, most: int = LARGEST) -> None:
  """An integer from `least` to `most`; True is none."""
  value = getattr(config, field)
  if not isinstance(value, int) or isinstance(value, bool) or value < least:
    wanted = 'a positive integer' if least == 1 else f'an integer from {least}'
    refuse(config, field, wanted)
  if value > most:
    refuse(config, field, f'at most {most}')


def sizes(config: Any, fields: Iterable[str]) -> None:
  """Lengths of axes, and numbers of layers."""
  for field in fields:
    size(
      config,
      field,
      most=MOST_LAYERS if field.endswith('_layers') else LARGEST,
    )


def positive(config: Any, field: str, optional: bool = False) -> None:
  """A finite number above 0, or None where it is optional."""
  value = getattr(config, field)
  if value is None and optional:
    return
  if not _is_number(value) or not value > 0:
    refuse(config, field, 'a finite number, above 0')


def rate(config: Any, field: str) -> None:
  """A number in [0, 1)."""
  value = getattr(config, field)
  if not _is_number(value) or not 0.0 <= value < 1.0:
    refuse(config, field, 'in [0, 1)')


def flag(config: Any, field: str) -> None:
  """True or False."""
  if not isinstance(getattr(config, field), bool):
    refuse(config, field, 'True or False')


def chosen(config: Any, field: str, known: Collection[str]) -> None:
  """One or more of the known; a list becomes a tuple, which is hashable.

  JSON and gin hand over lists.
  """
  value = getattr(config, field)
  if (
    not isinstance(value, (list, tuple))
    or not value
    or any(not isinstance(x, str) or x not in known for x in value)
  ):
    names = ', '.join(map(repr, known))
    refuse(config, field, f'a list of one or more of {names}')
  object.__setattr__(config, field, tuple(value))


def compute_dtype(config: Any) -> None:
  """Of activations: float16 overflows in T5, and in Gemma's residuals."""
  if config.dtype not in ('float32', 'bfloat16'):
    refuse(config, 'dtype', "'float32' or 'bfloat16' (float16 overflows)")


def _is_number(value: Any) -> bool:
  if not isinstance(value, (int, float)) or isinstance(value, bool):
    return False
  try:
    return math.isfinite(value)
  except OverflowError:  # An integer that no float can hold.
    return False
