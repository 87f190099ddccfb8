"""The sequential sampler that every method has to agree with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Text = tuple[int, ...]


def sequential_law(
  next_dist: Callable[[Text], Sequence[float]],
  length: int,
  eos: int | None = None,
) -> dict[Text, float]:
  """The law of a text that is sampled one token at a time.

  Args:
    next_dist: `x_<t -> law [V] of x_t`, given the tokens emitted so far.
    length: texts end here at the latest.
    eos: a text ends behind this token as well; None if there is no such token.

  Returns:
    The probability of every finished text that has one above zero.
  """
  law: dict[Text, float] = {}
  unfinished: dict[Text, float] = {(): 1.0}
  while unfinished:
    longer: dict[Text, float] = {}
    for prefix, mass in unfinished.items():
      for token, chance in enumerate(next_dist(prefix)):
        if chance <= 0.0:
          continue
        text = (*prefix, token)
        finished = token == eos or len(text) == length
        (law if finished else longer)[text] = mass * float(chance)
    unfinished = longer
  return law


def distance(a: dict[Text, float], b: dict[Text, float]) -> float:
  """The largest difference between two laws over texts."""
  return max(abs(a.get(x, 0.0) - b.get(x, 0.0)) for x in {*a, *b})
