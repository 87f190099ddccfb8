"""Static arguments: equal settings must be equal under jit.

jax.jit keeps one program for each value of a static argument, by its hash and
equality. What a caller may write in several ways (NumPy's integers, a
`functools.partial` made anew at each call) is brought into one form here.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import operator
from typing import Any


def positive_integer(name: str, value: Any) -> int:
  """`value` of any integral type but bool, as an int of 1 or more.

  Raises:
    ValueError: if it is not; names the argument and the value.
  """
  try:
    number = 0 if isinstance(value, bool) else operator.index(value)
  except TypeError:
    number = 0
  if number < 1:
    raise ValueError(f'{name} must be a positive integer, got {value!r}.')
  return number


def function(value: Callable[..., Any]) -> Callable[..., Any]:
  """The same function; partials of equal contents become equal.

  A `functools.partial` is equal to itself alone, so one that is written
  inline would be compiled again at every call. One with an argument that
  cannot be hashed, such as an array, stays as it is.
  """
  if not isinstance(value, functools.partial):
    return value
  partial = _Partial(function(value.func), *value.args, **value.keywords)
  try:
    hash(partial)
  except TypeError:
    return value
  return partial


class _Partial(functools.partial):
  """A partial that is compared by what it holds."""

  def _contents(self) -> tuple:
    named = sorted(self.keywords.items())
    # 1 == 1.0 == True, but a function may tell them apart.
    types = [type(x) for x in (*self.args, *(x for _, x in named))]
    return self.func, self.args, tuple(named), tuple(types)

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, _Partial):
      return NotImplemented
    return self._contents() == other._contents()

  def __hash__(self) -> int:
    return hash(self._contents())
