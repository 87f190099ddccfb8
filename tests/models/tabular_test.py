"""The toy models' law is the table's, read by hand for small cases."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax.models import tabular

V = 3
NONE = V  # The index of "before the first token".


def _table(order: int, conditions: int = 1) -> jax.Array:
  """Logits that spell their own index: log of 1 + a serial number."""
  shape = (conditions, *(V + 1,) * order, V)
  return jnp.log(1.0 + jnp.arange(np.prod(shape)).reshape(shape))


def _probs(table, *index):
  weights = np.exp(np.asarray(table, np.float64))[index]
  return weights / weights.sum()


def test_history_is_newest_first_and_padded_with_none():
  table = _table(2)
  for prefix, index in (
    ([], (0, NONE, NONE)),
    ([2], (0, 2, NONE)),
    ([2, 0], (0, 0, 2)),
    ([1, 1, 2, 0], (0, 0, 2)),
  ):
    np.testing.assert_allclose(
      tabular.next_probs(table, prefix), _probs(table, *index), rtol=1e-6
    )


def test_order_zero_ignores_the_history():
  table = _table(0)
  np.testing.assert_allclose(
    tabular.next_probs(table, [1, 2]), [1 / 6, 2 / 6, 3 / 6], rtol=1e-6
  )
  model = tabular.step_model(V)
  start = model.start(table, jnp.zeros((2, 1), jnp.int32), 4)
  logits, _ = model.extend(
    table, start.cache, jnp.asarray([[0, 2], [0, 1]]), start.lengths
  )
  expected = np.broadcast_to([1 / 6, 2 / 6, 3 / 6], (2, 2, V))
  np.testing.assert_allclose(jax.nn.softmax(logits), expected, rtol=1e-6)


def test_inputs_select_the_condition_whatever_their_padding():
  table = _table(1, conditions=3)
  inputs = jnp.asarray([[1, 0, 0], [1, 1, 0], [2, 2, 0]])
  assert tabular.condition_of(table, inputs).tolist() == [1, 2, 1]
  assert tabular.condition_of(table, inputs[:, :2]).tolist() == [1, 2, 1]
  model = tabular.step_model(V)
  start = model.start(table, inputs, 4)
  logits, _ = model.extend(
    table, start.cache, start.token[:, None], start.lengths
  )
  for row, condition in enumerate([1, 2, 1]):
    np.testing.assert_allclose(
      jax.nn.softmax(logits[row, 0]), _probs(table, condition, 0), rtol=1e-6
    )


def test_prompts_become_the_history():
  table = _table(2)
  model = tabular.step_model(V, decoder_only=True)
  start = model.start(table, jnp.asarray([[1, 2, 1], [2, 0, 0]]), 2)
  assert start.token.tolist() == [1, 2]
  assert start.lengths.tolist() == [2, 0]
  logits, _ = model.extend(
    table, start.cache, start.token[:, None], start.lengths
  )
  probs = jax.nn.softmax(logits[:, 0])
  np.testing.assert_allclose(probs[0], _probs(table, 0, 1, 2), rtol=1e-6)
  np.testing.assert_allclose(probs[1], _probs(table, 0, 2, NONE), rtol=1e-6)


def test_models_of_different_order_share_a_step_model():
  """So a drafter may see less of the history than its verifier."""
  assert tabular.step_model(V) is tabular.step_model(V)
  model = tabular.step_model(V)
  tokens = jnp.asarray([[0, 2, 1]])
  for order in (1, 3):
    table = tabular.init_params(jax.random.key(order), V, order)
    assert table.shape == (1, *(V + 1,) * order, V)
    start = model.start(table, tokens, 3)
    logits, _ = model.extend(table, start.cache, tokens, start.lengths)
    np.testing.assert_allclose(
      jax.nn.softmax(logits[0, -1]),
      tabular.next_probs(table, [0, 2, 1]),
      rtol=1e-5,
    )
