"""Every rule against the naive one, and one list of contracts for all."""

import collections
import dataclasses
import functools
import inspect
import textwrap

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import acceptance
from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from tests.references import distributions as naive_distributions
from tests.references import rules as naive

RULES = list(deferral.RULES)
V = 5
INF = float('inf')
# They hand nothing to the verifier: their deferral is NaN.
UNDEFINED = (deferral.lossy, deferral.lossy_exact)
TRACES = collections.Counter()
ARGUMENTS = ('q', 'p', 'q_conf', 'p_conf', 'alpha')
every_rule = pytest.mark.parametrize(
  'rule', RULES, ids=lambda rule: rule.__name__
)


@functools.cache
def compiled(rule):
  """One compilation a rule and shape, shared by the tests and counted."""

  def call(*args):
    TRACES[rule] += 1
    return deferral.apply(rule, *args)

  return jax.jit(call)


def random_inputs(seed=0, rows=24, temperature=0.7):
  """Four `[rows, V]` distributions: noise, one-hots and excluded tokens."""
  rng = np.random.default_rng(seed)
  logits = 2.0 * rng.standard_normal((2, rows, V))
  logits[:, ::4, 1] = -INF
  logits[0, ::3, 2] = -INF
  logits[1, 1::3, 3] = -INF
  logits[0, ::6] = np.where(np.arange(V) == 2, 0.0, -INF)
  logits[1, ::5] = np.where(np.arange(V) == 1, 0.0, -INF)
  logits = jnp.asarray(logits, jnp.float32)
  scaling = distributions.Scaling(greedy=temperature == 0.0)
  q, p = distributions.scale(logits, scaling, temperature)
  q_conf, p_conf = distributions.softmax(logits)
  return q, p, q_conf, p_conf


def interior(rule):
  """A few alphas between the ends of a rule's range, 0 among them."""
  low, high = deferral.RULES[rule] or (0.0, 1.0)
  return [a for a in (-0.6, 0.0, 0.2, 0.45, 0.8) if low <= a <= high]


def takes_rule_arguments(function):
  """The five of a rule; parameters of its own have defaults."""
  first, own = ARGUMENTS, inspect.signature(function).parameters
  return tuple(own)[:5] == first and all(
    own[name].default is not inspect.Parameter.empty for name in [*own][5:]
  )


def check_list_is_complete():
  """Every rule that is defined or named in the modules is in `RULES`."""
  found = {
    function
    for module in (deferral, acceptance)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if not name.startswith('_') and takes_rule_arguments(function)
  }
  assert found == set(deferral.RULES), found ^ set(deferral.RULES)


def test_the_list_of_rules_is_complete():
  check_list_is_complete()
  assert {rule.__name__ for rule in RULES} == set(naive.RULES)


def test_a_rule_missing_from_the_list_would_be_caught(monkeypatch):
  def forgotten(q, p, q_conf, p_conf, alpha):
    return p

  monkeypatch.setattr(deferral, 'forgotten', forgotten, raising=False)
  with pytest.raises(AssertionError, match='forgotten'):
    check_list_is_complete()


@every_rule
@pytest.mark.parametrize('temperature', (0.0, 0.7))
def test_pi_agrees_with_the_naive_rule(rule, temperature):
  inputs = random_inputs(temperature=temperature)
  for alpha in (*interior(rule), 1.0):
    target = compiled(rule)(*inputs, alpha)
    for row, args in enumerate(zip(*(np.asarray(x).tolist() for x in inputs))):
      expected = naive.RULES[rule.__name__](*args, alpha)
      np.testing.assert_allclose(target.pi[row], expected, atol=2e-6)


@every_rule
def test_a_rule_returns_distributions(rule):
  inputs = random_inputs()
  for alpha in (*interior(rule), 1.0, -1.0, -INF, INF, 1e30, -1e30, 1e-30):
    target = compiled(rule)(*inputs, alpha)
    assert target.pi.dtype == target.deferral.dtype == jnp.float32
    assert target.pi.shape == (24, V) and target.deferral.shape == (24,)
    pi, deferred = np.asarray(target.pi), np.asarray(target.deferral)
    assert (pi >= 0).all(), alpha  # Which a NaN is not.
    np.testing.assert_allclose(pi.sum(-1), 1.0, atol=1e-6)
    if rule in UNDEFINED:
      assert np.isnan(deferred).all()
    else:
      assert (deferred >= 0).all() and (deferred <= 1 + 1e-6).all()
    if target.bonus is not None:
      np.testing.assert_allclose(target.bonus.sum(-1), 1.0, atol=1e-6)


