"""The law of one verification, given the drafted block.

Both functions return a list over the accepted length n = 0 .. G of pairs:
the probability of n, and the law of the token that is emitted behind.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

from tests.references import distributions

Table = Sequence[Sequence[float]]  # G + 1 distributions over the vocabulary.
Outcome = tuple[float, list[float]]


def _redraw(weights: Sequence[float], token: int) -> list[float]:
  """Normalised weights; without mass the drafted token stays."""
  if sum(weights) > 0:
    return distributions.normalised(weights)
  return [float(v == token) for v in range(len(weights))]


def tokens(
  drafted: Sequence[int],
  q: Table,
  pi: Table,
  accept: Table | None = None,
  residual: Table | None = None,
  bonus: Table | None = None,
) -> list[Outcome]:
  """Token-wise verification (Algorithms 1, 4, 5), wider interface included."""
  outcomes = []
  reached = 1.0
  for j, d in enumerate(drafted):
    keep = accept[j][d] if accept else min(1.0, pi[j][d] / q[j][d])
    rest = (
      residual[j]
      if residual
      else [max(0.0, a - b) for a, b in zip(pi[j], q[j])]
    )
    outcomes.append((reached * (1 - keep), _redraw(rest, d)))
    reached *= keep
  return [*outcomes, (reached, list((bonus or pi)[-1]))]


def block(drafted: Sequence[int], q: Table, pi: Table) -> list[Outcome]:
  """Block verification (Sun et al., 2024)."""
  gamma = len(drafted)
  w = [1.0]
  for j, d in enumerate(drafted):
    w.append(min(1.0, w[-1] * pi[j][d] / q[j][d]))
  rest = [
    [max(0.0, w[i] * a - b) for a, b in zip(pi[i], q[i])] for i in range(gamma)
  ]
  passes = []
  for i in range(1, gamma):
    s = math.fsum(rest[i])
    passes.append(1.0 if w[i] == 1.0 else s / (s + 1 - w[i]))
  passes.append(w[gamma])
  outcomes = []
  none_longer = 1.0
  for i in range(gamma, 0, -1):
    law = list(pi[gamma]) if i == gamma else _redraw(rest[i], drafted[i])
    outcomes.append((none_longer * passes[i - 1], law))
    none_longer *= 1 - passes[i - 1]
  return [(none_longer, _redraw(rest[0], drafted[0])), *outcomes[::-1]]
