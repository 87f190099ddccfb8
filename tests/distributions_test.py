"""Scaling, distances and drawing against naive float64, edges included."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import distributions
from tests.references import distributions as naive

ALMOST_ONE = 1 - 2.0**-24  # The largest float32 below one.
INF = float('inf')

scale = jax.jit(distributions.scale, static_argnames='scaling')
draw = jax.jit(distributions.draw)


def random_logits(shape, seed=0):
  rng = np.random.default_rng(seed)
  return (3.0 * rng.standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize('shape', ((1,), (7,), (3, 300), (2, 5, 64)))
def test_argmax_is_numpys_ties_and_infinities_included(shape):
  rng = np.random.default_rng(1)
  # Few different values, so that most rows have ties.
  logits = rng.integers(-2, 3, shape).astype(np.float32)
  logits[logits == -2] = -INF
  logits[..., -1] = -INF
  np.testing.assert_array_equal(
    jax.jit(distributions.argmax)(logits), logits.argmax(-1)
  )


@pytest.mark.parametrize('temperature', (0.1, 0.5, 1.0))
@pytest.mark.parametrize(
  'truncation',
  (
    {},
    {'top_k': 1},
    {'top_k': 5},
    {'top_k': 1000},
    {'top_p': 0.05},
    {'top_p': 0.83},
    {'min_p': 0.07},
    {'min_p': 1.0},
    {'eta': 0.2},
    {'eta': 0.01},
    {'eta': 1.0},
    {'top_k': 20, 'top_p': 0.9, 'min_p': 0.02, 'eta': 0.3},
  ),
  ids=str,
)
def test_scale_agrees_with_the_naive_one(truncation, temperature):
  logits = random_logits((3, 4, 50))
  scaling = distributions.Scaling(**truncation)
  probs = scale(jnp.asarray(logits), scaling, temperature)
  assert probs.shape == logits.shape and probs.dtype == jnp.float32
  for index in np.ndindex(3, 4):
    expected = naive.scaled(logits[index].tolist(), temperature, **truncation)
    np.testing.assert_allclose(probs[index], expected, rtol=2e-5, atol=1e-7)
    kept = np.array(expected) > 0
    assert not np.asarray(probs[index])[~kept].any()


def test_truncations_compose_in_the_documented_order():
  # 0.4 0.3 0.2 0.1: top-k 3 leaves 4/9 3/9 2/9, of which top-p 0.75 takes two.
  # The other way round, top-p 0.75 would take three, and top-k leave them.
  logits = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
  scaling = distributions.Scaling(top_k=3, top_p=0.75)
  probs = scale(logits, scaling, 1.0)
  np.testing.assert_allclose(probs, [0, 4 / 7, 0, 3 / 7], atol=1e-6)


def test_tokens_tied_with_the_last_one_kept_are_kept():
  logits = jnp.array([0.0, 2.0, 1.0, 1.0, 1.0])
  for truncation in ({'top_k': 2}, {'top_p': 0.5}):
    scaling = distributions.Scaling(**truncation)
    probs = scale(logits, scaling, 1.0)
    assert (probs > 0).tolist() == [False, True, True, True, True]


def test_truncating_to_everything_changes_nothing():
  logits = jnp.asarray(random_logits((2, 4096)))
  plain = scale(logits, distributions.Scaling(), 1.0)
  for truncation in (
    {'top_k': 4096},
    {'top_p': 1.0},
    {'min_p': 1e-9},
    {'eta': 1e-9},
  ):
    scaling = distributions.Scaling(**truncation)
    probs = scale(logits, scaling, 1.0)
    np.testing.assert_allclose(probs, plain, atol=1e-6)


def test_greedy_is_one_hot_and_ties_go_to_the_lowest_id():
  logits = jnp.array([[1.0, 3.0, 3.0, 2.0], [-INF, -INF, 0.0, 0.0]])
  scaling = distributions.Scaling(greedy=True, top_p=0.5)
  probs = scale(logits, scaling, 0.0)
  assert probs.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]


@pytest.mark.parametrize('temperature', (1e-38, 1e-6, 1.0, 1e30))
def test_extreme_logits_give_a_distribution(temperature):
  logits = jnp.array(
    [[3e38, -3e38, 0.0], [0.0, -INF, -INF], [-3e38, -3e38, -INF]]
  )
  for scaling in (
    distributions.Scaling(),
    distributions.Scaling(top_k=2, top_p=0.9, min_p=0.1, eta=0.05),
  ):
    probs = scale(logits, scaling, temperature)
    np.testing.assert_allclose(probs.sum(-1), 1.0, atol=1e-6)
    assert (np.asarray(probs)[logits == -INF] == 0).all()


def test_scale_computes_in_float32():
  logits = jnp.asarray(random_logits((2, 9)), jnp.bfloat16)
  for scaling in (distributions.Scaling(), distributions.Scaling(greedy=True)):
    probs = scale(logits, scaling, 1.0)
    assert probs.dtype == jnp.float32
  assert distributions.softmax(logits).dtype == jnp.float32


@pytest.mark.parametrize(
  'bad, match',
  (
    ({'top_k': 0}, 'top_k.*got 0'),
    ({'top_k': 2.5}, 'top_k.*got 2.5'),
    ({'top_k': True}, 'top_k.*got True'),
    ({'greedy': 1}, 'greedy must be True or False, got 1'),
    ({'greedy': 0.0}, 'greedy must be True or False, got 0.0'),
    ({'top_p': 0.0}, 'top_p.*got 0.0'),
    ({'top_p': 1.5}, 'top_p.*got 1.5'),
    ({'min_p': -0.1}, 'min_p.*got -0.1'),
    ({'eta': 0.0}, 'eta.*got 0.0'),
    ({'eta': 1.5}, 'eta.*got 1.5'),
    ({'min_p': float('nan')}, 'min_p.*got nan'),
  ),
)
def test_bad_scaling_is_refused(bad, match):
  with pytest.raises(ValueError, match=match):
    distributions.Scaling(**bad)


def test_numpy_settings_are_those_of_python():
  scaling = distributions.Scaling(greedy=np.True_, top_k=np.int64(3))
  assert scaling == distributions.Scaling(greedy=True, top_k=3)
  assert type(scaling.greedy) is bool and type(scaling.top_k) is int


def test_distances_agree_with_the_naive_ones():
  p, q = distributions.softmax(jnp.asarray(random_logits((2, 6, 40))))
  p = p.at[:, :3].set(0.0)
  for row in range(len(p)):
    a, b = p[row].tolist(), q[row].tolist()
    np.testing.assert_allclose(
      distributions.total_variation(p, q)[row],
      naive.total_variation(a, b),
      atol=1e-6,
    )
    np.testing.assert_allclose(
      distributions.entropy(p)[row], naive.entropy(a), atol=1e-5
    )
    np.testing.assert_allclose(
      distributions.residual(p, q)[row],
      [max(0.0, x - y) for x, y in zip(a, b)],
      atol=1e-7,
    )


def test_entropy_of_zero_and_of_denormal_probabilities_is_zero():
  probs = jnp.array([[1.0, 0.0, 0.0], [1.0, 1e-40, 1e-45]])
  assert distributions.entropy(probs).tolist() == [0.0, 0.0]


def test_guarded_arithmetic_has_no_nan():
  zero, one = jnp.float32(0.0), jnp.float32(1.0)
  assert distributions.penalty(jnp.float32(INF), zero) == 0.0
  assert distributions.penalty(jnp.float32(-INF), one) == -INF
  assert distributions.ratio(zero, zero) == 0.0
  assert jnp.isfinite(distributions.ratio(one, zero))
  probs = jnp.array([0.0, 0.5])
  assert distributions.lenient(probs, one).tolist() == [INF, INF]
  assert distributions.lenient(probs, jnp.float32(INF)).tolist() == [INF, INF]
  assert distributions.lenient(probs, jnp.float32(-3.0)).tolist() == [0, 0.5]
  assert distributions.lenient(probs, jnp.float32(0.5)).tolist() == [0, 1.0]


# Drawing.


def check_inverts(tokens, weights, u, tolerance):
  """`tokens [N]` are where the float64 CDF of `weights [V]` reaches `u [N]`.

  For every u and for both neighbouring steps of the CDF, so that no token's
  frequency is off by more than twice the tolerance.
  """
  weights = np.asarray(weights, np.float64)
  above = weights.cumsum() / weights.sum()
  below = np.concatenate([[0.0], above[:-1]])
  tokens, u = np.asarray(tokens), np.asarray(u, np.float64)
  assert (weights[tokens] > 0).all()
  assert (below[tokens] <= u + tolerance).all()
  assert (u <= above[tokens] + tolerance).all()


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
  st.lists(st.integers(0, 3), min_size=6, max_size=6).filter(any),
  st.sampled_from([0.0, 2.0**-24, 0.25, 0.5, 0.75, ALMOST_ONE]),
  st.sampled_from([1e-30, 1.0, 1e6]),
)
def test_draw_inverts_the_cdf(counts, u, size):
  weights = jnp.asarray(counts, jnp.float32) * size
  token = int(draw(weights, jnp.float32(u)))
  # In whole numbers: the first token whose cumulative count exceeds u.
  expected = np.flatnonzero(np.cumsum(counts) > u * sum(counts))[0]
  assert counts[token] > 0
  if size == 1.0:
    assert token == expected


@pytest.mark.parametrize('vocab_size', (1, 2, 255, 256, 257, 4096, 32128))
def test_draw_never_returns_a_token_of_weight_zero(vocab_size):
  rng = np.random.default_rng(vocab_size)
  weights = rng.random((16, vocab_size)) ** 8
  weights *= rng.random((16, vocab_size)) < 0.1
  weights[:, : vocab_size // 3] = 0.0
  weights[:, vocab_size - vocab_size // 5 :] = 0.0
  weights[np.arange(16), rng.integers(vocab_size, size=16)] = 1e-6
  weights = weights.astype(np.float32)
  for u in (0.0, 2.0**-24, 0.3, 0.999999, ALMOST_ONE):
    tokens = draw(weights, jnp.full((16,), u, jnp.float32))
    assert tokens.dtype == jnp.int32
    for row, token in enumerate(tokens.tolist()):
      check_inverts([token], weights[row], [u], 3e-7)


@pytest.fixture(scope='module')
def large():
  """262,144 weights with a heavy head and a long tail, and 2,048 uniforms."""
  rng = np.random.default_rng(0)
  weights = np.exp(2.5 * rng.standard_normal(262_144)).astype(np.float32)
  u = (np.arange(2_048) + 0.5) / 2_048
  return weights, u.astype(np.float32)


def test_frequencies_are_right_in_a_vocabulary_of_262144(large):
  weights, u = large
  draws = jax.jit(lambda w, u: jax.lax.map(lambda x: draw(w, x), u))
  check_inverts(draws(jnp.asarray(weights), u), weights, u, 3e-7)


def test_summing_the_vocabulary_in_order_would_be_caught(large):
  weights, u = large
  cumulative = np.cumsum(weights, dtype=np.float32)
  tokens = np.searchsorted(cumulative, u * cumulative[-1], side='right')
  with pytest.raises(AssertionError):
    check_inverts(tokens, weights, u, 3e-7)


def test_draw_takes_any_leading_dimensions():
  weights = np.random.default_rng(0).random((2, 3, 600)).astype(np.float32)
  u = np.random.default_rng(1).random((2, 3)).astype(np.float32)
  tokens = draw(weights, u)
  for index in np.ndindex(2, 3):
    assert tokens[index] == draw(weights[index], u[index])
