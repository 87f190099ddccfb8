"""How typical acceptance and BiLD* keep tokens; as rules: deferral_test."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import acceptance
from speccascade_jax import deferral
from speccascade_jax import verification
from tests import enumeration

Q = jnp.array([0.5, 0.25, 0.125, 0.125])
P = jnp.array([0.25, 0.0, 0.25, 0.5])


def kept(rule, p_conf, alpha, **own):
  target = rule(Q, P, Q, jnp.asarray(p_conf), jnp.float32(alpha), **own)
  return target.accept.tolist()


def test_typical_keeps_what_is_likely_or_typical():
  # H = log 4 of the uniform one: sqrt(0.25) / 4 is the limit, not 0.25.
  assert kept(acceptance.typical, [0.25] * 4, 0.75) == [1, 1, 1, 1]
  # Nearly certain: min(0.25, 0.5 exp(-H)) is 0.25.
  sure = [0.94, 0.03, 0.02, 0.01]
  assert kept(acceptance.typical, sure, 0.75) == [1, 0, 0, 0]
  assert kept(acceptance.typical, sure, 0.97) == [1, 1, 0, 0]


@pytest.mark.parametrize('delta', [0.1, 0.3, 0.6])
def test_typical_takes_its_delta(delta):
  p_conf = np.array([0.4, 0.3, 0.2, 0.1])
  entropy = -(p_conf * np.log(p_conf)).sum()
  for alpha in (0.0, 0.5, 0.8, 0.91):
    limit = min(1 - alpha, delta * math.exp(-entropy))
    actual = kept(acceptance.typical, p_conf, alpha, delta=delta)
    assert actual == (p_conf > limit).tolist()


def test_typical_is_strict_and_its_drafter_end_keeps_everything():
  half = [0.5, 0.5, 0.0, 0.0]
  # delta exp(-H) is 1 here: epsilon alone decides, with equality at 0.5.
  assert kept(acceptance.typical, half, 0.5, delta=2.0) == [0, 0, 0, 0]
  assert kept(acceptance.typical, half, 0.5625, delta=2.0) == [1, 1, 0, 0]
  assert kept(acceptance.typical, half, 1.0) == [1, 1, 1, 1]
  assert kept(acceptance.typical, half, -math.inf) == [0, 0, 0, 0]


def test_bild_keeps_at_equality():
  p_conf = [1.0, 0.0, 0.5, math.exp(-2)]
  assert kept(acceptance.bild_fixed, p_conf, 0.0) == [1, 0, 0, 0]
  assert kept(acceptance.bild_fixed, p_conf, -1e-6) == [0, 0, 0, 0]
  at_half = float(-np.log(np.float32(0.5)))
  assert kept(acceptance.bild_fixed, p_conf, at_half) == [1, 0, 1, 0]
  assert kept(acceptance.bild_fixed, p_conf, at_half - 1e-3) == [1, 0, 0, 0]
  assert kept(acceptance.bild_fixed, p_conf, 200.0) == [1, 0, 1, 1]
  assert kept(acceptance.bild_fixed, p_conf, math.inf) == [1, 1, 1, 1]


@pytest.mark.parametrize('rule', [acceptance.typical, acceptance.bild_fixed])
def test_what_is_not_kept_comes_from_p(rule):
  target = rule(Q, P, Q, P, jnp.float32(0.8))
  np.testing.assert_array_equal(target.residual, P)
  np.testing.assert_array_equal(target.bonus, P)
  rejected = float(Q[np.asarray(target.accept) == 0].sum())
  assert 0 < rejected < 1
  assert float(target.deferral) == rejected


@pytest.mark.parametrize('rule', [acceptance.typical, acceptance.bild_fixed])
def test_block_verification_refuses_them(rule):
  models = enumeration.Tables.random(3, 2)
  drafted, rows = models.blocks(2)
  q, _ = models.scaled(1.0)
  target = models.target(rule, 0.5, 1.0)

  target = jax.tree.map(lambda x: x[rows], target)
  with pytest.raises(ValueError, match='accept and residual and bonus'):
    verification.verify_block(
      jnp.asarray(drafted),
      q[rows],
      target,
      jnp.zeros(drafted.shape),
      jnp.zeros(len(drafted)),
    )


def test_they_are_rules_like_all_others():
  for name in ('lossy', 'lossy_exact', 'typical', 'bild_fixed'):
    assert getattr(deferral, name) is getattr(acceptance, name)
    assert getattr(acceptance, name) in deferral.RULES
