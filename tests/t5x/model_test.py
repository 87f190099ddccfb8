"""The pair as a model of T5X, against T5X's own models and our own loop."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import speccascade_jax as sc
from speccascade_jax import distributions
from speccascade_jax.decoding import speculative
from speccascade_jax.models import families
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config
from tests.t5x import importing

importing.require()

# ruff: noqa: E402
from t5x import decoding
from t5x import models

import gin
from speccascade_jax.data import vocabulary
from speccascade_jax.inside_t5x import model as model_lib
from tests.t5x import steps


def config(**changes):
  sizes = dict(
    vocab_size=4096,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=32,
    num_encoder_layers=1,
    num_decoder_layers=1,
  )
  return t5_config.T5Config(**sizes | changes)


DRAFTER, VERIFIER = config(), config(num_decoder_layers=2, vocab_size=4100)


def cascade(**changes):
  settings = dict(
    verifier=VERIFIER,
    drafter=DRAFTER,
    input_vocabulary=vocabulary.debian(),
    output_vocabulary=vocabulary.debian(),
    rule=sc.opt,
    alpha=0.2,
    gamma=2,
    temperature=0.0,
  )
  return model_lib.SpeculativeCascade(**settings | changes)


@pytest.fixture(scope='module')
def variables():
  found = cascade().get_initial_variables(jax.random.PRNGKey(3), steps.SHAPES)
  # Fresh weights are all but uniform over the vocabulary.
  params = jax.tree.map(lambda x: 3 * x, found['params'])
  return found.copy({'params': params})


@pytest.fixture
def batch():
  rng = np.random.default_rng(0)
  inputs = rng.integers(3, 4096, (3, 7)).astype(np.int32)
  inputs[1, 4:] = 0
  targets = rng.integers(3, 4096, (3, 5)).astype(np.int32)
  targets[2, 3:] = 0
  return {
    'encoder_input_tokens': inputs,
    'decoder_input_tokens': np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
    'decoder_target_tokens': targets,
    'decoder_loss_weights': (targets > 0).astype(np.int32),
  }


def test_names_shapes_and_axes_are_those_of_two_models_of_t5x(variables):
  types = dict.fromkeys(steps.SHAPES, np.int32)
  for role, shape in (('drafter', DRAFTER), ('verifier', VERIFIER)):
    own = steps.t5x_model(shape).get_initial_variables(
      jax.random.PRNGKey(0), steps.SHAPES, types
    )
    assert jax.tree.map(np.shape, own['params']) == jax.tree.map(
      np.shape, variables['params'][role]
    )
    assert own['params_axes'] == variables['params_axes'][role]


def test_scores_are_those_of_the_verifier_inside_t5x(variables, batch):
  own = steps.t5x_model(VERIFIER)
  theirs = own.score_batch(variables['params']['verifier'], batch)
  ours = cascade().score_batch(variables['params'], batch)
  np.testing.assert_allclose(ours, theirs, rtol=1e-4)
  loss, metrics = cascade().eval_fn(variables['params'], batch)
  expected, _ = own.eval_fn(variables['params']['verifier'], batch)
  np.testing.assert_allclose(loss, expected, rtol=1e-4)
  assert 'accuracy' in metrics
  ours, more = cascade().score_batch(variables['params'], batch, True)
  np.testing.assert_allclose(ours, theirs, rtol=1e-4)
  assert more['decoder']['token_scores'][0].shape == (3, 5)


def test_lossless_and_greedy_is_what_t5x_decodes(variables, batch):
  """T5X's cache, its sampler and its network, on the verifier alone."""
  own = steps.t5x_model(config(num_decoder_layers=2))
  greedy = functools.partial(
    decoding.temperature_sample, temperature=0.0, topk=1
  )
  own._decode_fn = greedy
  params = jax.device_get(variables['params']['verifier']).unfreeze()
  embedding = params['token_embedder']['embedding'][:4096]
  kernel = params['decoder']['logits_dense']['kernel'][:, :4096]
  params['token_embedder']['embedding'] = embedding
  params['decoder']['logits_dense']['kernel'] = kernel
  theirs = own.predict_batch(params, batch)
  ours = cascade(rule=sc.verifier_only).predict_batch(
    variables['params'], batch
  )
  np.testing.assert_array_equal(ours, theirs)
  alone = cascade(rule=sc.drafter_only)
  assert (alone.predict_batch(variables['params'], batch) != ours).any()


