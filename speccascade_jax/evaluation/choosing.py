"""Choosing a candidate under a constraint.

Two questions can be asked of a pair and a task: what is fastest among all that
reach a share of the verifier's quality, and what is best among all that take at
most a share of its latency. In each bootstrap replicate one candidate would be
chosen; how often that happens says which ones are worth more examples, and how
often a candidate meets the constraint says whether it can be trusted to.

What is equal in what is asked for is told apart by the other quantity: of two
equally good ones the faster is chosen, of two equally fast ones the better.
Candidates are equal often: all greedy lossless decoders write the same texts.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import numbers
from typing import Any

import numpy as np

from speccascade_jax.evaluation import candidates as candidates_lib


@dataclasses.dataclass(frozen=True)
class Constraint:
  """What is asked for; exactly one of `quality` and `latency`.

  Attributes:
    quality: at least this share of the verifier's quality; the fastest wins.
    latency: at most this share of the verifier's latency; the best wins.
    confidence: share of the bootstrap replicates that must meet it, besides
      the measurement itself. 0 takes whatever meets it as measured; more
      leaves a margin for other examples.
  """

  quality: float | None = None
  latency: float | None = None
  confidence: float = 0.8

  def __post_init__(self):
    if (self.quality is None) == (self.latency is None):
      raise ValueError(
        'A constraint is either quality (such as 0.99 of the verifier) or '
        f'latency (such as 0.6 of it); got quality={self.quality!r}, '
        f'latency={self.latency!r}.'
      )
    for name in ('quality', 'latency', 'confidence'):
      value = getattr(self, name)
      number = isinstance(value, numbers.Real) and not isinstance(value, bool)
      if value is not None and not number:
        raise ValueError(f'{name} is {value!r}; it must be a number.')
    for name in ('quality', 'latency'):
      value = getattr(self, name)
      if value is not None and not 0 < value < float('inf'):
        raise ValueError(
          f'{name} is {value!r}; it is a share of the verifier, above 0.'
        )
    if not 0 <= self.confidence <= 1:
      raise ValueError(
        f'confidence is {self.confidence!r}; it must be from 0 to 1.'
      )

  def __str__(self):
    if self.quality is not None:
      return f"at least {100 * self.quality:g} % of the verifier's quality"
    return f"at most {self.latency:g} of the verifier's latency"

  @property
  def name(self) -> str:
    """'quality_0.99' or 'latency_0.6', for a folder."""
    if self.quality is not None:
      return f'quality_{_written(self.quality)}'
    return f'latency_{_written(self.latency)}'

  def margin(self, candidate: candidates_lib.Candidate) -> float:
    """How far a candidate exceeds it, as measured; met where not negative."""
    c = candidate
    return float(self._margin(c.quality, c.reference, c.latency))

  def margins(self, candidate: candidates_lib.Candidate) -> np.ndarray:
    """Likewise, in every replicate."""
    c = candidate
    return self._margin(c.qualities, c.references, c.latencies)

  def trust(self, candidate: candidates_lib.Candidate) -> float:
    """Share of the replicates in which a candidate meets it."""
    return float((self.margins(candidate) >= 0).mean())

  def accepts(self, candidate: candidates_lib.Candidate) -> bool:
    """Whether it is met as measured and in enough of the replicates."""
    met = self.margin(candidate) >= 0
    return met and self.trust(candidate) >= self.confidence

  def gain(self, candidate: candidates_lib.Candidate) -> tuple[float, float]:
    """What is made as large as possible, and what tells equals apart."""
    gains = self._gains(candidate.quality, candidate.latency)
    return float(gains[0]), float(gains[1])

  def gains(
    self, candidate: candidates_lib.Candidate
  ) -> tuple[np.ndarray, np.ndarray]:
    """Likewise, in every replicate."""
    return self._gains(candidate.qualities, candidate.latencies)

  def _margin(self, quality: Any, reference: Any, latency: Any) -> Any:
    if self.quality is None:
      return self.latency - latency
    # A share of nothing, or of less, is no constraint that could be met.
    return np.where(
      np.asarray(reference) > 0, quality - self.quality * reference, -np.inf
    )

  def _gains(self, quality: Any, latency: Any) -> tuple[Any, Any]:
    faster = -latency
    return (faster, quality) if self.quality is not None else (quality, faster)


def _written(value: Any) -> str:
  """'0.6', or as many digits as tell a number from any other."""
  short = f'{value:g}'
  return short if float(short) == value else repr(float(value))


def wins(
  candidates: Sequence[candidates_lib.Candidate], constraint: Constraint
) -> dict[str, float]:
  """Share of the replicates in which each candidate would be chosen, by key.

  A replicate in which nothing meets the constraint goes to the candidate that
  comes closest. One that several would win alike is shared among them, so that
  the order of the candidates decides nothing.
  """
  margins = np.stack([constraint.margins(c) for c in candidates])
  gains, others = (
    np.stack(values)
    for values in zip(*map(constraint.gains, candidates), strict=True)
  )
  met = margins >= 0
  left = np.where(met.any(0), met, margins == margins.max(0))
  for values in (gains, others):
    best = np.where(left, values, -np.inf).max(0)
    left &= values == best
  shares = (left / left.sum(0)).mean(1)
  return {
    c.key: float(share) for c, share in zip(candidates, shares, strict=True)
  }


def ranked(
  candidates: Sequence[candidates_lib.Candidate],
  constraint: Constraint,
  won: dict[str, float],
) -> list[candidates_lib.Candidate]:
  """Most promising first.

  By wins; among equals those that the constraint accepts, the best of them
  first; then the rest by how often they meet it.

  Args:
    candidates: of one company.
    constraint: what is asked for.
    won: see `wins`.
  """

  def promise(candidate):
    accepted = constraint.accepts(candidate)
    return (
      won[candidate.key],
      accepted,
      0.0 if accepted else constraint.trust(candidate),
      *constraint.gain(candidate),
    )

  return sorted(candidates, key=promise, reverse=True)


def choose(
  candidates: Sequence[candidates_lib.Candidate], constraint: Constraint
) -> candidates_lib.Candidate | None:
  """The best as measured among those that the constraint accepts.

  Returns:
    None if it accepts none.
  """
  accepted = filter(constraint.accepts, candidates)
  return max(accepted, key=constraint.gain, default=None)
