"""Losses against naive NumPy, and what they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax.training import losses

_B, _T, _V = 2, 3, 7


def _logits(seed):
  return np.random.default_rng(seed).normal(size=(_B, _T, _V)) * 3


def _batch():
  random = np.random.default_rng(2)
  targets = random.integers(0, _V, (_B, _T))
  weights = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
  return targets, weights


def _naive_log_softmax(row):
  return row - np.log(np.exp(row).sum())


def _naive_cross_entropy(row, target, smoothing, z_loss):
  labels = np.full(_V, smoothing / (_V - 1))
  labels[target] = 1.0 - smoothing
  least = -sum(p * np.log(p) for p in labels if p > 0)
  log_z = np.log(np.exp(row).sum())
  loss = -(labels * _naive_log_softmax(row)).sum() - least
  return loss + z_loss * log_z**2


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('z_loss', [0.0, 1e-2])
def test_cross_entropy_is_the_naive_one(smoothing, z_loss):
  logits, (targets, _) = _logits(0), _batch()
  expected = [
    [
      _naive_cross_entropy(logits[b, t], targets[b, t], smoothing, z_loss)
      for t in range(_T)
    ]
    for b in range(_B)
  ]
  found = losses.cross_entropy(
    jnp.float32(logits), jnp.int32(targets), smoothing, z_loss
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_perfect_model_has_no_smoothed_loss():
  smoothing = 0.1
  labels = np.full(_V, smoothing / (_V - 1))
  labels[4] = 1.0 - smoothing
  loss = losses.cross_entropy(
    jnp.log(jnp.float32(labels)), jnp.int32(4), smoothing
  )
  assert abs(float(loss)) < 1e-6
  # It is the least loss: any other distribution has more.
  other = losses.cross_entropy(
    jnp.float32(_logits(0)[0, 0]), jnp.int32(4), smoothing
  )
  assert float(other) > 0.1


@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.0])
def test_kl_divergence_is_the_naive_one(temperature):
  teacher, student = _logits(0), _logits(1)
  expected = np.zeros((_B, _T))
  for b in range(_B):
    for t in range(_T):
      log_p = _naive_log_softmax(teacher[b, t] / temperature)
      log_q = _naive_log_softmax(student[b, t] / temperature)
      expected[b, t] = temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum()
  found = losses.kl_divergence(
    jnp.float32(teacher), jnp.float32(student), temperature
  )
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_kl_divergence_is_zero_and_flat_where_the_student_is_the_teacher():
  logits = jnp.float32(_logits(0))
  value, slope = jax.value_and_grad(
    lambda student: losses.kl_divergence(logits, student, 2.0).sum()
  )(logits)
  assert abs(float(value)) < 1e-5
  np.testing.assert_allclose(slope, np.zeros_like(logits), atol=1e-5)


def test_the_teacher_gets_no_gradient():
  teacher, student = jnp.float32(_logits(0)), jnp.float32(_logits(1))
  targets, weights = _batch()

  def loss(teacher, student):
    return losses.distillation(student, teacher, targets, weights, 0.5)['loss']

  of_teacher, of_student = jax.grad(loss, (0, 1))(teacher, student)
  assert not of_teacher.any()
  assert of_student.any()


def test_padding_counts_for_nothing_and_sums_add_up():
  targets, weights = _batch()
  logits = jnp.float32(_logits(0))
  sums = losses.teacher_forcing(logits, targets, weights, 0.1)
  spoilt = logits.at[:, 2].set(99.0).at[1, 1].set(-99.0)
  for name, value in losses.teacher_forcing(
    spoilt, targets, weights, 0.1
  ).items():
    np.testing.assert_allclose(value, sums[name], rtol=1e-6, err_msg=name)
  assert float(sums['weight']) == 3.0
  rows = [
    losses.teacher_forcing(
      logits[b : b + 1], targets[b : b + 1], weights[b : b + 1], 0.1
    )
    for b in range(_B)
  ]
  for name in sums:
    added = rows[0][name] + rows[1][name]
    np.testing.assert_allclose(added, sums[name], rtol=1e-5, err_msg=name)


def test_reported_figures_are_of_the_plain_distribution():
  targets, weights = _batch()
  logits = _logits(0)
  sums = losses.teacher_forcing(
    jnp.float32(logits), targets, weights, 0.3, z_loss=0.1
  )
  nll = correct = 0.0
  for b, t in [(0, 0), (0, 1), (1, 0)]:
    nll -= _naive_log_softmax(logits[b, t])[targets[b, t]]
    correct += logits[b, t].argmax() == targets[b, t]
  np.testing.assert_allclose(sums['nll'], nll, rtol=1e-5)
  assert float(sums['correct']) == correct
  assert float(sums['loss']) != pytest.approx(nll)


def test_distillation_mixes_divergence_and_cross_entropy():
  targets, weights = _batch()
  teacher, student = jnp.float32(_logits(0)), jnp.float32(_logits(1))
  parts = [
    float(
      losses.distillation(student, teacher, targets, weights, mixture)['loss']
    )
    for mixture in (0.0, 1.0, 0.25)
  ]
  assert parts[0] != pytest.approx(parts[1])
  assert parts[2] == pytest.approx(0.75 * parts[0] + 0.25 * parts[1])
  plain = losses.teacher_forcing(student, targets, weights)
  assert parts[0] == pytest.approx(float(plain['loss']))
  same = losses.distillation(teacher, teacher, targets, weights, 1.0)
  assert float(same['agreement']) == float(same['weight'])


def test_means_divide_once():
  sums = {'loss': 6.0, 'nll': 3.0, 'weight': 3.0}
  assert losses.means(sums) == {'loss': 2.0, 'nll': 1.0}
  with pytest.raises(ValueError, match='padding'):
    losses.means({'loss': 0.0, 'weight': 0.0})
