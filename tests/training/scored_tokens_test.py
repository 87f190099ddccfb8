"""Losses over part of a vocabulary."""

import jax
import numpy as np
import pytest

from speccascade_jax.models import families
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.training import distillation
from speccascade_jax.training import forward
from speccascade_jax.training import scored_tokens
from tests.training import tiny_run

V = tiny_run.CONFIG.vocab_size
GEMMA = gemma_config.GemmaConfig(V, 8, 1, 2, 1, 4, 8, final_logit_softcap=5.0)
_COUNTS = np.arange(V)[::-1] % 7


def test_the_most_frequent_are_there_and_the_others_by_chance():
  scored = scored_tokens.choose(_COUNTS, 12, seed=3)
  tokens = scored.tokens.tolist()
  assert tokens == sorted(set(tokens)) and len(tokens) == 12
  certain = [t for t, raised in zip(tokens, scored.offsets) if raised == 0]
  assert sorted(_COUNTS[certain]) == sorted(_COUNTS)[-9:]
  # Three stand for the fifteen that are not certain.
  raised = scored.offsets[scored.offsets > 0]
  np.testing.assert_allclose(raised, np.full(3, np.log(15 / 3)), rtol=1e-6)
  for token in range(V):
    at = scored.positions[token]
    assert (at == -1) if token not in tokens else tokens[at] == token
  draws = {
    tuple(scored_tokens.choose(_COUNTS, 12, seed=seed).tokens)
    for seed in range(5)
  }
  assert len(draws) > 1


def test_the_sum_of_the_softmax_is_right_on_average():
  logits = np.random.default_rng(0).normal(size=V)
  sums = [
    np.exp(logits[scored.tokens] + scored.offsets).sum()
    for seed in range(2000)
    for scored in [scored_tokens.choose(_COUNTS, 12, seed=seed)]
  ]
  error = np.std(sums) / len(sums) ** 0.5
  assert abs(np.mean(sums) - np.exp(logits).sum()) < 4 * error
  assert np.std(sums) > 0.1  # Each of them is an estimate.


@pytest.mark.parametrize(
  'config', [tiny_run.CONFIG, GEMMA], ids=['t5', 'gemma']
)
def test_logits_are_those_of_the_scored_tokens(config):
  scored = scored_tokens.choose(_COUNTS, 12)
  params = families.init(config, jax.random.key(0))
  batch = tiny_run.batch(0)
  some, every = (
    jax.jit(forward.teacher_forced(config, which))(params, batch, None)
    for which in (scored, None)
  )
  assert every.shape[-1] == V and np.std(every) > 0
  np.testing.assert_allclose(
    some, every[..., scored.tokens] + scored.offsets, rtol=1e-5, atol=1e-6
  )


def _distillation(scored, batch):
  params = [tiny_run.bigram_params(seed) for seed in range(2)]

  def logits(params, batch, key):
    every = tiny_run.bigram(params, batch, key)
    return (
      every if scored is None else every[..., scored.tokens] + scored.offsets
    )

  loss = distillation.loss(logits, logits, 0.5)
  if scored is not None:
    loss = scored_tokens.loss_over(scored, loss)
  return loss(*params, batch, None)


def test_over_all_tokens_the_loss_is_the_whole_one():
  batch = tiny_run.batch(0)
  every = scored_tokens.choose(_COUNTS, V)
  assert every.offsets.max() == 0 and every.tokens.tolist() == list(range(V))
  found, whole = _distillation(every, batch), _distillation(None, batch)
  for name, value in whole.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_a_target_that_is_not_scored_has_no_weight():
  batch = tiny_run.batch(0)
  scored = scored_tokens.choose(_COUNTS, 12)
  targets = batch['decoder_targets']
  there = np.isin(targets, scored.tokens) & (targets != 0)
  assert 0 < there.sum() < (targets != 0).sum()
  assert _distillation(scored, batch)['weight'] == there.sum()


@pytest.mark.parametrize('size', [1, V + 1])
def test_a_size_that_cannot_be_is_refused(size):
  with pytest.raises(
    ValueError, match=f'train.scored_tokens is {size}; it has'
  ):
    scored_tokens.choose(_COUNTS, size)
