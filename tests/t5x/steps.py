"""Checkpoints that T5X itself writes, of its own networks."""

from __future__ import annotations

import pathlib

from flax import core
import jax
import numpy as np
import seqio
from t5x import adafactor
from t5x import checkpoints
from t5x import models
from t5x import partitioning
from t5x import train_state as train_state_lib
from t5x.examples.scalable_t5 import network as scanned_network
from t5x.examples.t5 import network

from speccascade_jax.data import vocabulary
from speccascade_jax.models.t5 import config as t5_config

SHAPES = {'encoder_input_tokens': (2, 8), 'decoder_input_tokens': (2, 8)}


def partitioner(num_partitions: int = 1) -> partitioning.PjitPartitioner:
  return partitioning.PjitPartitioner(num_partitions=num_partitions)


def t5x_model(
  config: t5_config.T5Config, scanned: bool = False
) -> models.EncoderDecoderModel:
  """T5X's own model of a shape, with T5X's own network."""
  words: seqio.Vocabulary = vocabulary.debian()
  networks = scanned_network if scanned else network
  return models.EncoderDecoderModel(
    module=networks.Transformer(
      networks.T5Config(
        vocab_size=config.vocab_size,
        emb_dim=config.emb_dim,
        num_heads=config.num_heads,
        num_encoder_layers=config.num_encoder_layers,
        num_decoder_layers=config.num_decoder_layers,
        head_dim=config.head_dim,
        mlp_dim=config.mlp_dim,
        mlp_activations=config.mlp_activations,
        logits_via_embedding=config.logits_via_embedding,
      )
    ),
    input_vocabulary=words,
    output_vocabulary=words,
    optimizer_def=adafactor.Adafactor(
      logical_factor_rules=adafactor.standard_logical_factor_rules()
    ),
  )


def train_state(
  config: t5_config.T5Config, params, step: int
) -> train_state_lib.FlaxOptimTrainState:
  """What T5X has in memory while it trains, optimizer and all."""
  model = t5x_model(config, scanned='encoder' in params['encoder'])
  types = dict.fromkeys(SHAPES, np.int32)
  variables = model.get_initial_variables(jax.random.PRNGKey(0), SHAPES, types)
  state = train_state_lib.FlaxOptimTrainState.create(
    model.optimizer_def, variables
  )
  host = jax.tree.map(np.asarray, core.unfreeze(params))
  ours, theirs = (
    jax.tree.map(np.shape, core.unfreeze(tree)) for tree in (host, state.params)
  )
  assert ours == theirs  # T5X's names and shapes are ours.
  return state.replace_params(core.freeze(host)).replace_step(np.int32(step))


def save(
  folder: pathlib.Path,
  config: t5_config.T5Config,
  params,
  step: int = 7,
  orbax: bool = False,
) -> pathlib.Path:
  """Writes `folder/checkpoint_N` as T5X's train.py does."""
  state = train_state(config, params, step)
  folder.mkdir(parents=True)
  if orbax:
    manager = checkpoints.OrbaxCheckpointManagerInterface(
      str(folder), state, partitioner()
    )
    manager.save(state)
    manager.wait_until_finished()
    manager.close()
  else:
    checkpoints.Checkpointer(state, partitioner(), str(folder)).save(state)
  return folder / f'checkpoint_{step}'
