"""How sure a model is of given texts, token by token, and whether rightly.

The text is fed to the very step functions that decode, in one wide call, so
that what is judged is what a rule will see.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax import distributions
from speccascade_jax.models import protocol


@base.pytree_dataclass
class Judgement:
  """Of every position behind a given beginning; K temperatures."""

  confidence: base.Array  # [K, B, T] float32, max of softmax(logits / t_k).
  # [K, B, T] float32, -log softmax(logits / t_k) of the text's own token.
  surprisal: base.Array
  correct: base.Array  # [B, T] bool, the likeliest token is the text's own.


@functools.partial(jax.jit, static_argnames=('model',))
def judge(
  model: protocol.StepModel,
  params: base.Params,
  inputs: base.Array,
  targets: base.Array,
  temperatures: base.Array,
) -> Judgement:
  """Scores texts.

  Args:
    model: the step functions (static).
    params: the model's parameters.
    inputs: `[B, S]` int32 source texts or prompts, right-padded with 0.
    targets: `[B, T]` int32 texts, EOS included, right-padded with 0; what is
      said of the padding is not to be read.
    temperatures: `[K]`, above 0, that logits are divided by.
  """
  length = targets.shape[1]
  start = model.start(params, inputs, length, length)
  tokens = jnp.concatenate([start.token[:, None], targets[:, :-1]], axis=1)
  logits, _ = model.extend(params, start.cache, tokens, start.lengths)
  likeliest = distributions.argmax(logits)

  def at(temperature: base.Array) -> tuple[base.Array, base.Array]:
    # Never by way of the text's own probability: at a low temperature one that
    # is merely small underflows, and the mean over all would be infinite.
    scaled = logits / temperature
    total = jax.nn.logsumexp(scaled, axis=-1)
    own = jnp.take_along_axis(scaled, targets[..., None], axis=-1)[..., 0]
    return jnp.exp(scaled.max(axis=-1) - total), total - own

  # One after the other: K copies of [B, T, V] would be too much.
  confidence, surprisal = jax.lax.map(at, temperatures)
  return Judgement(confidence, surprisal, likeliest == targets)
