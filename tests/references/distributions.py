"""Scaling and distances, one vocabulary at a time, with sorts and loops."""

from __future__ import annotations

from collections.abc import Sequence
import math


def normalised(weights: Sequence[float]) -> list[float]:
  """Weights over their sum."""
  total = math.fsum(weights)
  return [w / total for w in weights]


def softmax(logits: Sequence[float]) -> list[float]:
  """Probabilities of logits."""
  top = max(logits)
  return normalised([math.exp(x - top) for x in logits])


def scaled(
  logits: Sequence[float],
  temperature: float,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  eta: float | None = None,
) -> list[float]:
  """Temperature (0 is greedy), then top-k, top-p, min-p, eta; ties are kept."""
  if temperature == 0.0:
    best = list(logits).index(max(logits))
    return [float(v == best) for v in range(len(logits))]
  probs = softmax([x / temperature for x in logits])
  if top_k is not None:
    order = sorted(probs, reverse=True)
    least = order[min(top_k, len(order)) - 1]
    probs = normalised([x if x >= least else 0.0 for x in probs])
  if top_p is not None:
    least, mass = 0.0, 0.0
    for x in sorted(probs, reverse=True):
      if mass >= top_p:
        break
      least, mass = x, mass + x
    probs = normalised([x if x >= least else 0.0 for x in probs])
  if min_p is not None:
    least = min_p * max(probs)
    probs = normalised([x if x >= least else 0.0 for x in probs])
  if eta is not None:
    least = min(eta, math.sqrt(eta) * math.exp(-entropy(probs)))
    probs = normalised([x if x >= least else 0.0 for x in probs])
  return probs


def total_variation(p: Sequence[float], q: Sequence[float]) -> float:
  """`sum max(0, p - q)`."""
  return math.fsum(max(0.0, a - b) for a, b in zip(p, q))


def entropy(p: Sequence[float]) -> float:
  """In nats."""
  return -math.fsum(x * math.log(x) for x in p if x > 0.0)