@every_rule
def test_a_rule_does_not_look_at_token_ids(rule):
  inputs = random_inputs()
  order = np.array([3, 0, 4, 1, 2])
  shuffled = [x[:, order] for x in inputs]
  for alpha in interior(rule):
    target = compiled(rule)(*inputs, alpha)
    other = compiled(rule)(*shuffled, alpha)
    np.testing.assert_allclose(target.pi[:, order], other.pi, atol=1e-6)
    np.testing.assert_allclose(target.deferral, other.deferral, atol=1e-6)


@every_rule
def test_a_rule_is_the_same_without_jit_and_in_any_shape(rule):
  inputs = random_inputs()
  alpha = interior(rule)[-1]
  target = compiled(rule)(*inputs, alpha)
  folded = [x.reshape(2, 3, 4, V) for x in inputs]
  eager = deferral.apply(rule, *folded, jnp.float32(alpha))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, np.reshape(b, a.shape), atol=1e-6
    ),
    target,
    eager,
  )
  alone = jax.eval_shape(
    functools.partial(deferral.apply, rule), *(x[0] for x in inputs), alpha
  )
  assert alone.pi.shape == (V,) and alone.deferral.shape == ()


@every_rule
def test_a_sweep_over_alpha_compiles_once(rule):
  inputs = random_inputs()
  compiled(rule)(*inputs, 0.5)
  traces = TRACES[rule]
  assert traces > 0
  for alpha in (0.0, 0.3, 1.0, -INF):
    compiled(rule)(*inputs, alpha)
  assert TRACES[rule] == traces


@every_rule
def test_ends_of_the_range_are_verifier_and_drafter(rule):
  inputs = random_inputs()
  q, p, q_conf, p_conf = (np.asarray(x) for x in inputs)
  assert abs(p - q).sum(-1).max() > 1.0
  ends = deferral.RULES[rule]
  if ends is None:
    only = p if rule is deferral.verifier_only else q
    for alpha in (-INF, 0.0, 1.0, INF):
      np.testing.assert_array_equal(compiled(rule)(*inputs, alpha).pi, only)
    return
  verifier, drafter = ends
  at_drafter = compiled(rule)(*inputs, drafter)
  np.testing.assert_allclose(at_drafter.pi, q, atol=1e-6)
  if rule not in UNDEFINED:
    assert not np.asarray(at_drafter.deferral).any()
  beyond = compiled(rule)(*inputs, verifier - 1e-3)
  np.testing.assert_allclose(beyond.pi, p, atol=1e-6)
  # At the closed end itself the comparison is strict.
  at_verifier = np.asarray(compiled(rule)(*inputs, verifier).pi)
  if rule is deferral.token_v3:
    assert abs(at_verifier - p).max() > 0.1
  elif rule in (deferral.chow, deferral.chow_log):
    certain = q_conf.max(-1) == 1.0
    assert certain.any() and not certain.all()
    np.testing.assert_array_equal(at_verifier[certain], q[certain])
    np.testing.assert_array_equal(at_verifier[~certain], p[~certain])
  else:
    np.testing.assert_allclose(at_verifier, p, atol=1e-6)


def test_alpha_of_zero_is_lossless_for_both_lossy_rules():
  inputs = random_inputs()
  for rule in (deferral.lossy, deferral.lossy_exact):
    np.testing.assert_allclose(
      compiled(rule)(*inputs, 0.0).pi, inputs[1], atol=1e-6
    )


def test_lossy_is_its_own_procedure():
  """The docstring's algebra: pi's acceptance and residual are lossy's own."""
  q, p, *_ = inputs = random_inputs(temperature=1.3)
  for alpha in (0.0, 0.2, 0.7, 0.99):
    pi = np.asarray(compiled(deferral.lossy)(*inputs, alpha).pi)
    drafted = np.asarray(q) > 0
    accept = np.minimum(1.0, pi / np.where(drafted, q, 1.0))[drafted]
    own = np.minimum(1.0, p / ((1 - alpha) * np.where(drafted, q, 1.0)))
    np.testing.assert_allclose(accept, own[drafted], atol=1e-5)
    rest, own_rest = np.maximum(0, pi - q), np.maximum(0, p - q)
    rejects = np.maximum(0, q - pi).sum(-1) > 1e-3
    np.testing.assert_allclose(
      rest[rejects] / rest[rejects].sum(-1, keepdims=True),
      own_rest[rejects] / own_rest[rejects].sum(-1, keepdims=True),
      atol=1e-3,
    )
  assert rejects.any()


def test_lossy_emits_the_verifier_behind_a_block():
  inputs = random_inputs()
  target = compiled(deferral.lossy)(*inputs, 0.5)
  np.testing.assert_array_equal(target.bonus, inputs[1])
  assert compiled(deferral.lossy_exact)(*inputs, 0.5).bonus is None


