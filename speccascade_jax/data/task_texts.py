"""A task's examples as texts, for models that bring a vocabulary of their own.

The tasks and mixtures are seqio's. Their texts are those before tokenisation,
so that no vocabulary of a task is read for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import functools
import itertools
from typing import Any

import numpy as np
import seqio
import tensorflow as tf


def examples(
  task: str,
  split: str,
  num_examples: int | None = None,
  seed: int | None = None,
) -> list[dict[str, Any]]:
  """Texts for evaluation.

  Args:
    task: a seqio task.
    split: one of its splits.
    num_examples: how many; None takes all.
    seed: draws them at random, without replacement; with the same seed, fewer
      are part of more. None takes the first.

  Returns:
    In the order of the split, {'example': index in the split, 'source': text
    as the model reads it, the task's prefix included, 'target': what the
    metrics compare with, which is a text unless the task's `postprocess_fn`
    makes something else of it, 'completion': the text that a model is trained
    to write}.

  Raises:
    ValueError: if there is no such task or split, or too few examples.
    FileNotFoundError: if the data set has not been prepared.
  """
  found = find(task, split)
  if isinstance(found, seqio.Mixture):
    raise ValueError(
      f'{task!r} is a mixture; evaluate its tasks one by one: '
      f'{", ".join(sorted(part.name for part in found.tasks))}.'
    )
  rows = untokenised(found, split)
  if num_examples is not None and not 1 <= num_examples <= len(rows):
    raise ValueError(
      f'num_examples is {num_examples}; {task}/{split} has {len(rows)}.'
    )
  count = len(rows) if num_examples is None else num_examples
  if seed is None:
    chosen = np.arange(count)
  else:
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = np.sort(order[:count])
  return [
    {
      'example': int(i),
      'source': rows[i]['inputs'].decode(),
      'target': found.postprocess_fn(
        rows[i]['targets'].decode(), example=rows[i], is_target=True
      ),
      'completion': rows[i]['targets'].decode(),
    }
    for i in chosen
  ]


def stop_sequences(task: str) -> tuple[str, ...]:
  """What ends an output of a `stopped.StoppedTask`; () of any other.

  Raises:
    ValueError: if there is no such task.
  """
  return getattr(_named(task), 'stop_sequences', ())


def splits(task: str) -> tuple[str, ...]:
  """Names of a task's splits.

  Raises:
    ValueError: if there is no such task.
  """
  return tuple(_named(task).splits)


def check(task: str, split: str) -> None:
  """Refuses a split that cannot be read, without reading it.

  Raises:
    ValueError: if there is no such task or split.
    FileNotFoundError: if its data set has not been prepared.
  """
  found = find(task, split)
  parts = found.tasks if isinstance(found, seqio.Mixture) else [found]
  for part in parts:
    part.num_input_examples(split)


def _named(task: str) -> seqio.Task | seqio.Mixture:
  tasks = seqio.TaskRegistry.names() | seqio.MixtureRegistry.names()
  if task not in tasks:
    raise ValueError(f'No task {task!r}; there are {", ".join(sorted(tasks))}.')
  return seqio.get_mixture_or_task(task)


def find(task: str, split: str) -> seqio.Task | seqio.Mixture:
  """A task or mixture that has this split.

  Raises:
    ValueError: if there is no such task or split.
  """
  found = _named(task)
  if split not in found.splits:
    raise ValueError(
      f'{task!r} has no split {split!r}, only {", ".join(found.splits)}.'
    )
  return found


def rows_of(
  task: seqio.Task, split: str, lengths: Mapping[str, int] | None
) -> Iterator[dict[str, Any]]:
  """A split in its order, as seqio gives it with these sequence lengths."""
  dataset = task.get_dataset(
    sequence_length=lengths, split=split, shuffle=False
  )
  return dataset.as_numpy_iterator()


def untokenised(task: seqio.Task, split: str) -> list[dict[str, Any]]:
  """Rows with 'inputs' and 'targets' as they are before tokenisation.

  Raises:
    ValueError: if the task keeps no texts.
  """
  steps = list(itertools.takewhile(_keeps_texts, task.preprocessors))
  if len(steps) == len(task.preprocessors):
    # It tokenises in a way of its own, and may have kept the texts.
    rows = list(rows_of(task, split, None))
    names, suffix = ('inputs', 'targets'), '_pretokenized'
    if rows and not {name + suffix for name in names} <= set(rows[0]):
      raise ValueError(
        f'{task.name!r} has no texts to evaluate on or to split anew: let '
        'seqio.preprocessors.tokenize be among its preprocessors, or keep '
        "texts as 'inputs_pretokenized' and 'targets_pretokenized'."
      )
    return [row | {name: row[name + suffix] for name in names} for row in rows]
  text = seqio.Feature(
    seqio.PassThroughVocabulary(size=0), dtype=tf.string, rank=0
  )
  texts = task.replace(
    preprocessors=steps, output_features={'inputs': text, 'targets': text}
  )
  return list(rows_of(texts, split, None))


def _keeps_texts(step: Any) -> bool:
  while isinstance(step, functools.partial):
    step = step.func
  return step not in (
    seqio.preprocessors.tokenize,
    seqio.preprocessors.tokenize_and_append_eos,
  )
