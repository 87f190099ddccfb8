"""Models that are told what to say accept as often as they are told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import scripted
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax.decoding import speculative
from speccascade_jax.models import tabular

_V, _LENGTH, _GAMMA = 1009, 60, 3


@pytest.mark.parametrize('acceptance', [0.0, 0.7, 1.0])
@pytest.mark.parametrize('traced', [False, True])
def test_calls_and_text_are_those_of_the_script(acceptance, traced):
  model = tabular.step_model(_V)
  params = tabular.init_params(jax.random.key(0), _V, order=1)
  if traced:
    drafter = scripted.drafter(model)
    drafter_params = scripted.told(params, acceptance)
  else:
    drafter = scripted.step_model(model, acceptance)
    drafter_params = params
  out = speculative.decode(
    drafter,
    scripted.step_model(model),
    drafter_params,
    params,
    jnp.ones((1, 1), jnp.int32),
    jax.random.split(jax.random.key(0), 1),
    alpha=0.0,
    rule=deferral.verifier_only,
    gamma=_GAMMA,
    max_length=_LENGTH,
    scaling=distributions.Scaling(greedy=True),
  )
  text = [0]
  for _ in range(_LENGTH):
    text.append(int(scripted.successors(text[-1], _V, None)))
  assert out.tokens[0].tolist() == text[1:]
  assert min(text[1:]) > 2  # Neither padding nor an end.
  calls = int(out.counters.verifier_calls[0])
  assert calls == scripted.expected_calls(0, _V, acceptance, _GAMMA, _LENGTH)
  if acceptance in (0.0, 1.0):
    assert calls == (_LENGTH if acceptance == 0.0 else _LENGTH / (_GAMMA + 1))


def test_the_share_of_right_drafts_is_the_acceptance():
  tokens = np.arange(32128)
  right = scripted.successors(tokens, 32128, None)
  for acceptance in (0.6, 0.8, 0.95):
    drafted = scripted.successors(tokens, 32128, acceptance)
    assert abs((drafted == right).mean() - acceptance) < 0.01