def test_deferral_is_the_mass_that_goes_to_the_verifier():
  q, p, q_conf, p_conf = inputs = random_inputs()
  target = compiled(deferral.diff)(*inputs, 0.2)
  defers = q_conf.max(-1) < p_conf.max(-1) - 0.2
  assert set(target.deferral.tolist()) == {0.0, 1.0}
  np.testing.assert_array_equal(target.deferral, defers)
  target = compiled(deferral.token_v2)(*inputs, 0.2)
  tokens = p_conf < p_conf.max(-1, keepdims=True) - 0.2
  eta = jnp.where(tokens, q, 0.0).sum(-1)
  np.testing.assert_allclose(target.deferral, eta, atol=1e-7)


def test_confidence_is_unscaled_and_the_mixture_scaled():
  sure = jnp.array([1.0, 0.0, 0.0])
  unsure = jnp.array([0.4, 0.3, 0.3])
  p = jnp.array([0.0, 1.0, 0.0])
  # A greedy drafter is certain of its choice; its confidence is what counts.
  target = deferral.apply(deferral.chow, sure, p, unsure, p, 0.5)
  assert target.pi.tolist() == p.tolist()
  target = deferral.apply(deferral.chow, unsure, p, sure, p, 0.5)
  assert target.pi.tolist() == unsure.tolist()
  # D_TV is that of the scaled ones: 1 for different one-hots.
  args = (sure, p, unsure, jnp.array([0.3, 0.6, 0.1]))
  assert deferral.apply(deferral.opt, *args, 0.15).deferral == 1.0
  assert deferral.apply(deferral.opt, *args, 0.25).deferral == 0.0


# Strictness, at values that float32 represents exactly.

GRID = 16


def grid_distribution():
  """Multiples of 1/16 that sum to one."""
  cuts = st.lists(st.integers(0, GRID), min_size=V - 1, max_size=V - 1)
  return cuts.map(lambda c: np.diff([0, *sorted(c), GRID]) / GRID)


EXACT_RULES = [
  deferral.chow,
  deferral.diff,
  deferral.opt,
  deferral.token_v1,
  deferral.token_v2,
  deferral.token_v3,
]


@pytest.mark.parametrize('rule', EXACT_RULES, ids=lambda rule: rule.__name__)
@settings(derandomize=True, max_examples=40, deadline=None)
@given(
  st.lists(grid_distribution(), min_size=4, max_size=4),
  st.integers(-GRID, GRID).map(lambda k: k / GRID),
)
def test_ties_are_decided_as_by_the_naive_rule(rule, inputs, alpha):
  """All sums and products here are exact, so that equal means equal."""
  target = compiled(rule)(*(np.float32(x) for x in inputs), alpha)
  expected = naive.RULES[rule.__name__](*(x.tolist() for x in inputs), alpha)
  np.testing.assert_array_equal(np.asarray(target.pi, np.float64), expected)


@dataclasses.dataclass(frozen=True)
class Tie:
  """Inputs at which a rule's comparison holds with equality at `alpha`."""

  rule: base.Rule
  q_conf: list[float]
  p_conf: list[float]
  alpha: float
  kept: int | None = None  # The tied token; None where the position is tied.


TIES = [
  Tie(deferral.chow, [0.5, 0.25, 0.25], [0.75, 0.25, 0.0], 0.5),
  Tie(deferral.diff, [0.5, 0.25, 0.25], [0.75, 0.25, 0.0], 0.25),
  # D_TV of the scaled distributions below is 0.5.
  Tie(deferral.opt, [0.5, 0.25, 0.25], [0.75, 0.25, 0.0], 0.5),
  Tie(deferral.chow_log, [1.0, 0.0, 0.0], [0.5, 0.5, 0.0], 0.0),
  Tie(deferral.diff_log, [0.5, 0.5, 0.0], [0.5, 0.5, 0.0], 0.0),
  Tie(deferral.opt_log, [0.5, 0.5, 0.0], [0.5, 0.5, 0.0], 0.0),
  Tie(deferral.token_v1, [0.5, 0.25, 0.25], [0.75, 0.25, 0.0], 0.25, 0),
  Tie(deferral.token_v2, [0.5, 0.25, 0.25], [0.5, 0.25, 0.25], 0.25, 1),
  Tie(deferral.token_v3, [0.5, 0.25, 0.25], [0.5, 0.25, 0.25], 0.5, 1),
]
ties = pytest.mark.parametrize('tie', TIES, ids=lambda tie: tie.rule.__name__)


