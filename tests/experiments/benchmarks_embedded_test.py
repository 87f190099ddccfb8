"""A small T5 in a larger shape says what it said before."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.benchmarks import embedded
from speccascade_jax.models import families
from speccascade_jax.models.t5 import config as t5_config

_SMALL = t5_config.T5Config(
  vocab_size=23,
  emb_dim=12,
  num_heads=2,
  head_dim=4,
  mlp_dim=10,
  num_encoder_layers=1,
  num_decoder_layers=2,
  # Large enough to be missed if it were not corrected.
  layer_norm_epsilon=0.1,
)
_LARGER = dataclasses.replace(
  _SMALL,
  emb_dim=20,
  num_heads=3,
  mlp_dim=16,
  num_encoder_layers=3,
  num_decoder_layers=3,
)


def test_same_logits():
  params = families.init(_SMALL, jax.random.key(0))
  # Norms that have been trained are no ones.
  scales = iter(jax.random.split(jax.random.key(1), 99))
  params = jax.tree_util.tree_map_with_path(
    lambda path, x: (
      x * jax.random.uniform(next(scales), x.shape, minval=0.5, maxval=2.0)
      if path[-1].key == 'scale'
      else x
    ),
    params,
  )
  config, larger = embedded.embed(_SMALL, params, _LARGER)
  inputs = np.array([[5, 9, 3, 1, 0], [4, 8, 22, 7, 1]])
  targets = np.array([[0, 5, 2, 6, 11, 3], [0, 4, 19, 9, 9, 1]])

  def logits(config, params):
    network = families.family_of(config).network(config)
    apply = jax.jit(network.apply)
    return np.asarray(apply({'params': params}, inputs, targets))

  expected = logits(_SMALL, params)
  assert expected.std() > 0.1  # Or anything would be close to it.
  np.testing.assert_allclose(logits(config, larger), expected, atol=1e-5)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'head_dim': 8}, 'head_dim must be the same in both, got 4 and 8'),
    ({'mlp_dim': 9}, 'mlp_dim is 10, but the larger model has only 9'),
    ({'logits_via_embedding': True}, 'logits_via_embedding must be off'),
  ],
)
def test_what_does_not_fit_is_refused(change, message):
  larger = dataclasses.replace(_LARGER, **change)
  with pytest.raises(ValueError, match=message):
    embedded.embed(_SMALL, {}, larger)
