"""Quality of one model, or of one method, on a task: in batches, untimed."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np
import tqdm

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import scoring


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Predictions on a task's examples, and their quality."""

  quality: dict[str, float]
  signatures: dict[str, str]
  predictions: list[str]  # In the order of the examples.
  lengths: np.ndarray  # [examples] output tokens.
  stats: dict[str, np.ndarray]  # Per-row statistics, each [examples].


def evaluate(
  generator: base.Generator,
  examples: Sequence[base.Example],
  metric_fns: Sequence[base.MetricFn],
  *,
  batch_size: int = 32,
  progress: bool = False,
  **settings: Any,
) -> Evaluation:
  """Generates a text for every example and scores them.

  Every batch has the same shape, the last one filled up with repeats that are
  dropped, so that one program serves all when `input_length` is given. What an
  example draws depends on its id and not on the batch it falls into.

  Args:
    generator: see `base.Generator`.
    examples: at least one.
    metric_fns: see `base.MetricFn`.
    batch_size: rows decoded together.
    progress: show a bar on stderr.
    **settings: passed on to `generator.generate`: model, rule, alpha, gamma,
      temperature, key, max_length, input_length and so on.
  """
  if batch_size < 1:
    raise ValueError(f'batch_size is {batch_size}; it must be at least 1.')
  if not examples:
    raise ValueError('There are no examples to evaluate.')
  predictions: list[str] = []
  lengths: list[np.ndarray] = []
  stats: list[dict[str, np.ndarray]] = []
  with tqdm.tqdm(
    total=len(examples), unit='example', disable=not progress
  ) as bar:
    for start in range(0, len(examples), batch_size):
      batch = list(examples[start : start + batch_size])
      filled = batch + [batch[-1]] * (batch_size - len(batch))
      output = generator.generate(
        [example.source for example in filled],
        row_ids=[example.example for example in filled],
        **settings,
      )
      predictions += output.texts[: len(batch)]
      lengths.append(np.asarray(output.lengths)[: len(batch)])
      stats.append({k: v[: len(batch)] for k, v in output.stats.items()})
      bar.update(len(batch))
  quality, signatures = scoring.score(
    metric_fns, [example.target for example in examples], predictions
  )
  return Evaluation(
    quality=quality,
    signatures=signatures,
    predictions=predictions,
    lengths=np.concatenate(lengths),
    stats={k: np.concatenate([s[k] for s in stats]) for k in stats[0]},
  )
