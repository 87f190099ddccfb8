"""Feeding a task's references to a model, text by text on disk.

A line of a log is one text: how many tokens were judged, their surprisal at
every temperature and, where reliability is asked for, each token's confidence
and whether it is right. What is there already is not judged again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tqdm

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import calibration
from speccascade_jax.evaluation import results

_DIGITS = 7  # Of a float32.


class Judge(Protocol):
  """`speccascade_jax.pair.Pair`, or anything with its `judge`."""

  @property
  def judge(self) -> Callable[..., Any]: ...


def judged(
  judge: Judge,
  examples: Sequence[base.Example],
  log: results.Log,
  *,
  temperatures: Sequence[float],
  confidences: bool,
  batch_size: int,
  progress: bool = False,
  **settings: Any,
) -> calibration.Judged:
  """Judges the references that a log lacks, and reads the log.

  Args:
    judge: see `Pair.judge`.
    examples: whose targets are texts.
    log: of these examples, this model and these temperatures.
    temperatures: K of them.
    confidences: keep those of every token, see `calibration.Judged`.
    batch_size: texts at once.
    progress: show a bar on stderr.
    **settings: of `Pair.judge`: model, lengths and `ends`.

  Raises:
    ValueError: if an example has no text to be judged.
  """
  # All of them, before anything is compiled.
  texts = [reference(example) for example in examples]
  temperatures = tuple(map(float, temperatures))
  with tqdm.tqdm(
    total=len(texts),
    desc=f'{settings["model"]}, {"reliability" if confidences else "fit"}',
    unit='text',
    disable=not progress,
  ) as bar:
    # The same batches in every start, whatever is there: the last digits of a
    # row may hang on its neighbours.
    for start in range(0, len(texts), batch_size):
      batch = range(start, min(start + batch_size, len(texts)))
      lacking = [i for i in batch if examples[i].example not in log.rows]
      if lacking:
        # A smaller last batch would be compiled anew.
        chosen = [*batch, *[start] * (batch_size - len(batch))]
        found = judge.judge(
          [examples[i].source for i in chosen],
          [texts[i] for i in chosen],
          temperatures=temperatures,
          **settings,
        )
        for i in lacking:
          row = _row(found, i - start, confidences)
          log.append({'example': examples[i].example} | row)
      bar.update(len(batch))
  rows = [log.rows[example.example] for example in examples]
  return _gathered(rows, temperatures, confidences)


def _row(found, i: int, confidences: bool) -> dict[str, Any]:
  there = found.there[i]
  row: dict[str, Any] = {
    'tokens': int(there.sum()),
    'truncated': bool(found.truncated[i]),
    'surprisal': _rounded(found.surprisal[:, i, there].sum(axis=1)),
  }
  if confidences:
    row['confidence'] = [_rounded(c) for c in found.confidence[:, i, there]]
    row['correct'] = found.correct[i, there].astype(int).tolist()
  return row


def _gathered(
  rows: Sequence[Mapping[str, Any]],
  temperatures: tuple[float, ...],
  confidences: bool,
) -> calibration.Judged:
  count = len(temperatures)
  confidence, correct = np.zeros((count, 0)), np.zeros(0, bool)
  if confidences:
    confidence = np.concatenate([row['confidence'] for row in rows], axis=1)
    correct = np.concatenate([row['correct'] for row in rows]).astype(bool)
  return calibration.Judged(
    temperatures=temperatures,
    tokens=np.array([row['tokens'] for row in rows]),
    truncated=np.array([row['truncated'] for row in rows]),
    surprisal=np.array([row['surprisal'] for row in rows]),
    confidence=confidence,
    correct=correct,
  )


def reference(example: base.Example) -> str:
  """The text that an example is to be answered with.

  Raises:
    ValueError: if there is none.
  """
  if not isinstance(example.target, str) or not example.target:
    raise ValueError(
      f'Example {example.example} has the target {example.target!r}: '
      'calibration needs a text to compare with.'
    )
  return example.target


def _rounded(values: np.ndarray) -> list[float]:
  return [float(f'{value:.{_DIGITS}g}') for value in values]
