"""Batches of a task's examples for the trainer.

seqio reads, prefixes and tokenises; its tasks and mixtures are what `task`
names, and a `framing` with another vocabulary may take the place of theirs.

What follows is NumPy instead of seqio's converters and
tf.data: the shipped corpora are some 50,000 short texts, 20 MB of token ids,
so that an epoch can be planned as a whole. That makes batches of examples of
one length, every example exactly once, and a start at any step without reading
what precedes it; tf.data buckets in the order in which examples come by and
resumes by skipping. A training split is held in memory, also one of millions of
examples, some 500 bytes for each short one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
import itertools
from typing import Any

import numpy as np
import seqio

from speccascade_jax import vocabulary as vocabularies
from speccascade_jax.data import bucketing
from speccascade_jax.data import task_texts

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Tokens:
  """Tokenised examples, each list with its end of sequence."""

  inputs: list[np.ndarray]  # N of [length] int32
  targets: list[np.ndarray]
  eos_id: int

  @functools.cached_property
  def sizes(self) -> np.ndarray:
    """[N, 2] lengths of inputs and targets."""
    pairs = zip(self.inputs, self.targets)
    return np.array([(len(i), len(t)) for i, t in pairs]).reshape(-1, 2)


def train_batches(
  task: str,
  split: str,
  batch_size: int | None,
  lengths: Mapping[str, int],
  seed: int,
  start_step: int = 0,
  *,
  batch_tokens: int | None = None,
  multiple_of: int = 1,
  shapes: Sequence[bucketing.Shape] = bucketing.SHAPES,
  framing: vocabularies.Framing | None = None,
) -> Iterator[Batch]:
  """Shuffled batches without end.

  An epoch takes as many examples as the task has, each once; of a mixture, as
  many as its tasks have together, in parts by its rates. Batch n is the same
  whatever `start_step` is.

  Args:
    task: a seqio task or mixture.
    split: one of its splits.
    batch_size: rows of a batch, B; or None, see `batch_tokens`.
    lengths: {'inputs': S, 'targets': T}, the widest shape. Longer texts are
      cut and still end with the end of sequence.
    seed: of the order.
    start_step: number of the first batch.
    batch_tokens: instead of `batch_size`, about how many tokens a batch has,
      padding included: B * (S + T). Short examples then come in larger
      batches, and all batches cost about the same.
    multiple_of: with `batch_tokens`, what divides the rows of every batch.
    shapes: the shapes that a batch may have besides (S, T).
    framing: splits the task's texts with another vocabulary than its own, see
      `vocabulary.Framing` and `task_texts.untokenised`.

  Yields:
    {'encoder_inputs': [B, S], 'decoder_inputs': [B, T], 'decoder_targets':
    [B, T], all int32, 'loss_weights': [B, T] float32} with S, T of one of the
    shapes. 0 pads; `decoder_inputs` are the targets shifted right by one, 0
    first. The last batch of an epoch may lack examples; a row without one is
    an empty text of no weight.

  Raises:
    ValueError: if there is no such task or split, or an argument is out of
      range; at the call, before the first batch.
  """
  plan = _plan(batch_size, batch_tokens, multiple_of, lengths, shapes)
  _check_start(seed, start_step)
  parts = _parts(task, split, plan.longest, framing)
  return _endless(parts, plan, seed, start_step)


def eval_batches(
  task: str,
  split: str,
  batch_size: int | None,
  lengths: Mapping[str, int],
  *,
  batch_tokens: int | None = None,
  multiple_of: int = 1,
  shapes: Sequence[bucketing.Shape] = bucketing.SHAPES,
  framing: vocabularies.Framing | None = None,
  num_examples: int | None = None,
) -> list[Batch]:
  """The batches of one pass over a split, always the same.

  Arguments, batches and errors are those of `train_batches`. A mixture is all
  examples of its tasks, whatever its rates; `num_examples` takes the first.
  """
  plan = _plan(batch_size, batch_tokens, multiple_of, lengths, shapes)
  tokens = _joined(_parts(task, split, plan.longest, framing))
  available = len(tokens.inputs)
  count = available if num_examples is None else num_examples
  if not 1 <= count <= available:
    raise ValueError(
      f'num_examples is {num_examples}; {task}/{split} has {available}.'
    )
  order = np.arange(count)
  groups = bucketing.pack(order, tokens.sizes, plan.shapes, plan.rows)
  return [_batch(tokens, group) for group in groups]


def token_batches(
  tokens: Tokens,
  lengths: Mapping[str, int],
  seed: int,
  start_step: int = 0,
  *,
  batch_tokens: int,
  multiple_of: int = 1,
  shapes: Sequence[bucketing.Shape] = bucketing.SHAPES,
) -> Iterator[Batch]:
  """As `train_batches`, of texts that are no task: a model's own, say.

  Arguments and batches are those of `train_batches`, with `tokens` in place of
  a task and a split.

  Raises:
    ValueError: if an example is longer than `lengths`, there is none, or an
      argument is out of range.
  """
  plan = _plan(None, batch_tokens, multiple_of, lengths, shapes)
  _check_start(seed, start_step)
  if not len(tokens.sizes) or not plan.longest.holds(tokens.sizes).all():
    longest = tokens.sizes.max(axis=0, initial=0).tolist()
    raise ValueError(
      f'{len(tokens.sizes)} texts of up to {longest} tokens; there has to be '
      f'one, and none longer than lengths={dict(lengths)}.'
    )
  return _endless([_Part(tokens, 1.0)], plan, seed, start_step)


def sources(
  task: str,
  split: str,
  lengths: Mapping[str, int],
  count: int | None = None,
  framing: vocabularies.Framing | None = None,
) -> list[list[int]]:
  """Token ids of the first `count` sources, cut as in training.

  Of a mixture, each of its tasks gives a part by its rate; None takes all.
  `framing` is that of `train_batches`.

  Raises:
    ValueError: if there is no such task or split, or too few examples.
  """
  parts = _parts(task, split, bucketing.Shape(**lengths), framing)
  if count is None:
    return [ids.tolist() for part in parts for ids in part.tokens.inputs]
  total_rate = sum(part.rate for part in parts)
  # Boundaries rather than sizes are rounded, so that the sum is right.
  ends = np.cumsum([part.rate for part in parts]) / total_rate * count
  sizes = np.diff(np.round(ends).astype(int), prepend=0)
  found = []
  for part, size in zip(parts, sizes):
    available = len(part.tokens.inputs)
    if not 1 <= size <= available:
      raise ValueError(
        f'{count} sources of {task}/{split} would take {size} from a task of '
        f'{available} examples.'
      )
    found += [ids.tolist() for ids in part.tokens.inputs[:size]]
  return found


def token_counts(
  task: str,
  split: str,
  lengths: Mapping[str, int],
  vocab_size: int,
  framing: vocabularies.Framing | None = None,
) -> np.ndarray:
  """How often each of V tokens occurs in the targets of a split, `[V]`.

  Arguments and errors are those of `train_batches`.
  """
  parts = _parts(task, split, bucketing.Shape(**lengths), framing)
  targets = np.concatenate(_joined(parts).targets)
  return np.bincount(targets, minlength=vocab_size)


@dataclasses.dataclass(frozen=True)
class _Plan:
  """The shapes of batches, cheap ones first, and the rows of each."""

  shapes: tuple[bucketing.Shape, ...]
  rows: tuple[int, ...]

  @property
  def longest(self) -> bucketing.Shape:
    return self.shapes[-1]


@dataclasses.dataclass(frozen=True)
class _Part:
  """A task and its share of a mixture."""

  tokens: Tokens
  rate: float


def _plan(
  batch_size: int | None,
  batch_tokens: int | None,
  multiple_of: int,
  lengths: Mapping[str, int],
  shapes: Sequence[bucketing.Shape],
) -> _Plan:
  if set(lengths) != {'inputs', 'targets'}:
    raise ValueError(
      f"lengths is {dict(lengths)}; it has to say 'inputs' and 'targets'."
    )
  if (batch_size is None) == (batch_tokens is None):
    raise ValueError(
      f'batch_size is {batch_size} and batch_tokens is {batch_tokens}; set '
      'exactly one of them.'
    )
  figures = {'batch_size': batch_size, 'batch_tokens': batch_tokens}
  figures |= {'multiple_of': multiple_of}
  figures |= {f'lengths[{name!r}]': size for name, size in lengths.items()}
  for name, figure in figures.items():
    if figure is not None and figure < 1:
      raise ValueError(f'{name} is {figure}; it has to be 1 or more.')
  longest = bucketing.Shape(lengths['inputs'], lengths['targets'])
  kept = bucketing.fitting(shapes, longest)
  if batch_size is not None:
    return _Plan(kept, (batch_size,) * len(kept))
  assert batch_tokens is not None  # One of them is set.
  rows = (bucketing.rows_of(s, batch_tokens, multiple_of) for s in kept)
  return _Plan(kept, tuple(rows))


def _check_start(seed: int, start_step: int) -> None:
  if start_step < 0:
    raise ValueError(f'start_step is {start_step}; steps count from 0.')
  if seed < 0:
    raise ValueError(f'seed is {seed}; it has to be 0 or more.')


def _parts(
  task: str,
  split: str,
  longest: bucketing.Shape,
  framing: vocabularies.Framing | None,
) -> list[_Part]:
  found = task_texts.find(task, split)
  if not isinstance(found, seqio.Mixture):
    return [_Part(_tokenised(task, split, longest, framing), 1.0)]
  return [
    _Part(_tokenised(part.name, split, longest, framing), found.get_rate(part))
    for part in sorted(found.tasks, key=lambda part: part.name)
  ]


@functools.lru_cache(maxsize=8)
def _tokenised(
  task: str,
  split: str,
  longest: bucketing.Shape,
  framing: vocabularies.Framing | None,
) -> Tokens:
  found = seqio.get_mixture_or_task(task)
  if framing is not None:
    return _framed(task_texts.untokenised(found, split), longest, framing)
  rows = list(task_texts.rows_of(found, split, longest._asdict()))
  return Tokens(
    inputs=[row['inputs'] for row in rows],
    targets=[row['targets'] for row in rows],
    eos_id=found.output_features['targets'].vocabulary.eos_id,
  )


def _framed(
  rows: Sequence[Mapping[str, Any]],
  longest: bucketing.Shape,
  framing: vocabularies.Framing,
) -> Tokens:
  """The texts of `rows`, split with the vocabulary of `framing`."""
  inputs, targets = (
    [row[name].decode() for row in rows] for name in ('inputs', 'targets')
  )
  cut = (framing.cut(framing.input(text), longest.inputs) for text in inputs)
  ends = (framing.target(text, longest.targets) for text in targets)
  return Tokens(
    inputs=[np.array(ids, np.int32) for ids in cut],
    targets=[np.array(ids, np.int32) for ids in ends],
    eos_id=framing.vocabulary.eos_id,
  )


def _joined(parts: Sequence[_Part]) -> Tokens:
  return Tokens(
    inputs=[ids for part in parts for ids in part.tokens.inputs],
    targets=[ids for part in parts for ids in part.tokens.targets],
    eos_id=parts[0].tokens.eos_id,
  )


def _endless(
  parts: Sequence[_Part], plan: _Plan, seed: int, start_step: int
) -> Iterator[Batch]:
  tokens = _joined(parts)
  sizes = [len(part.tokens.inputs) for part in parts]
  offsets = np.cumsum([0] + sizes[:-1])
  total_rate = sum(part.rate for part in parts)
  counts = [
    max(1, round(sum(sizes) * part.rate / total_rate)) for part in parts
  ]
  step = 0
  for epoch in itertools.count():
    # Each task goes through its own passes, however few of its examples an
    # epoch takes: none is seen twice before all have been seen once.
    order = np.concatenate(
      [
        bucketing.stream(size, epoch * count, count, [seed, i]) + offset
        for i, (size, count, offset) in enumerate(zip(sizes, counts, offsets))
      ]
    )
    # Entropy of its own: `stream` has two numbers and that of the pass.
    random = np.random.default_rng([seed, len(parts), epoch, 1])
    order = random.permutation(order)
    groups = bucketing.pack(order, tokens.sizes, plan.shapes, plan.rows)
    # Planning an epoch takes milliseconds, so that what precedes `start_step`
    # is planned again: how many batches an epoch has depends on its order.
    for i in random.permutation(len(groups)):
      if step >= start_step:
        yield _batch(tokens, groups[i])
      step += 1


def _batch(tokens: Tokens, group: bucketing.Group) -> Batch:
  rows, (width, length) = group.rows, group.shape
  inputs = np.zeros((rows, width), np.int32)
  targets = np.zeros((rows, length), np.int32)
  # An empty text rather than nothing: attention over padding alone would
  # divide by zero.
  inputs[:, 0] = tokens.eos_id
  for row, member in enumerate(group.members):
    source, target = tokens.inputs[member], tokens.targets[member]
    inputs[row, : len(source)] = source
    targets[row, : len(target)] = target
  shifted = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
  return {
    'encoder_inputs': inputs,
    # An end of sequence that is fed back predicts padding, of no weight.
    'decoder_inputs': shifted,
    'decoder_targets': targets,
    'loss_weights': (targets != 0).astype(np.float32),
  }
