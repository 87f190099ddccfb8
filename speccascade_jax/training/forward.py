"""Teacher-forced forward passes, as the train step calls them."""

from __future__ import annotations

from speccascade_jax import base
from speccascade_jax.models import families
from speccascade_jax.training import scored_tokens
from speccascade_jax.training import train_step


def teacher_forced(
  config: families.Config,
  scored: scored_tokens.ScoredTokens | None = None,
) -> train_step.Forward:
  """`forward(params, batch, key)` of a model: logits `[B, T, V]`.

  The batch is the same for all: a decoder-only model reads what is an
  encoder's input as the text's beginning (a prefix language model).

  Args:
    config: the model.
    scored: the N tokens that are scored, `[B, T, N]`; None: all.
  """
  model = families.family_of(config).network(config)

  def forward(
    params: base.Params, batch: train_step.Batch, key: base.Array | None
  ) -> base.Array:
    logits = model.apply(
      {'params': params},
      batch['encoder_inputs'],
      batch['decoder_inputs'],
      deterministic=key is None,
      scored=None if scored is None else scored.tokens,
      rngs=None if key is None else {'dropout': key},
    )
    return logits if scored is None else logits + scored.offsets

  return forward
