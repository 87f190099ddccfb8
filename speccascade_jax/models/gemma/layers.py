"""What only a Gemma has: its norm, rotary positions and its attention.

Parameter names and logical axes follow T5X's decoder-only models.
"""

from __future__ import annotations

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base
from speccascade_jax.models import layers


class RMSNorm(nn.Module):
  """No mean, no bias, a scale around one: `x / rms(x) * (1 + scale)`.

  The published checkpoints hold `scale`, GGUF files hold `1 + scale`.
  """

  epsilon: float
  dtype: jnp.dtype
  axis: str = 'embed'

  @nn.compact
  def __call__(self, x: base.Array) -> base.Array:
    scale = self.param(
      'scale',
      nn.with_logical_partitioning(nn.initializers.zeros_init(), (self.axis,)),
      (x.shape[-1],),
      jnp.float32,
    )
    x = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(mean_square + self.epsilon)
    # Multiplied before it is rounded, unlike in Llama.
    return (x * (1.0 + scale)).astype(self.dtype)


@base.pytree_dataclass
class Rotation:
  """Cosines and sines `[B, 1, K, D / 2]` of K tokens' rotary angles."""

  cos: base.Array
  sin: base.Array


def rotation(
  positions: base.Array,
  head_dim: int,
  rope_base: float,
  scale_factor: float = 1.0,
) -> Rotation:
  """Angles of `positions [B, K]`: `t / (factor * rope_base^(2 i / D))`.

  Once for all layers of a kind, since sines cost more than what they turn.
  """
  exponent = np.arange(0, head_dim, 2) / head_dim
  frequency = (rope_base**-exponent / scale_factor).astype(np.float32)
  angle = positions[:, None, :, None].astype(jnp.float32) * frequency
  return Rotation(jnp.cos(angle), jnp.sin(angle))


def rotate(x: base.Array, by: Rotation) -> base.Array:
  """Turns `x [B, H, K, D]`, its first half against its second, in float32."""
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate(
    [first * by.cos - second * by.sin, second * by.cos + first * by.sin],
    axis=-1,
  )
  return turned.astype(x.dtype)


def softcap(logits: base.Array, cap: float | None) -> base.Array:
  """`cap tanh(logits / cap)`: as they are near 0, and never beyond `cap`."""
  return logits if cap is None else cap * jnp.tanh(logits / cap)


class Attention(nn.Module):
  """Grouped-query attention over keys and values that are made separately.

  Every head of keys serves a group of `num_heads / num_kv_heads` queries,
  which meet it in one matrix product; it is never repeated in memory.
  """

  num_heads: int
  num_kv_heads: int
  head_dim: int
  emb_dim: int
  query_scale: float
  logit_softcap: float | None
  norm_epsilon: float | None  # Of queries and keys; None leaves them alone.
  dtype: jnp.dtype

  def setup(self):
    joined = self.num_heads * self.head_dim
    joined_kv = self.num_kv_heads * self.head_dim
    self.query = layers.Dense(joined, ('embed', 'joined_kv'), self.dtype)
    self.key = layers.Dense(joined_kv, ('embed', 'joined_kv'), self.dtype)
    self.value = layers.Dense(joined_kv, ('embed', 'joined_kv'), self.dtype)
    self.out = layers.Dense(self.emb_dim, ('joined_kv', 'embed'), self.dtype)
    if self.norm_epsilon is not None:
      self.query_norm = RMSNorm(self.norm_epsilon, self.dtype, 'kv')
      self.key_norm = RMSNorm(self.norm_epsilon, self.dtype, 'kv')

  def _split(self, x: base.Array) -> base.Array:
    batch, length, _ = x.shape
    return x.reshape(batch, length, -1, self.head_dim).swapaxes(1, 2)

  def keys_values(
    self, x: base.Array, by: Rotation
  ) -> tuple[base.Array, base.Array]:
    """Turned keys, and values, `[B, num_kv_heads, K, D]` of `x [B, K, E]`."""
    keys = self._split(self.key(x))
    if self.norm_epsilon is not None:
      keys = self.key_norm(keys)
    return rotate(keys, by), self._split(self.value(x))

  def __call__(
    self,
    x: base.Array,
    by: Rotation,
    keys: base.Array,
    values: base.Array,
    bias: base.Array,
  ) -> base.Array:
    """Attends from `x [B, K, E]`; `bias [B, 1, 1, K, L]` is added."""
    query = self._split(self.query(x))
    if self.norm_epsilon is not None:
      query = self.query_norm(query)
    query = rotate(query, by) * jnp.asarray(self.query_scale, self.dtype)
    batch, _, length, _ = query.shape
    query = query.reshape(batch, self.num_kv_heads, -1, self.head_dim)
    logits = jnp.einsum(
      'bhqd,bhld->bhql', query, keys, preferred_element_type=jnp.float32
    )
    logits = logits.reshape(*logits.shape[:2], -1, length, logits.shape[-1])
    logits = softcap(logits, self.logit_softcap) + bias
    weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
    weights = weights.reshape(*weights.shape[:2], -1, weights.shape[-1])
    mixed = jnp.einsum('bhql,bhld->bhqd', weights, values)
    mixed = mixed.reshape(batch, self.num_heads, length, self.head_dim)
    return self.out(mixed.swapaxes(1, 2).reshape(batch, length, -1))
