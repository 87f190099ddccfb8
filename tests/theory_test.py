"""The paper's lemmas as properties of this code, on random problems.

The equations are written out here in float64 NumPy; the package's rules and
its verification have to obey them.
"""

import functools
import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax import verification
from speccascade_jax.decoding import speculative
from speccascade_jax.models import tabular
from tests import enumeration

V = 6
N = 8  # Prefixes of a problem: 2^8 ways to defer.
GLOBAL_RULES = [
  deferral.chow,
  deferral.chow_log,
  deferral.diff,
  deferral.diff_log,
  deferral.opt,
  deferral.opt_log,
]
seeds = st.integers(0, 2**32 - 1)
alphas = st.floats(-0.5, 1.5, width=32)
by_name = {'ids': lambda rule: rule.__name__}


@functools.cache
def compiled(rule):
  return jax.jit(functools.partial(deferral.apply, rule))


def problem(seed, sharpness=2.0):
  """`q, p [N, V]` of two models that agree to some extent, float32."""
  rng = np.random.default_rng(seed)
  shared, a, b = rng.standard_normal((3, N, V))
  logits = sharpness * np.stack([shared + a, 1.5 * shared + 0.5 * b])
  return distributions.softmax(jnp.asarray(logits, jnp.float32))


def total_variation(p, q):
  return np.maximum(0.0, np.float64(p) - np.float64(q)).sum(-1)


@pytest.mark.parametrize('rule', GLOBAL_RULES, **by_name)
@settings(max_examples=10, deadline=None)
@given(seed=seeds, alpha=alphas)
def test_lemma_3_rejections_are_deferrals_times_distance(rule, seed, alpha):
  """`P(rejected) = r D_TV(p, q)`, of what the verification really does."""
  q, p = problem(seed)
  target = compiled(rule)(q, p, q, p, jnp.float32(alpha))
  # Every prefix begins a block of one token; the column behind it is the same.
  drafted = np.tile(np.arange(V), N)[:, None]
  both = jax.tree.map(
    lambda x: jnp.repeat(jnp.stack([x, x], axis=1), V, axis=0), (q, target)
  )
  cells = enumeration.integrate(verification.verify_tokens, drafted, *both)
  rejected = (cells.mass * (cells.accepted == 0)).sum(-1).reshape(N, V)
  # Where pi = q the token is kept after all, whatever rounding said.
  expected = np.asarray(target.deferral) * total_variation(p, q)
  np.testing.assert_allclose(
    (np.float64(q) * rejected).sum(-1), expected, atol=2e-6
  )


def objective(defer, drafter_loss, verifier_loss, distance, alpha):
  """Lemma 4's, `[..., N]` decisions to `[...]` sums over the prefixes."""
  loss = np.where(defer, verifier_loss + alpha * distance, drafter_loss)
  return loss.sum(-1)


DECISIONS = np.array(list(itertools.product((False, True), repeat=N)))


@pytest.mark.parametrize('rule', [deferral.opt, deferral.opt_log], **by_name)
@settings(max_examples=40, deadline=None)
@given(seed=seeds, alpha=alphas)
def test_lemma_4_no_other_decision_has_a_lower_plug_in(rule, seed, alpha):
  """`opt` minimises the objective with each model's own idea of its loss."""
  q, p = problem(seed)
  x, y = np.float64(q), np.float64(p)
  if rule is deferral.opt:  # 0-1 loss: a model expects 1 - max of itself.
    losses = 1.0 - x.max(-1), 1.0 - y.max(-1)
  else:  # Log loss: a model expects its entropy.
    losses = -(x * np.log(x)).sum(-1), -(y * np.log(y)).sum(-1)
  cost = functools.partial(
    objective,
    drafter_loss=losses[0],
    verifier_loss=losses[1],
    distance=total_variation(p, q),
    alpha=np.float64(np.float32(alpha)),
  )
  deferred = compiled(rule)(q, p, q, p, jnp.float32(alpha)).deferral > 0
  assert cost(np.asarray(deferred)) <= cost(DECISIONS).min() + 1e-5


@settings(max_examples=40, deadline=None)
@given(seed=seeds, alpha=alphas)
def test_lemma_4_is_optimal_where_the_confidences_are_right(seed, alpha):
  """With `max q` the true chance of q's guess, `opt` is the optimum itself."""
  q, p = problem(seed)
  rng = np.random.default_rng(seed + 1)
  truth = np.float64(distributions.softmax(rng.standard_normal((N, V))))

  def chance(model):
    guess = np.asarray(model).argmax(-1)
    return np.take_along_axis(truth, guess[:, None], axis=-1)  # [N, 1]

  cost = functools.partial(
    objective,
    drafter_loss=1.0 - chance(q)[:, 0],
    verifier_loss=1.0 - chance(p)[:, 0],
    distance=total_variation(p, q),
    alpha=np.float64(np.float32(alpha)),
  )
  # A rule reads the maximum of its confidences and nothing else of them.
  right = [
    jnp.broadcast_to(jnp.float32(chance(model)), (N, V)) for model in (q, p)
  ]
  target = compiled(deferral.opt)(q, p, *right, jnp.float32(alpha))
  least = cost(DECISIONS).min()
  assert cost(np.asarray(target.deferral) > 0) <= least + 1e-5