def test_scores_of_predictions_are_those_of_score_batch(variables, batch):
  both = cascade(temperature=1.0)
  tokens, aux = both.predict_batch_with_aux(
    variables['params'], batch, jax.random.PRNGKey(5)
  )
  tokens = np.asarray(tokens)
  assert (tokens.astype(bool).sum(1) == aux['lengths']).all()
  again = {
    'encoder_input_tokens': batch['encoder_input_tokens'],
    'decoder_input_tokens': np.pad(tokens, ((0, 0), (1, 0)))[:, :-1],
    'decoder_target_tokens': tokens,
    'decoder_loss_weights': (tokens > 0).astype(np.int32),
  }
  # The loop decodes over the 4,096 tokens that both models have.
  cut = cascade(verifier=config(num_decoder_layers=2))
  params = variables['params'].unfreeze()
  verifier = params['verifier']
  for tree, name, index in (
    (verifier['token_embedder'], 'embedding', np.s_[:4096]),
    (verifier['decoder']['logits_dense'], 'kernel', np.s_[:, :4096]),
  ):
    tree[name] = tree[name][index]
  np.testing.assert_allclose(
    aux['scores'], cut.score_batch(params, again), rtol=1e-4
  )


@pytest.mark.parametrize('raw', [True, False])
def test_sampling_is_the_loop_s_own(variables, batch, raw):
  small = config(num_decoder_layers=2)
  both = cascade(
    verifier=small, temperature=0.7, top_p=0.9, verification=sc.verify_block
  )
  params = both.get_initial_variables(jax.random.key(1), {})['params']
  params = jax.tree.map(lambda x: 3 * x, params)
  key = jax.random.key(9)
  rng = jax.random.key_data(key) if raw else key
  found = jax.jit(both.predict_batch)(params, batch, rng)
  expected = speculative.decode(
    families.step_model(DRAFTER),
    families.step_model(small),
    params['drafter'].unfreeze(),
    params['verifier'].unfreeze(),
    batch['encoder_input_tokens'],
    jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(3)),
    0.2,
    0.7,
    rule=sc.opt,
    gamma=2,
    max_length=5,
    verify=sc.verify_block,
    scaling=distributions.Scaling(top_p=0.9),
  )
  np.testing.assert_array_equal(found, expected.tokens)
  other = both.predict_batch(params, batch, jax.random.key(10))
  assert (np.asarray(other) != found).any()


def test_functions_that_gin_hands_over_are_known():
  wrapped = gin.external_configurable(sc.opt, name='opt', module='model_test')
  assert wrapped is not sc.opt
  assert cascade(rule=wrapped)._rule is sc.opt
  own = gin.external_configurable(_own_rule, module='model_test')
  assert cascade(rule=own)._rule is own


def _own_rule(q, p, q_conf, p_conf, alpha, *, least=0.5):
  del q_conf, alpha
  return sc.mix(q, p, p_conf.max(-1) < least)


GEMMA = gemma_config.GemmaConfig(
  vocab_size=4096,
  emb_dim=8,
  num_layers=1,
  num_heads=1,
  num_kv_heads=1,
  head_dim=8,
  mlp_dim=8,
)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'drafter': GEMMA}, 'SpeculativeCascade.drafter must be a T5Config'),
    ({'drafter': config(vocab_size=4000)}, "4096 pieces.*'drafter': 4000"),
    ({'rule': None}, 'needs a deferral rule'),
    ({'gamma': 0}, 'gamma must be a positive integer, got 0'),
    ({'temperature': -1.0}, 'temperature must be positive and finite'),
    ({'alpha': 'much'}, "alpha must be a number, got 'much'"),
    ({'top_p': 1.5}, 'top_p'),
    ({'rule': sc.lossy, 'verification': sc.verify_block}, 'verify_block'),
  ],
)
def test_what_makes_no_pair_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    cascade(**changes)


def test_packed_examples_are_refused(variables, batch):
  packed = {**batch, 'encoder_segment_ids': batch['encoder_input_tokens'] > 0}
  with pytest.raises(ValueError, match='set DatasetConfig.pack = False'):
    cascade().score_batch(variables['params'], packed)


def test_t5x_takes_it_for_one_of_its_own():
  assert isinstance(cascade(), models.EncoderDecoderModel)
  assert models.get_output_vocabulary(cascade()) == vocabulary.debian()
