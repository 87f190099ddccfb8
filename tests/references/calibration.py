"""The expected calibration error, one position and one bin at a time."""

from __future__ import annotations

from collections.abc import Sequence
import math


def expected_error(
  confidences: Sequence[float], correct: Sequence[bool], bins: int
) -> float:
  """`sum_b n_b / N |accuracy_b - confidence_b|` over (b/bins, (b+1)/bins]."""
  error = 0.0
  for b in range(bins):
    low, high = b / bins, (b + 1) / bins
    inside = [
      (c, r)
      for c, r in zip(confidences, correct, strict=True)
      if low < c <= high or (b == 0 and c == 0.0)
    ]
    if inside:
      sure = math.fsum(c for c, _ in inside) / len(inside)
      right = sum(bool(r) for _, r in inside) / len(inside)
      error += len(inside) / len(confidences) * abs(right - sure)
  return error


def surprisal(logits: Sequence[float], token: int, temperature: float) -> float:
  """`-log softmax(logits / temperature)` of a token, in nats."""
  scaled = [x / temperature for x in logits]
  top = max(scaled)
  total = top + math.log(math.fsum(math.exp(x - top) for x in scaled))
  return total - scaled[token]
