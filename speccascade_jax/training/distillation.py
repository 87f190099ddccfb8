"""A drafter learns from its verifier, token by token and text by text.

Two sources of text, one loss. On the corpus the drafter matches the verifier's
distribution behind every human-written prefix; on texts that the verifier
generated itself it does so behind the prefixes that it will actually meet
(Kim & Rush, 2016; Zhou et al., 2024, "DistillSpec"). The verifier's
distributions are computed inside the drafter's training step, so nothing but
tokens is ever stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import hashlib
import itertools
import json
import math
import os
import pathlib

import jax
import numpy as np
import tqdm

from speccascade_jax import base
from speccascade_jax import distributions
from speccascade_jax.decoding import autoregressive
from speccascade_jax.models import protocol
from speccascade_jax.training import losses
from speccascade_jax.training import train_step


def loss(
  student: train_step.Forward,
  teacher: train_step.Forward,
  mixture: float,
  temperature: float = 1.0,
  label_smoothing: float = 0.0,
) -> train_step.Loss:
  """The loss of a student that imitates a frozen teacher.

  Args:
    student: its parameters are trained.
    teacher: its parameters are `frozen` in the train step; runs without
      dropout and without a gradient.
    mixture: weight of KL(teacher || student) against the cross entropy.
    temperature: of the divergence.
    label_smoothing: of the cross entropy.
  """
  if not 0.0 <= mixture <= 1.0:
    raise ValueError(f'mixture must be in [0, 1], got {mixture!r}.')
  if temperature <= 0.0:
    raise ValueError(f'temperature must be above 0, got {temperature!r}.')

  def evaluate(
    params: base.Params,
    frozen: base.Params,
    batch: train_step.Batch,
    key: base.Array | None,
  ) -> losses.Sums:
    return losses.distillation(
      student(params, batch, key),
      jax.lax.stop_gradient(teacher(frozen, batch, None)),
      batch['decoder_targets'],
      batch['loss_weights'],
      mixture,
      temperature,
      label_smoothing,
    )

  return evaluate


def generate_targets(
  model: protocol.StepModel,
  params: base.Params,
  inputs: Sequence[Sequence[int]],
  path: str | os.PathLike[str],
  *,
  teacher: str,
  temperature: float,
  max_length: int,
  batch_size: int = 64,
  widths: Sequence[int] = (16, 32, 48, 64, 96, 128, 256, 512),
  seed: int = 0,
  progress: bool = True,
) -> list[list[int]]:
  """The verifier's own text for every input, kept in a file.

  The file has one line a text, {"example": i, "tokens": [...]}, appended and
  flushed batch by batch, with a first line that says what made it. A run that
  was stopped goes on behind the last whole line; what an example draws depends
  on the seed and its index alone, not on its batch.

  Args:
    model: the verifier.
    params: its parameters.
    inputs: token ids of every source, EOS at the end, without padding.
    path: the file; made if it is not there.
    teacher: digest of the verifier, see `checkpoints.native.digest`.
    temperature: 0 is greedy; 1 samples from the verifier itself, which is
      what keeps a drafter close to it on average.
    max_length: most tokens of a text, EOS included.
    batch_size: rows decoded together.
    widths: sources are padded to the least of these that holds them.
    seed: of the sampling.
    progress: whether to draw a bar.

  Returns:
    Token ids of every text, in the order of `inputs`. A text that reached
    `max_length` has no EOS.

  Raises:
    ValueError: if the file was made by another verifier, with other settings
      or for other inputs; names what differs.
  """
  path = pathlib.Path(path)
  header = {
    'teacher': teacher,
    'inputs': _digest(inputs),
    'temperature': float(temperature),
    'max_length': max_length,
    'seed': seed,
    'num_inputs': len(inputs),
  }
  found = _read(path, header)
  scaling = distributions.Scaling(greedy=temperature == 0)
  key = jax.random.key(seed)
  groups = list(_groups(inputs, found, batch_size, widths))
  path.parent.mkdir(parents=True, exist_ok=True)
  with (
    path.open('a') as file,
    tqdm.tqdm(
      total=len(inputs),
      initial=len(found),
      unit='text',
      disable=not progress,
      desc='verifier targets',
    ) as bar,
  ):
    if not file.tell():
      file.write(json.dumps(header) + '\n')
    for indices, width in groups:
      # The last group of a width is filled up with repeats: one shape each.
      rows = np.resize(indices, batch_size)
      padded = np.zeros((batch_size, width), np.int32)
      for row, i in enumerate(rows):
        padded[row, : len(inputs[i])] = inputs[i]
      keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
      generation = jax.device_get(
        autoregressive.decode(
          model,
          params,
          padded,
          keys,
          temperature,
          max_length=max_length,
          scaling=scaling,
        )
      )
      for row, i in enumerate(indices):
        length = int(generation.lengths[row])
        found[i] = generation.tokens[row, :length].tolist()
        line = {'example': int(i), 'tokens': found[i]}
        file.write(json.dumps(line) + '\n')
      file.flush()
      bar.update(len(indices))
  return [found[i] for i in range(len(inputs))]


def interleave(
  corpus: Iterator[train_step.Batch],
  generated: Iterator[train_step.Batch],
  share: float,
  start: int,
) -> Iterator[train_step.Batch]:
  """Two streams of batches as one, evenly mixed.

  Of the first n batches, floor(n * share) are generated, for every n; so what
  precedes step `start` says where both streams have to be taken up.

  Args:
    corpus: starts at its batch number `start - floor(start * share)`.
    generated: starts at its batch number `floor(start * share)`.
    share: of `generated`, in [0, 1].
    start: number of the first batch.
  """
  for n in itertools.count(start):
    due = math.floor((n + 1) * share) > math.floor(n * share)
    yield next(generated if due else corpus)


def _digest(inputs: Sequence[Sequence[int]]) -> str:
  """16 hexadecimal digits that stand for all token ids, row by row."""
  total = hashlib.sha256()
  for row in inputs:
    total.update(json.dumps([int(token) for token in row]).encode())
  return total.hexdigest()[:16]


def _groups(
  inputs: Sequence[Sequence[int]],
  found: dict[int, list[int]],
  batch_size: int,
  widths: Sequence[int],
) -> Iterator[tuple[np.ndarray, int]]:
  """Indices of inputs without a text, by width; shortest first, because rows
  of like length finish together."""
  lengths = np.array([len(x) for x in inputs])
  if lengths.max() > max(widths):
    raise ValueError(
      f'The input {lengths.argmax()} has {lengths.max()} tokens; widths go up '
      f'to {max(widths)}.'
    )
  least = 0
  for width in sorted(widths):
    wanted = [
      i
      for i in np.argsort(lengths, kind='stable')
      if least < lengths[i] <= width and i not in found
    ]
    least = width
    for start in range(0, len(wanted), batch_size):
      yield np.array(wanted[start : start + batch_size]), width


def _read(path: pathlib.Path, header: dict) -> dict[int, list[int]]:
  """The texts in the file; cuts off a last line that a kill left unfinished."""
  if not path.exists() or not path.stat().st_size:
    return {}
  content = path.read_bytes()
  whole = content[: content.rfind(b'\n') + 1]
  if len(whole) < len(content):
    with path.open('r+b') as file:
      file.truncate(len(whole))
  rows = [json.loads(line) for line in whole.splitlines()]
  if rows and rows[0] != header:
    # An older version did not write every name.
    differing = [
      f'{name} was {rows[0].get(name, "not recorded")} and is {value} now'
      for name, value in header.items()
      if rows[0].get(name) != value
    ]
    raise ValueError(
      f'{path} holds other texts: {"; ".join(differing)}. Take another run '
      'directory, or remove the file to have its texts made again.'
    )
  return {row['example']: row['tokens'] for row in rows[1:]}
