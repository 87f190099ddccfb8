"""A T5 pair that is small enough to compile in a second; random weights."""

from __future__ import annotations

import pathlib

from flax.core import meta
import jax
import numpy as np

from speccascade_jax import pair as pairs
from speccascade_jax.checkpoints import native
from speccascade_jax.models.t5 import config as t5_config
from speccascade_jax.models.t5 import network

_VOCABULARY = (
  pathlib.Path(pairs.__file__).parent / 'data/vocabulary/debian.model'
)


def save(folder: pathlib.Path) -> dict[str, str]:
  """Writes both models below `folder`; the arguments of `load_pair`."""
  for seed, name in enumerate(('drafter', 'verifier')):
    config = t5_config.T5Config(
      vocab_size=4096,
      emb_dim=16,
      num_heads=2,
      head_dim=8,
      mlp_dim=32,
      num_encoder_layers=1,
      num_decoder_layers=1 + seed,
    )
    one = np.ones([1, 1], np.int32)
    transformer = network.Transformer(config)
    params = transformer.init(jax.random.key(seed), one, one)['params']
    params = jax.tree.map(np.asarray, meta.unbox(params))
    native.save(folder / name, config, params)
  return {
    'drafter': str(folder / 'drafter'),
    'verifier': str(folder / 'verifier'),
    'vocabulary': str(_VOCABULARY),
  }
