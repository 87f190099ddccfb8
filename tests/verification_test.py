"""Verification is exact: its law is enumerated, not sampled."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax import verification
from tests import enumeration
from tests.references import sampler
from tests.references import verification as naive

TOLERANCE = 1e-6
VERIFIERS = (verification.verify_tokens, verification.verify_block)
TEMPERATURES = (0.0, 0.5, 1.0)
DRAFTER, RESAMPLED = base.Provenance.DRAFTER, base.Provenance.RESAMPLED
VERIFIER, NONE = base.Provenance.VERIFIER, base.Provenance.NONE

# (V, G); the models over three tokens are shared by gamma 3 and 4.
SHAPES = ((5, 1), (4, 2), (3, 3), (3, 4))

# Alphas that leave both models something to say on the tables below.
ALPHAS = {
  deferral.verifier_only: 0.0,
  deferral.drafter_only: 0.0,
  deferral.chow: 0.45,
  deferral.chow_log: 0.75,  # Of log V.
  deferral.diff: 0.08,
  deferral.diff_log: 0.2,
  deferral.opt: 0.1,
  deferral.opt_log: 0.2,
  deferral.token_v1: 0.3,
  deferral.token_v2: 0.3,
  deferral.token_v3: 0.5,
  deferral.lossy: 0.3,
  deferral.lossy_exact: 0.3,
  deferral.typical: 0.8,
  deferral.bild_fixed: 1.3,
  deferral.ensemble: 0.4,
}
# They prescribe the token behind a block.
WIDE = {deferral.lossy, deferral.typical, deferral.bild_fixed}
GLOBAL_RULES = {
  deferral.chow,
  deferral.chow_log,
  deferral.diff,
  deferral.diff_log,
  deferral.opt,
  deferral.opt_log,
}


def supported(rule, verify):
  """A block has no place for a bonus token that is not drawn from pi."""
  return rule not in WIDE or verify == verification.verify_tokens


CASES = [
  pytest.param(
    shape, rule, verify, id=f'{shape}-{rule.__name__}-{verify.__name__}'
  )
  for shape in SHAPES
  for verify in VERIFIERS
  for rule in deferral.RULES
  if supported(rule, verify)
]


@functools.cache
def tables(vocab_size):
  gamma = max(g for v, g in SHAPES if v == vocab_size)
  return enumeration.Tables.random(vocab_size, gamma, seed=4)


def alpha_of(rule, vocab_size):
  """Entropies grow with the vocabulary."""
  of = math.log(vocab_size) if rule == deferral.chow_log else 1.0
  return ALPHAS[rule] * of


@functools.cache
def compiled(verify):
  """One compilation a verifier and shape, shared by the tests."""
  return jax.jit(verify)


def rows_of(target, rows):
  """A Target over all histories, at `rows [N, G+1]` of them."""
  return jax.tree.map(lambda x: x[rows], target)


def check_emits_pi(
  shape, rule, verify, temperature, reference=None, alpha=None
):
  """What `verify` emits has the sequential law of the reference's pi.

  Integrates over the drafted blocks, and over the uniforms of the verdict.
  """
  vocab_size, gamma = shape
  models = tables(vocab_size)
  alpha = alpha_of(rule, vocab_size) if alpha is None else alpha
  drafted, rows = models.blocks(gamma)
  q, _ = models.scaled(temperature)
  target = models.target(rule, alpha, temperature)
  chances = np.asarray(q, np.float64)[rows[:, :gamma]]
  block_mass = np.take_along_axis(chances, drafted[..., None], -1)
  block_mass = block_mass[..., 0].prod(axis=-1)

  name = reference or rule.__name__
  pi = models.naive_pi(name, alpha, temperature)
  bonus = models.naive_pi('verifier_only', alpha, temperature)

  def next_dist(prefix):
    behind_block = rule in WIDE and len(prefix) == gamma
    return (bonus if behind_block else pi)[models.row(prefix)]

  cells = enumeration.integrate(verify, drafted, q[rows], rows_of(target, rows))
  emitted = enumeration.emitted_law(cells, drafted, block_mass, next_dist)
  expected = sampler.sequential_law(next_dist, gamma + 1)
  np.testing.assert_allclose(sum(expected.values()), 1.0, atol=1e-9)
  assert sampler.distance(emitted, expected) < TOLERANCE


@pytest.mark.parametrize('shape, rule, verify', CASES)
def test_the_law_of_what_is_emitted_is_pi(shape, rule, verify):
  for temperature in TEMPERATURES:
    check_emits_pi(shape, rule, verify, temperature)


@pytest.mark.parametrize('vocab_size', (5, 4, 3))
@pytest.mark.parametrize('temperature', TEMPERATURES)
def test_the_laws_under_test_are_different_ones(vocab_size, temperature):
  models = tables(vocab_size)
  pi = {
    rule: np.array(
      models.naive_pi(rule.__name__, alpha_of(rule, vocab_size), temperature)
    )
    for rule in ALPHAS
  }
  q, p = pi[deferral.drafter_only], pi[deferral.verifier_only]
  assert abs(q - p).max() > 0.1
  for rule in GLOBAL_RULES:
    deferred = abs(pi[rule] - q).max(axis=-1) > 1e-3
    kept = abs(pi[rule] - p).max(axis=-1) > 1e-3
    assert deferred.any() and kept.any(), rule.__name__
  if temperature == 1.0:
    for rule in set(pi) - GLOBAL_RULES:
      differs_from = [
        other for other in pi if abs(pi[rule] - pi[other]).max() > 1e-3
      ]
      assert len(differs_from) == len(pi) - 1, rule.__name__


@pytest.mark.parametrize('verify', VERIFIERS)
def test_every_alpha_and_the_ends_of_its_range(verify):
  for alpha in (-0.5, 0.0, 0.2, 0.8, 1.0, 1.5):
    check_emits_pi((3, 3), deferral.token_v3, verify, 1.0, alpha=alpha)
    if -0.1 < alpha < 1.1:
      check_emits_pi((3, 3), deferral.lossy_exact, verify, 1.0, alpha=alpha)


@pytest.mark.parametrize('verify', VERIFIERS)
@pytest.mark.parametrize('temperature', TEMPERATURES)
def test_every_block_is_judged_as_by_the_naive_verifier(verify, temperature):
  vocab_size, gamma = 3, 4
  models = tables(vocab_size)
  drafted, rows = models.blocks(gamma)
  q, _ = models.scaled(temperature)
  target = models.target(deferral.token_v1, 0.3, temperature)
  cells = enumeration.integrate(verify, drafted, q[rows], rows_of(target, rows))
  lengths = cells.accepted_law()
  judge = naive.block if verify == verification.verify_block else naive.tokens
  q, pi = (np.asarray(x, np.float64)[rows] for x in (q, target.pi))
  drawable = np.take_along_axis(q[:, :gamma], drafted[..., None], axis=-1).all(
    axis=(1, 2)
  )
  for n in np.flatnonzero(drawable):
    outcomes = judge(drafted[n].tolist(), q[n].tolist(), pi[n].tolist())
    expected = [mass for mass, _ in outcomes]
    np.testing.assert_allclose(lengths[n], expected, atol=TOLERANCE)
    for c in np.flatnonzero(cells.mass[n] > 1e-3):
      accepted = cells.accepted[n, c]
      _, law = outcomes[accepted]
      np.testing.assert_allclose(cells.next_law[n, c], law, atol=TOLERANCE)
      last = VERIFIER if accepted == gamma else RESAMPLED
      assert cells.provenance[n, c].tolist() == [
        *[DRAFTER] * accepted,
        last,
        *[NONE] * (gamma - accepted),
      ]
  assert drawable.sum() == (1 if temperature == 0 else vocab_size**gamma)


@pytest.mark.parametrize('verify', VERIFIERS)
def test_cells_describe_the_verdict_at_any_uniforms(verify):
  """The integrals above rest on this: one step a uniform, and no other."""
  vocab_size, gamma = 3, 4
  models = tables(vocab_size)
  drafted, rows = models.blocks(gamma)
  q, _ = models.scaled(1.0)
  q = q[rows]
  target = rows_of(models.target(deferral.token_v1, 0.3, 1.0), rows)
  cells = enumeration.integrate(verify, drafted, q, target)
  rng = np.random.default_rng(0)
  blocks = np.arange(len(drafted))
  for _ in range(20):
    u = rng.integers(enumeration.GRID, size=(len(drafted), gamma + 1))
    u = u / enumeration.GRID
    verdict = compiled(verify)(
      drafted,
      q,
      target,
      jnp.asarray(u[:, :-1], jnp.float32),
      jnp.asarray(u[:, -1], jnp.float32),
    )
    below = u[:, :-1] < cells.thresholds
    cell = (below[:, None] == cells.below).all(axis=-1).argmax(axis=1)
    np.testing.assert_array_equal(
      verdict.accepted, cells.accepted[blocks, cell]
    )
    cumulative = cells.next_law[blocks, cell].cumsum(axis=-1)
    expected = (u[:, -1:] >= cumulative - 1e-9).sum(axis=-1)
    np.testing.assert_array_equal(verdict.next_token, expected)


def test_blocks_keep_more_than_tokens():
  vocab_size, gamma = 3, 4
  models = tables(vocab_size)
  drafted, rows = models.blocks(gamma)
  q, _ = models.scaled(1.0)
  block_mass = np.take_along_axis(
    np.asarray(q, np.float64)[rows[:, :gamma]], drafted[..., None], -1
  )[..., 0].prod(axis=-1)
  for rule in (deferral.verifier_only, deferral.token_v3, deferral.opt):
    target = rows_of(models.target(rule, ALPHAS[rule], 1.0), rows)
    by_tokens, by_block = (
      enumeration.integrate(verify, drafted, q[rows], target).accepted_law()
      @ np.arange(gamma + 1)
      @ block_mass
      for verify in VERIFIERS
    )
    assert by_block > by_tokens + 1e-3, rule.__name__


def one_block(drafted, q, pi, u_accept, u_next, verify, **wider):
  """A verdict on one row of written-out numbers."""

  def array(x):
    return jnp.asarray(x, jnp.float32)[None]

  target = base.Target(
    pi=array(pi),
    deferral=jnp.zeros((1, len(q))),
    **{name: array(value) for name, value in wider.items()},
  )
  verdict = compiled(verify)(
    jnp.asarray(drafted)[None],
    array(q),
    target,
    array(u_accept),
    array(u_next),
  )
  return (
    verdict.accepted[0].item(),
    verdict.next_token[0].item(),
    verdict.provenance[0].tolist(),
  )


@pytest.mark.parametrize('verify', VERIFIERS)
def test_the_drawing(verify):
  q = [[0.5, 0.5, 0.0]] * 4
  pi = [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
  # The second token of 0 1 0 has no mass in pi; what q has too much of at
  # token 1 is missing at token 2.
  assert one_block([0, 1, 0], q, pi, [0.9, 0.0, 0.0], 0.7, verify) == (
    1,
    2,
    [DRAFTER, RESAMPLED, NONE, NONE],
  )
  assert one_block([0, 0, 0], q, pi, [0.9, 0.9, 0.9], 0.7, verify) == (
    3,
    2,
    [DRAFTER, DRAFTER, DRAFTER, VERIFIER],
  )


def check_zero_mass_is_never_kept(verify):
  """With u = 0, a token that the target excludes is still rejected."""
  q = [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
  for pi, drafted, first in (
    ([[0.0, 1.0]] * 3, [0, 0], 0),
    ([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], [0, 0], 1),
  ):
    verdict = one_block(drafted, q, pi, [0.0, 0.0], 0.0, verify)
    assert verdict[:2] == (first, 1), verdict


@pytest.mark.parametrize('verify', VERIFIERS)
def test_zero_mass_is_never_kept(verify):
  check_zero_mass_is_never_kept(verify)


@pytest.mark.parametrize('verify', VERIFIERS)
def test_greedy_keeps_what_agrees_whatever_the_uniforms(verify):
  one_hot = np.eye(4)
  q = one_hot[[2, 1, 0, 3]]
  almost_one = 1 - 2.0**-24
  for pi, expected in (
    ([2, 1, 0, 1], (3, 1, [DRAFTER, DRAFTER, DRAFTER, VERIFIER])),
    ([2, 1, 3, 1], (2, 3, [DRAFTER, DRAFTER, RESAMPLED, NONE])),
    ([0, 1, 0, 1], (0, 0, [RESAMPLED, NONE, NONE, NONE])),
    ([2, 3, 0, 1], (1, 3, [DRAFTER, RESAMPLED, NONE, NONE])),
  ):
    for u in (0.0, 0.5, almost_one):
      verdict = one_block([2, 1, 0], q, one_hot[pi], [u] * 3, u, verify)
      assert verdict == expected


@pytest.mark.parametrize('verify', VERIFIERS)
def test_a_residual_without_mass_keeps_the_drafted_token(verify):
  # pi has lost a little by rounding, and gained it nowhere.
  q = np.array([[0.25, 0.75], [0.25, 0.75]], np.float32)
  pi = q * np.float32(1 - 2.0**-22)
  u = 1 - 2.0**-24
  assert one_block([1], q, pi, [u], 0.3, verify) == (0, 1, [DRAFTER, NONE])


WIDER = {
  'accept': [[0.25, 1.0], [1.0, 1.0]],
  'residual': [[3.0, 0.0], [1.0, 1.0]],
  'bonus': [[0.5, 0.5], [0.0, 1.0]],
}


def test_token_verification_honours_the_wider_interface():
  q = [[0.5, 0.5], [0.5, 0.5]]
  pi = [[0.5, 0.5], [1.0, 0.0]]

  def verdict(u, **wider):
    return one_block([0], q, pi, [u], 0.5, verification.verify_tokens, **wider)[
      :2
    ]

  assert verdict(0.3) == verdict(0.2, accept=WIDER['accept']) == (1, 0)
  # pi = q: the token stays, unless there is a residual of its own.
  assert verdict(0.3, accept=WIDER['accept']) == (0, 0)
  other = {'residual': [[0.0, 3.0], [1.0, 1.0]]}
  assert verdict(0.3, accept=WIDER['accept'], **other) == (0, 1)
  assert verdict(0.3, bonus=WIDER['bonus']) == (1, 1)


def test_the_wider_interface_agrees_with_the_naive_verifier():
  vocab_size, gamma = 3, 3
  models = tables(vocab_size)
  drafted, rows = models.blocks(gamma)
  q, _ = models.scaled(1.0)
  rng = np.random.default_rng(3)
  accept, residual, bonus = rng.random((3, *q.shape)).astype(np.float32)
  target = dataclasses.replace(
    models.target(deferral.token_v3, 0.5, 1.0),
    accept=jnp.asarray(accept),
    residual=jnp.asarray(residual),
    bonus=distributions.softmax(jnp.asarray(bonus)),
  )
  target = rows_of(target, rows)
  cells = enumeration.integrate(
    verification.verify_tokens, drafted, q[rows], target
  )
  lengths = cells.accepted_law()
  fields = (q[rows], target.pi, target.accept, target.residual, target.bonus)
  for n, row in enumerate(zip(*(np.asarray(x).tolist() for x in fields))):
    outcomes = naive.tokens(drafted[n].tolist(), *row)
    np.testing.assert_allclose(
      lengths[n], [mass for mass, _ in outcomes], atol=TOLERANCE
    )
    for c in np.flatnonzero(cells.mass[n] > 1e-3):
      _, law = outcomes[cells.accepted[n, c]]
      np.testing.assert_allclose(cells.next_law[n, c], law, atol=TOLERANCE)


@pytest.mark.parametrize('field', WIDER)
def test_block_verification_refuses_the_wider_interface(field):
  q = [[0.5, 0.5], [0.5, 0.5]]
  with pytest.raises(ValueError, match=f'{field}.*Use verify_tokens'):
    one_block(
      [0],
      q,
      q,
      [0.5],
      0.5,
      verification.verify_block,
      **{field: WIDER[field]},
    )


@pytest.mark.parametrize('verify', VERIFIERS)
def test_nothing_is_unrolled_over_positions(verify):
  def size(gamma):
    columns = jnp.ones((2, gamma + 1, 3)) / 3
    target = base.Target(pi=columns, deferral=columns[..., 0])
    u = jnp.zeros((2, gamma))
    tokens = jnp.zeros((2, gamma), jnp.int32)
    return len(jax.make_jaxpr(verify)(tokens, columns, target, u, u[:, 0]).eqns)

  assert size(3) == size(9)


@pytest.mark.parametrize('verify', VERIFIERS)
def test_rows_do_not_see_each_other(verify):
  vocab_size, gamma = 3, 3
  models = tables(vocab_size)
  drafted, rows = models.blocks(gamma)
  q, _ = models.scaled(1.0)
  target = rows_of(models.target(deferral.token_v1, 0.3, 1.0), rows)
  u = jnp.asarray(
    np.random.default_rng(1).random((len(drafted), gamma + 1)), jnp.float32
  )
  args = (drafted, q[rows], target, u[:, :-1], u[:, -1])
  together = compiled(verify)(*args)
  assert len(set(together.accepted.tolist())) > 1
  for n in range(0, len(drafted), 5):
    alone = compiled(verify)(*jax.tree.map(lambda x, n=n: x[n : n + 1], args))
    jax.tree.map(
      lambda a, b, n=n: np.testing.assert_array_equal(a[0], b[n]),
      alone,
      together,
    )


# What the checks above would catch.


def test_a_residual_from_p_would_be_caught():
  def residual_from_p(q, p, q_conf, p_conf, alpha):
    target = deferral.token_v3(q, p, q_conf, p_conf, alpha)
    return dataclasses.replace(target, residual=distributions.residual(p, q))

  with pytest.raises(AssertionError):
    check_emits_pi(
      (4, 2),
      residual_from_p,
      verification.verify_tokens,
      1.0,
      reference='token_v3',
      alpha=0.5,
    )


def test_a_block_that_redraws_from_all_of_pi_would_be_caught(monkeypatch):
  monkeypatch.setattr(
    verification.distributions, 'residual', lambda pi, q: pi + 0.0 * q
  )

  def broken(*args):
    return verification.verify_block(*args)

  with pytest.raises(AssertionError):
    check_emits_pi((4, 2), deferral.token_v3, broken, 1.0)


def test_block_weights_without_their_cap_would_be_caught(monkeypatch):
  monkeypatch.setattr(
    verification,
    '_prefix_weights',
    lambda ratios: jnp.concatenate(
      [jnp.ones_like(ratios[:, :1]), jnp.cumprod(ratios, axis=1)], axis=1
    ),
  )

  def broken(*args):
    return verification.verify_block(*args)

  with pytest.raises(AssertionError):
    check_emits_pi((4, 2), deferral.verifier_only, broken, 1.0)


def test_keeping_at_equality_would_be_caught():
  def lax(drafted, q, target, u_accept, u_next):
    # u <= a is u - tiny < a.
    return verification.verify_tokens(
      drafted, q, target, u_accept - 1e-30, u_next
    )

  with pytest.raises(AssertionError):
    check_zero_mass_is_never_kept(lax)