def test_lemma_4_would_catch_a_rule_that_ignores_the_rejection():
  q, p = problem(3)
  x, y = np.float64(q), np.float64(p)
  cost = functools.partial(
    objective,
    drafter_loss=1.0 - x.max(-1),
    verifier_loss=1.0 - y.max(-1),
    distance=total_variation(p, q),
    alpha=0.3,
  )
  deferred = compiled(deferral.diff)(q, p, q, p, jnp.float32(0.3)).deferral > 0
  assert cost(np.asarray(deferred)) > cost(DECISIONS).min() + 1e-3


@settings(max_examples=40, deadline=None)
@given(seed=seeds, alpha=st.floats(0.0, 0.9375, width=32))
def test_lemma_2_lossy_decoding_has_a_closed_form(seed, alpha):
  """Accepting and redrawing with that beta gives `lossy_exact`'s target."""
  q, p = (np.float64(x) for x in problem(seed))
  alpha = np.float64(np.float32(alpha))
  accept = np.minimum(1.0, p / ((1.0 - alpha) * q))
  missing = 1.0 - (q * accept).sum(-1, keepdims=True)
  # 1 / beta by bisection: the target's sum grows with it.
  low, high = np.zeros((N, 1)), np.ones((N, 1))
  for _ in range(60):
    middle = 0.5 * (low + high)
    target = np.maximum(np.minimum(q, p / (1.0 - alpha)), middle * p)
    small = target.sum(-1, keepdims=True) < 1.0
    low, high = np.where(small, middle, low), np.where(small, high, middle)
  assert (low * (1.0 - alpha) <= 1.0).all()  # beta >= 1 - alpha.
  redrawn = np.maximum(0.0, low * p - q)
  mass = redrawn.sum(-1, keepdims=True)
  share = np.divide(redrawn, mass, out=np.zeros_like(p), where=mass > 1e-12)
  emitted = q * accept + missing * share
  got = compiled(deferral.lossy_exact)(
    *(jnp.float32(x) for x in (q, p, q, p)), jnp.float32(alpha)
  )
  np.testing.assert_allclose(got.pi, target, atol=2e-6)
  np.testing.assert_allclose(got.pi, emitted, atol=2e-6)


# At T = 0 the scaled distributions are one-hot, and rules that differ in
# sampling decide alike: each group emits the same tokens at any one alpha.
GREEDY_GROUPS = [
  (deferral.diff, deferral.opt, deferral.token_v1),
  (deferral.diff_log, deferral.opt_log),
  (deferral.verifier_only, deferral.lossy, deferral.lossy_exact),
]


@pytest.mark.parametrize(
  'group', GREEDY_GROUPS, ids=lambda g: '-'.join(rule.__name__ for rule in g)
)
@settings(max_examples=40, deadline=None)
@given(seed=seeds, alpha=st.floats(0.0, 0.9375, width=32))
def test_greedy_equivalences_of_targets(group, seed, alpha):
  q_conf, p_conf = problem(seed)
  q, p = (jax.nn.one_hot(distributions.argmax(x), V) for x in (q_conf, p_conf))
  first, *others = (
    compiled(rule)(q, p, q_conf, p_conf, jnp.float32(alpha)).pi
    for rule in group
  )
  for other in others:
    np.testing.assert_allclose(other, first, atol=1e-6)


@pytest.mark.parametrize(
  'group', GREEDY_GROUPS, ids=lambda g: '-'.join(rule.__name__ for rule in g)
)
@pytest.mark.parametrize('alpha', (0.0, 0.15, 0.5))
def test_greedy_equivalences_through_the_loop(group, alpha):
  model = tabular.step_model(V)
  drafter, verifier = (
    tabular.init_params(jax.random.key(seed), V, 2, 3, 2.0) for seed in (0, 1)
  )
  texts = [
    speculative.decode(
      model,
      model,
      0.5 * (drafter + verifier),
      verifier,
      jnp.array([[2, 3], [3, 3], [4, 3]]),
      jax.random.split(jax.random.key(0), 3),
      alpha,
      rule=rule,
      gamma=3,
      max_length=24,
      scaling=distributions.Scaling(greedy=True),
    ).tokens
    for rule in group
  ]
  for text in texts[1:]:
    np.testing.assert_array_equal(text, texts[0])
