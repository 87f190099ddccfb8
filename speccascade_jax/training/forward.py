"""Teacher-forced forward passes, as the train step calls them."""

from __future__ import annotations

from speccascade_jax import base
from speccascade_jax.models.t5 import config as t5_config
from speccascade_jax.models.t5 import network
from speccascade_jax.training import train_step


def t5(config: t5_config.T5Config) -> train_step.Forward:
  """`forward(params, batch, key)` of a T5: logits `[B, T, V]`."""
  model = network.Transformer(config)

  def forward(
    params: base.Params, batch: train_step.Batch, key: base.Array | None
  ) -> base.Array:
    return model.apply(
      {'params': params},
      batch['encoder_inputs'],
      batch['decoder_inputs'],
      deterministic=key is None,
      rngs=None if key is None else {'dropout': key},
    )

  return forward
