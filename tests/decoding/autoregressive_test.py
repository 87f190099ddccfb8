"""One model alone: greedy texts by hand, stops, counters, row independence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import base
from speccascade_jax import distributions
from speccascade_jax.decoding import autoregressive
from speccascade_jax.models import tabular

V = 5
GREEDY = distributions.Scaling(greedy=True)
DRAFTER, VERIFIER = base.Provenance.DRAFTER, base.Provenance.VERIFIER


def keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def naive_greedy(table, prefix, condition, limit):
  """Arg max after arg max, with nothing but the table."""
  text = []
  while len(text) < limit and text[-1:] != [1]:
    law = tabular.next_probs(table, prefix + text, condition)
    text.append(int(law.argmax()))
  return text


@pytest.mark.parametrize('decoder_only', [False, True])
def test_greedy_is_the_arg_max_of_every_prefix(decoder_only):
  model = tabular.step_model(V, decoder_only)
  inputs = jnp.array([[2, 3, 4], [3, 0, 0], [4, 4, 0], [2, 0, 0]])
  lengths = set()
  for seed in range(3):
    conditions = 1 if decoder_only else 3
    table = tabular.init_params(jax.random.key(seed), V, 3, conditions, 2.0)
    out = autoregressive.decode(
      model, table, inputs, keys(4), max_length=9, scaling=GREEDY
    )
    for row in range(4):
      prompt = [int(t) for t in inputs[row] if t] if decoder_only else [0]
      condition = 0 if decoder_only else int(inputs[row].sum() % 3)
      text = naive_greedy(table, prompt, condition, 9)
      assert out.tokens[row].tolist() == text + [0] * (9 - len(text))
      assert out.lengths[row] == len(text)
      lengths.add(len(text))
  assert len(lengths) > 2  # Some rows met EOS and some the limit.


@pytest.mark.parametrize(
  ('role', 'steps', 'calls', 'deferred'),
  [(DRAFTER, 6, 0, 0.0), (VERIFIER, 0, 6, 6.0)],
)
def test_a_step_a_token_is_counted_under_its_role(role, steps, calls, deferred):
  model = tabular.step_model(V)
  table = tabular.init_params(jax.random.key(0), V, 1).at[..., 1].set(-1e9)
  out = autoregressive.decode(
    model,
    table,
    jnp.ones((2, 1), jnp.int32),
    keys(2),
    max_length=6,
    role=role,
    trace=True,
  )
  assert out.counters.drafter_steps.tolist() == [steps] * 2
  assert out.counters.verifier_calls.tolist() == [calls] * 2
  assert out.counters.deferred.tolist() == [deferred] * 2
  assert (out.provenance == role).all()
  own = out.drafter_probs if role == DRAFTER else out.verifier_probs
  other = out.verifier_probs if role == DRAFTER else out.drafter_probs
  assert ((own > 0) & (own <= 1)).all()
  assert np.isnan(other).all()


def test_a_row_alone_samples_as_in_the_batch():
  model = tabular.step_model(V, decoder_only=True)
  table = tabular.init_params(jax.random.key(0), V, 2)
  inputs = jnp.array([[2, 3, 4], [3, 0, 0], [4, 4, 0]])
  batch = autoregressive.decode(model, table, inputs, keys(3), max_length=10)
  assert len(set(batch.lengths.tolist())) > 1
  for row, width in enumerate([3, 1, 2]):
    alone = autoregressive.decode(
      model,
      table,
      inputs[row : row + 1, :width],
      keys(3)[row : row + 1],
      max_length=10,
    )
    np.testing.assert_array_equal(alone.tokens[0], batch.tokens[row])


def test_temperature_and_truncation_reach_the_draw():
  """First tokens of many rows against the scaled law, within 5 sigma."""
  model = tabular.step_model(V)
  table = tabular.init_params(jax.random.key(4), V, 1)
  rows = 20_000
  scaling = distributions.Scaling(top_k=3)
  out = autoregressive.decode(
    model,
    table,
    jnp.zeros((rows, 1), jnp.int32),
    keys(rows),
    0.5,
    max_length=1,
    scaling=scaling,
  )
  law = tabular.next_probs(table, [0]) ** 2.0  # T = 0.5
  law[np.argsort(law)[:-3]] = 0.0
  law /= law.sum()
  share = np.bincount(np.asarray(out.tokens[:, 0]), minlength=V) / rows
  assert (share[law == 0] == 0).all()
  np.testing.assert_allclose(share, law, atol=5 * np.sqrt(0.25 / rows))


def test_a_role_that_is_neither_model_is_refused():
  with pytest.raises(ValueError, match='role must be DRAFTER or VERIFIER'):
    autoregressive.decode(
      tabular.step_model(V),
      tabular.init_params(jax.random.key(0), V, 1),
      jnp.ones((1, 1), jnp.int32),
      keys(1),
      max_length=2,
      role=base.Provenance.RESAMPLED,
    )
