"""Training losses over teacher-forced logits, as sums that are divided once.

A batch is padded, cut into microbatches and spread over steps, so a mean of
means would weigh its tokens unequally. Every function here returns per-token
values or `Sums`, weighted sums together with their weight; whoever reports or
differentiates divides by the total weight, once.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax import distributions

# 'loss' (what is minimised), 'nll', 'correct' and further summed per-token
# values, each a float32 scalar, and 'weight', what to divide them by.
Sums = dict[str, base.Array]


def cross_entropy(
  logits: base.Array,
  targets: base.Array,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> base.Array:
  """Cross entropy with smoothed labels, per token.

  The smoothed label has 1 - s on the target and s / (V - 1) on every other
  token (Szegedy et al., 2016). Its own entropy is subtracted, so that zero is
  the least possible value whatever the smoothing.

  Args:
    logits: `[..., V]` float32.
    targets: `[...]` int32.
    label_smoothing: s, in [0, 1).
    z_loss: weight of log(Z)^2, which keeps the logits from drifting
      (Mesh TensorFlow; T5X uses 1e-4).

  Returns:
    `[...]` float32, in nats.
  """
  chex.assert_equal_shape_prefix([logits, targets], targets.ndim)
  vocab_size = logits.shape[-1]
  log_z = jax.nn.logsumexp(logits, axis=-1)
  picked = pick(logits, targets)
  if label_smoothing:
    high = 1.0 - label_smoothing
    low = label_smoothing / (vocab_size - 1)
    # sum_v label(v) logit(v), without ever building the labels [..., V].
    picked = (high - low) * picked + low * jnp.sum(logits, axis=-1)
    entropy = -high * jnp.log(high) - label_smoothing * jnp.log(low)
    loss = log_z - picked - entropy
  else:
    loss = log_z - picked
  return loss + z_loss * jnp.square(log_z) if z_loss else loss


def pick(logits: base.Array, targets: base.Array) -> base.Array:
  """The logit of each target: `[..., V]`, `[...]` to `[...]`.

  A masked sum instead of a gather: it fuses into the pass over the logits that
  the softmax needs anyway, and its gradient is a select, not a scatter.
  """
  hit = jnp.arange(logits.shape[-1]) == targets[..., None]
  return jnp.sum(jnp.where(hit, logits, 0.0), axis=-1)


def kl_divergence(
  teacher_logits: base.Array,
  student_logits: base.Array,
  temperature: float = 1.0,
) -> base.Array:
  """KL(teacher || student) per token, both softened by a temperature.

  Times temperature^2, so that the gradient keeps its size when the temperature
  changes (Hinton et al., 2015). No gradient reaches the teacher.

  Args:
    teacher_logits: `[..., V]` float32.
    student_logits: `[..., V]` float32.
    temperature: above 0.

  Returns:
    `[...]` float32, in nats at temperature 1.
  """
  chex.assert_equal_shape([teacher_logits, student_logits])
  teacher = jax.nn.log_softmax(
    jax.lax.stop_gradient(teacher_logits) / temperature
  )
  student = jax.nn.log_softmax(student_logits / temperature)
  # exp(-inf) * (-inf - x) would be NaN; logits are finite, so teacher is too.
  divergence = jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)
  return temperature**2 * divergence


def teacher_forcing(
  logits: base.Array,
  targets: base.Array,
  weights: base.Array,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> Sums:
  """Sums of one batch trained on its targets.

  Args:
    logits: `[B, T, V]` float32.
    targets: `[B, T]` int32.
    weights: `[B, T]` float32, 0 at padding.
    label_smoothing: see `cross_entropy`.
    z_loss: see `cross_entropy`.
  """
  loss = cross_entropy(logits, targets, label_smoothing, z_loss)
  return {'loss': jnp.sum(loss * weights)} | _report(logits, targets, weights)


def distillation(
  student_logits: base.Array,
  teacher_logits: base.Array,
  targets: base.Array,
  weights: base.Array,
  mixture: float,
  temperature: float = 1.0,
  label_smoothing: float = 0.0,
) -> Sums:
  """Sums of one batch of a student that imitates a teacher token by token.

  The loss is `mixture * KL(teacher || student) + (1 - mixture) * cross
  entropy`; at speculative decoding the divergence is what decides how many
  drafted tokens are kept.

  Args:
    student_logits: `[B, T, V]` float32.
    teacher_logits: `[B, T, V]` float32, taken as constants.
    targets: `[B, T]` int32.
    weights: `[B, T]` float32, 0 at padding.
    mixture: in [0, 1].
    temperature: of the divergence, above 0.
    label_smoothing: of the cross entropy.
  """
  divergence = jnp.sum(
    weights * kl_divergence(teacher_logits, student_logits, temperature)
  )
  sums = _report(student_logits, targets, weights)
  entropy = jnp.sum(
    weights * cross_entropy(student_logits, targets, label_smoothing)
  )
  agree = distributions.argmax(student_logits) == distributions.argmax(
    teacher_logits
  )
  return sums | {
    'loss': mixture * divergence + (1.0 - mixture) * entropy,
    'kl': divergence,
    'agreement': jnp.sum(agree * weights),
  }


def _report(
  logits: base.Array, targets: base.Array, weights: base.Array
) -> Sums:
  """What every loss reports beside itself, without a gradient."""
  logits = jax.lax.stop_gradient(logits)
  # A maximum is shared with the softmax and an arg max is not; ties count.
  correct = pick(logits, targets) >= jnp.max(logits, axis=-1)
  return {
    'nll': jnp.sum(cross_entropy(logits, targets) * weights),
    'correct': jnp.sum(correct * weights),
    'weight': jnp.sum(weights),
  }


def means(sums: Sums) -> dict[str, float]:
  """Divides summed values by their weight; the weight itself is dropped.

  Raises:
    ValueError: the weight is zero, so that there is nothing to average.
  """
  weight = float(sums['weight'])
  if weight <= 0.0:
    raise ValueError(
      f'Sums of total weight {weight}: every target of the batch is padding.'
    )
  return {k: float(v) / weight for k, v in sums.items() if k != 'weight'}
