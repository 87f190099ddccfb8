"""A training run of a second, in this process or in one to be killed.

  python -m tests.training.tiny_run RUN_DIR

prints the number of every batch that it takes and goes on until it is killed
or done.
"""

import functools
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax.models import families
from speccascade_jax.models.t5 import config as t5_config
from speccascade_jax.training import forward
from speccascade_jax.training import optimizer
from speccascade_jax.training import train_step
from speccascade_jax.training import trainer

CONFIG = t5_config.T5Config(
  vocab_size=24,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=24,
  num_encoder_layers=1,
  num_decoder_layers=1,
  logits_via_embedding=True,
  dropout_rate=0.1,
)
STEPS = 14


def batch(number, rows=4):
  """Batch `number`: copy the input, of 3 to 5 tokens, and say EOS."""
  random = np.random.default_rng(number)
  inputs = np.zeros((rows, 6), np.int32)
  for row in range(rows):
    length = random.integers(3, 6)
    inputs[row, :length] = random.integers(3, CONFIG.vocab_size, length)
    inputs[row, length] = 1
  return {
    'encoder_inputs': inputs,
    'decoder_inputs': np.pad(inputs[:, :-1], ((0, 0), (1, 0))),
    'decoder_targets': inputs,
    'loss_weights': (inputs != 0).astype(np.float32),
  }


def loss(label_smoothing=0.0):
  return train_step.teacher_forcing(
    forward.teacher_forced(CONFIG), label_smoothing
  )


@functools.cache
def _params():
  # In NumPy, since whoever gets them may donate them.
  return jax.tree.map(np.asarray, families.init(CONFIG, jax.random.key(0)))


def params():
  return jax.tree.map(jnp.array, _params())


def bigram_params(seed=0):
  """Of a model that compiles in no time: logits by the last token alone."""
  shape = (CONFIG.vocab_size, CONFIG.vocab_size)
  return {'table': jax.random.normal(jax.random.key(seed), shape)}


def bigram(params, batch, key):
  """The forward pass of that model, with a dropout of a half."""
  logits = params['table'][batch['decoder_inputs']]
  if key is None:
    return logits
  return logits * 2 * jax.random.bernoulli(key, 0.5, logits.shape)


def run(run_dir, announce=None, **loop):
  """Trains a T5 for `STEPS` steps, or goes on with it."""

  def batches(start):
    number = start
    while True:
      if announce is not None:
        announce(number)
      yield batch(number)
      number += 1

  return trainer.train(
    run_dir,
    params(),
    loss(label_smoothing=0.1),
    optimizer.adamw(clip_norm=1.0, weight_decay=0.01),
    optimizer.schedule(peak=1e-2, warmup_steps=3),
    batches,
    [batch(1_000_000), batch(1_000_001)],
    trainer.Loop(
      **dict(
        num_steps=STEPS,
        cooldown_steps=4,
        report_every=2,
        validate_every=6,
        checkpoint_every=4,
        average_decay=0.9,
      )
      | loop
    ),
    progress=False,
  )


if __name__ == '__main__':

  def say(number):
    print(number, flush=True)
    # Leaves the parent the time to kill in between two batches.
    time.sleep(0.2)

  run(sys.argv[1], say)
