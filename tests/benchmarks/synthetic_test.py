"""The drafter is right as often as asked, and the text stays the verifier's."""

import numpy as np
import pytest

import speccascade_jax as sc
from speccascade_jax.benchmarks import synthetic
from speccascade_jax.models.t5 import config as t5_config

_GAMMA, _LENGTH, _BATCH = 3, 40, 8


def _config(layers, **more):
  return t5_config.T5Config(
    **dict(
      vocab_size=64,
      emb_dim=16,
      num_heads=2,
      head_dim=8,
      mlp_dim=16,
      num_encoder_layers=1,
      num_decoder_layers=layers,
    )
    | more
  )


@pytest.fixture(scope='module')
def pair():
  return synthetic.random_pair(_config(1), _config(2), seed=1)


@pytest.fixture(scope='module')
def written(pair):
  """Sources, and what the verifier writes to them."""
  sources = synthetic.inputs(pair, _BATCH, 10, seed=2)
  out = pair.generate(sources, model='verifier', max_length=_LENGTH)
  return sources, out.tokens


def _speculated(pair, written, acceptance):
  sources, text = written
  scripted = synthetic.scripted(pair, text, acceptance, seed=3)
  return scripted.generate(
    sources, rule=sc.verifier_only, gamma=_GAMMA, max_length=_LENGTH
  )


@pytest.mark.parametrize('acceptance', [0.0, 0.4, 0.8, 1.0])
def test_the_text_is_the_verifier_s_at_every_acceptance(
  pair, written, acceptance
):
  out = _speculated(pair, written, acceptance)
  # Of a constant text the drafter would be right whatever the script says.
  assert len(np.unique(written[1])) > 5
  np.testing.assert_array_equal(out.tokens, written[1])
  assert (out.lengths == _LENGTH).all()  # Nobody ends early.


@pytest.mark.parametrize('acceptance', [0.0, 1.0])
def test_at_the_ends_rounds_are_exact(pair, written, acceptance):
  out = _speculated(pair, written, acceptance)
  a_round = 1 + _GAMMA * acceptance
  assert (out.stats['verifier_calls'] == np.ceil(_LENGTH / a_round)).all()


def test_in_between_the_rate_is_what_was_asked_for(pair, written):
  stats = _speculated(pair, written, 0.6).stats
  judged = (stats['accepted'] + stats['resampled']).sum()
  error = 3 * np.sqrt(0.6 * 0.4 / judged)
  assert stats['accepted'].sum() / judged == pytest.approx(0.6, abs=error)


def test_a_drafter_of_another_vocabulary_is_refused():
  with pytest.raises(ValueError, match='64 and 65'):
    synthetic.random_pair(_config(1), _config(1, vocab_size=65), seed=0)
