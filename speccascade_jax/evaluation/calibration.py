"""Whether models are right as often as they say, and what makes them so.

A rule such as Chow's takes `max q` for the probability that the drafter is
right. Of all positions where it says 0.7 the likeliest token should then be
the reference's in 70 %: a *reliability diagram* shows by how much it is not,
and the *expected calibration error* (ECE; Naeini et al., 2015) is the mean
distance, positions weighted equally::

  ECE = sum_b n_b / N  | accuracy_b - confidence_b |      b: bins of confidence

*Temperature scaling* (Guo et al., 2017) divides a model's logits by the one
number at which held-out texts are likeliest. It moves no arg max; here it moves
confidences alone, never what is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any, Protocol

import numpy as np
from scipy import interpolate
from scipy import optimize
import tqdm

from speccascade_jax.evaluation import base

BINS = 15  # As in Guo et al.
# Where the temperature is looked for: 9 % apart, which a spline bridges.
GRID = tuple(float(f'{t:.6g}') for t in np.geomspace(0.25, 4.0, 33))


class Judge(Protocol):
  """`speccascade_jax.pair.Pair`, or anything with its `judge`."""

  @property
  def judge(self) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Judged:
  """N positions of a split under K temperatures."""

  temperatures: tuple[float, ...]
  confidence: np.ndarray  # [K, N]
  surprisal: np.ndarray  # [K, N] nats
  correct: np.ndarray  # [N] bool
  row: np.ndarray  # [N] int, which of the examples a position is of.


def judged(
  judge: Judge,
  examples: Sequence[base.Example],
  *,
  model: str,
  temperatures: Sequence[float],
  batch_size: int,
  max_length: int,
  input_length: int,
  progress: bool = False,
) -> Judged:
  """Feeds the references of a task to a model.

  Args:
    judge: see `Pair.judge`.
    examples: whose target is a text, or several, of which the first counts.
    model: 'drafter' or 'verifier'.
    temperatures: K of them.
    batch_size: rows at once.
    max_length: tokens of a reference that are judged at most.
    input_length: width that all sources are padded to [tokens].
    progress: show a bar on stderr.

  Raises:
    ValueError: if an example has no text to be judged.
  """
  texts = [reference(example) for example in examples]
  parts: list[Any] = []
  with tqdm.tqdm(
    total=len(texts), desc=model, unit='text', disable=not progress
  ) as bar:
    for start in range(0, len(texts), batch_size):
      batch = examples[start : start + batch_size]
      # A smaller last batch would be compiled anew.
      fill = batch_size - len(batch) if start else 0
      chosen = [*range(start, start + len(batch)), *[start] * fill]
      found = judge.judge(
        [examples[i].source for i in chosen],
        [texts[i] for i in chosen],
        model=model,
        temperatures=temperatures,
        max_length=max_length,
        input_length=input_length,
      )
      there = found.there.copy()
      there[len(batch) :] = False
      parts.append((found, there, start + np.nonzero(there)[0]))
      bar.update(len(batch))
  return Judged(
    temperatures=tuple(map(float, temperatures)),
    confidence=np.concatenate([f.confidence[:, t] for f, t, _ in parts], 1),
    surprisal=np.concatenate([f.surprisal[:, t] for f, t, _ in parts], 1),
    correct=np.concatenate([f.correct[t] for f, t, _ in parts]),
    row=np.concatenate([row for *_, row in parts]),
  )


def reference(example: base.Example) -> str:
  """The text that an example is to be answered with.

  Raises:
    ValueError: if there is none.
  """
  target = example.target
  if isinstance(target, (list, tuple)) and target:
    target = target[0]
  if not isinstance(target, str) or not target:
    raise ValueError(
      f'Example {example.example} has the target {example.target!r}: '
      'calibration needs a text to compare with.'
    )
  return target


def fit(found: Judged) -> float:
  """The temperature at which the references are likeliest.

  The mean surprisal over `found.temperatures` is smooth and, in 1/t, convex: a
  cubic spline through the grid has its minimum to well under 1 %.

  Raises:
    ValueError: if it lies at an end of the grid.
  """
  mean = found.surprisal.mean(axis=1)
  best = int(mean.argmin())
  grid = np.log(found.temperatures)
  if not 0 < best < len(grid) - 1:
    raise ValueError(
      f'The references are likeliest at temperature '
      f'{found.temperatures[best]:g}, an end of what was tried '
      f'({found.temperatures[0]:g} to {found.temperatures[-1]:g}): the model '
      'does not fit the task.'
    )
  spline = interpolate.CubicSpline(grid, mean)
  minimum = optimize.minimize_scalar(
    spline, bounds=(grid[best - 1], grid[best + 1]), method='bounded'
  )
  return float(f'{np.exp(minimum.x):.4g}')


def summary(
  found: Judged, index: int, counts: np.ndarray, bins: int = BINS
) -> dict[str, Any]:
  """Reliability at one of the temperatures, as JSON.

  Args:
    found: judged positions.
    index: of the temperature.
    counts: `[replicates, examples]`, see `bootstrap.draws`.
    bins: of equal width, (0, 1/bins], (1/bins, 2/bins] and so on.

  Returns:
    'temperature', 'tokens', 'accuracy', 'confidence' and 'surprisal' (means;
    nats), 'ece' with 'ece_interval' (95 %, over examples; None without
    replicates), 'ece_equal_mass' with as many positions in every bin, and
    'bins', each {'low', 'high', 'tokens', 'confidence', 'accuracy'}.
  """
  confidence = found.confidence[index].astype(np.float64)
  right = found.correct.astype(np.float64)
  edges = np.linspace(0.0, 1.0, bins + 1)
  number = np.clip(np.searchsorted(edges, confidence) - 1, 0, bins - 1)
  tokens, sure, hits = (
    _sums(number, w, bins) for w in (np.ones_like(right), confidence, right)
  )
  order = np.argsort(confidence, kind='stable')
  equal = np.empty(len(order), np.int64)
  equal[order] = np.arange(len(order)) * bins // len(order)
  sure_equal, hits_equal = (_sums(equal, w, bins) for w in (confidence, right))
  return {
    'temperature': found.temperatures[index],
    'tokens': len(right),
    'accuracy': float(right.mean()),
    'confidence': float(confidence.mean()),
    'surprisal': float(found.surprisal[index].mean()),
    'ece': _ece(sure, hits, len(right)),
    'ece_interval': _interval(found, number, confidence, right, counts, bins),
    'ece_equal_mass': _ece(sure_equal, hits_equal, len(right)),
    'bins': [
      {
        'low': float(edges[b]),
        'high': float(edges[b + 1]),
        'tokens': int(n),
        'confidence': float(sure[b] / n) if n else None,
        'accuracy': float(hits[b] / n) if n else None,
      }
      for b, n in enumerate(tokens)
    ],
  }


def _sums(number: np.ndarray, weights: np.ndarray, bins: int) -> np.ndarray:
  return np.bincount(number, weights, minlength=bins)


def _ece(confidence, right, tokens) -> float:
  """From sums a bin; |sum of differences| is n_b |difference of means|."""
  return float(np.abs(right - confidence).sum(axis=-1) / tokens)


def _interval(found, number, confidence, right, counts, bins):
  if not len(counts):
    return None
  examples = counts.shape[1]
  cell = found.row * bins + number
  gap, tokens = (
    np.bincount(cell, w, minlength=examples * bins).reshape(examples, bins)
    for w in (right - confidence, np.ones_like(right))
  )
  replicates = np.abs(counts @ gap).sum(axis=1) / (counts @ tokens).sum(axis=1)
  return [float(x) for x in np.percentile(replicates, (2.5, 97.5))]
