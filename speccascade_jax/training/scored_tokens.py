"""Losses over part of a large vocabulary.

Over 262,144 tokens and 640 features the head of a small model is most of its
work, three times in a distillation step: teacher forward, student forward and
back. What decides a loss are the tokens that the texts use; the others matter
through the sum in the softmax alone, and a sample says how large that is. So
the loss is taken over N tokens: the most frequent ones, each for itself, and a
sample of n of the other m, each of which stands for m / n of them (its logit
is raised by log(m / n), as in a sampled softmax: Jean et al., 2015).

Logits outside are learned as far as they are like those of the sample. With N
= V the loss is the whole one.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from speccascade_jax import base
from speccascade_jax.training import losses
from speccascade_jax.training import train_step


@dataclasses.dataclass(frozen=True)
class ScoredTokens:
  """Which tokens a loss is over.

  Attributes:
    tokens: `[N]` int32, in rising order.
    offsets: `[N]` float32, what is added to their logits.
    positions: `[V]` int32, where a token is among `tokens`; -1: not there.
  """

  tokens: np.ndarray
  offsets: np.ndarray
  positions: np.ndarray


def choose(
  counts: np.ndarray, size: int, sampled: float = 0.25, seed: int = 0
) -> ScoredTokens:
  """The most frequent tokens, and a sample of the others.

  Args:
    counts: `[V]` how often each token occurs in the training texts.
    size: N.
    sampled: share of N that is drawn from the others.
    seed: of the draw.

  Raises:
    ValueError: if N is not between 2 and V.
  """
  vocab_size = len(counts)
  if not 2 <= size <= vocab_size:
    raise ValueError(
      f'train.scored_tokens is {size}; it has to be between 2 and the '
      f'{vocab_size} tokens of the model, or None for all of them.'
    )
  order = np.argsort(-counts, kind='stable')
  drawn = min(max(1, round(size * sampled)), vocab_size - 1)
  frequent, others = np.split(order, [size - drawn])
  sample = np.random.default_rng(seed).choice(others, drawn, replace=False)
  raised = np.zeros(vocab_size, np.float32)
  raised[sample] = np.log(len(others) / drawn)
  tokens = np.sort(np.concatenate([frequent, sample])).astype(np.int32)
  positions = np.full(vocab_size, -1, np.int32)
  positions[tokens] = np.arange(size)
  return ScoredTokens(tokens, raised[tokens], positions)


def loss_over(scored: ScoredTokens, loss: train_step.Loss) -> train_step.Loss:
  """`loss` with targets that count among the scored tokens.

  A position whose target is none of them has no weight. What the models read
  is any token, as before.
  """

  def evaluate(
    params: base.Params,
    frozen: base.Params,
    batch: train_step.Batch,
    key: base.Array | None,
  ) -> losses.Sums:
    targets = jnp.asarray(scored.positions)[batch['decoder_targets']]
    return loss(
      params,
      frozen,
      {
        **batch,
        'decoder_targets': targets,
        'loss_weights': batch['loss_weights'] * (targets >= 0),
      },
      key,
    )

  return evaluate