def check_strict(tie, rule):
  """At the tie nothing is deferred, a little below it something is."""
  q, p = jnp.array([0.5, 0.5, 0.0]), jnp.array([0.25, 0.25, 0.5])
  conf = jnp.array(tie.q_conf), jnp.array(tie.p_conf)

  def defers(alpha):
    target = deferral.as_target(rule(q, p, *conf, jnp.float32(alpha)), q)
    if tie.kept is None:
      return bool(target.deferral)
    eta = target.deferral
    return bool(target.pi[tie.kept] < q[tie.kept] + p[tie.kept] * eta)

  assert not defers(tie.alpha)
  assert defers(tie.alpha - 1 / 64)


@ties
def test_comparisons_are_strict(tie):
  check_strict(tie, tie.rule)


def test_every_comparison_has_its_tie():
  comparing = {
    rule
    for rule in RULES
    if any(f' {sign} ' in inspect.getsource(rule) for sign in '<>')
    and rule.__module__ == deferral.__name__  # Others: acceptance_test.
  }
  assert {tie.rule for tie in TIES} == comparing
  assert set(EXACT_RULES) < comparing


@ties
def test_a_comparison_that_is_not_strict_would_be_caught(tie):
  source = textwrap.dedent(inspect.getsource(tie.rule))
  head, docstring, body = source.split('"""')
  lax = body.replace(' < ', ' <= ').replace(' > ', ' >= ')
  assert lax != body
  namespace = dict(vars(deferral))
  exec(head + '"""' + docstring + '"""' + lax, namespace)
  with pytest.raises(AssertionError):
    check_strict(tie, namespace[tie.rule.__name__])


# What a rule may return.


def test_a_bare_pi_is_promoted():
  q = jnp.array([[0.5, 0.5], [0.5, 0.5]])
  pi = jnp.array([[0.5, 0.5], [0.4, 0.6]])
  target = deferral.apply(lambda q, p, a, b, c: pi, q, q, q, q, 0.0)
  # Who was asked cannot be told from what is emitted.
  assert np.isnan(target.deferral).tolist() == [True, True]
  assert target.accept is target.residual is target.bonus is None


def test_a_target_may_have_a_boolean_deferral_and_wider_fields():
  q = jnp.full((3, 2), 0.5)

  def rule(q, p, q_conf, p_conf, alpha):
    return base.Target(q, q.max(-1) < 1.0, accept=q, residual=p, bonus=p)

  target = deferral.apply(rule, q, 2 * q, q, q, 0.0)
  assert target.deferral.dtype == jnp.float32
  assert target.deferral.tolist() == [1.0, 1.0, 1.0]
  assert target.bonus.tolist() == (2 * q).tolist()


@pytest.mark.parametrize(
  'out, error, match',
  (
    (lambda q: q.max(-1) < 0.5, ValueError, r'return pi .*\[3, 2\].*bool\[3\]'),
    (lambda q: q[:, :1], ValueError, r'pi .*\[3, 2\].*float32\[3, 1\]'),
    (lambda q: q > 0.5, ValueError, r'pi .*got bool\[3, 2\]'),
    (lambda q: (q, q), TypeError, 'must return a Target or the array pi'),
    (lambda q: None, TypeError, 'got NoneType'),
    (lambda q: base.Target(q, q), ValueError, r'deferral .*\[3\].*\[3, 2\]'),
    (lambda q: base.Target(q, None), ValueError, 'deferral .*got None'),
    (
      lambda q: base.Target(q, q[:, 0], bonus=q[:, 0]),
      ValueError,
      r'bonus .*\[3, 2\].*\[3\]',
    ),
  ),
)
def test_what_a_rule_must_not_return(out, error, match):
  def my_rule(q, p, q_conf, p_conf, alpha):
    return out(q)

  q = jnp.full((3, 2), 0.5)
  for rule in (my_rule, functools.partial(my_rule)):
    with pytest.raises(error, match=match) as caught:
      compiled(rule)(q, q, q, q, 0.0)
    assert 'my_rule' in str(caught.value)


def test_the_naive_beta_of_lemma_2_is_above_its_bound():
  rng = np.random.default_rng(5)
  for _ in range(20):
    q, p = rng.dirichlet(np.ones(V), size=2).tolist()
    for alpha in (0.1, 0.5, 0.9):
      beta = naive.lemma_2_beta(q, p, alpha)
      assert beta >= 1 - alpha
      pi = naive.lossy_exact(q, p, q, p, alpha)
      closed = [max(min(a, b / (1 - alpha)), b / beta) for a, b in zip(q, p)]
      np.testing.assert_allclose(pi, closed, atol=1e-9)
      assert naive_distributions.total_variation(pi, q) <= (
        naive_distributions.total_variation(p, q) + 1e-9
      )


def test_which_rules_look_at_confidences():
  blind = {
    rule.__name__
    for rule in deferral.RULES
    if not deferral.reads_confidences(rule)
  }
  assert blind == {
    *('verifier_only', 'drafter_only', 'lossy', 'lossy_exact', 'ensemble')
  }
