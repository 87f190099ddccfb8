"""What only T5 has: its norm, its position bias and its attention.

Parameter names, shapes and logical axes are T5X's.
"""

from __future__ import annotations

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base
from speccascade_jax.models import layers


class RMSNorm(nn.Module):
  """T5's layer norm: no mean, no bias, statistics in float32."""

  epsilon: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: base.Array) -> base.Array:
    scale = self.param(
      'scale',
      nn.with_logical_partitioning(nn.initializers.ones_init(), ('embed',)),
      (x.shape[-1],),
      jnp.float32,
    )
    x = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(mean_square + self.epsilon)
    return (x * scale).astype(self.dtype)


class RelativePositionBias(nn.Module):
  """The learned bias per head and bucket of distance."""

  num_heads: int
  num_buckets: int
  max_distance: int
  bidirectional: bool

  def bucket(self, relative: base.Array) -> base.Array:
    """Maps key position minus query position to a bucket.

    Half of the buckets are exact small distances, the others grow
    logarithmically up to `max_distance` (Raffel et al., 2020, section 2.1).
    """
    buckets = self.num_buckets
    offset = jnp.zeros_like(relative)
    if self.bidirectional:
      buckets //= 2
      offset = jnp.where(relative > 0, buckets, 0)
      distance = jnp.abs(relative)
    else:
      distance = jnp.maximum(-relative, 0)
    exact = buckets // 2
    # The distances at which the next bucket begins, as integers made on the
    # host: an accelerator's logarithm may round a power of two down a bucket.
    growth = np.arange(1, buckets - exact) / (buckets - exact)
    first = np.ceil(exact * (self.max_distance / exact) ** growth - 1e-6)
    far = exact + (distance[..., None] >= first.astype(np.int32)).sum(-1)
    return offset + jnp.where(distance < exact, distance, far)

  @nn.compact
  def __call__(self, relative: base.Array) -> base.Array:
    """`relative [...]` int32 to a bias `[..., H]` float32."""
    table = self.param(
      'rel_embedding',
      nn.with_logical_partitioning(
        nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform'),
        ('heads', 'relpos_buckets'),
      ),
      (self.num_heads, self.num_buckets),
      jnp.float32,
    )
    return table.T[self.bucket(relative)]


class Attention(nn.Module):
  """Multi-head attention over keys and values that are made separately.

  The caller decides where keys and values come from: this block's own input
  (training), a cache (decoding), or the encoder's output, projected once.
  """

  num_heads: int
  head_dim: int
  emb_dim: int
  dropout_rate: float
  dtype: jnp.dtype

  def setup(self):
    joined = self.num_heads * self.head_dim
    # T5 does not divide attention logits by sqrt(D): its initialisation of
    # the query projection carries the factor instead.
    self.query = layers.Dense(
      joined, ('embed', 'joined_kv'), self.dtype, self.head_dim**-0.5
    )
    self.key = layers.Dense(joined, ('embed', 'joined_kv'), self.dtype)
    self.value = layers.Dense(joined, ('embed', 'joined_kv'), self.dtype)
    self.out = layers.Dense(self.emb_dim, ('joined_kv', 'embed'), self.dtype)
    self.dropout = nn.Dropout(self.dropout_rate, broadcast_dims=(-2,))

  def _split(self, x: base.Array) -> base.Array:
    batch, length, _ = x.shape
    x = x.reshape(batch, length, self.num_heads, self.head_dim)
    return x.swapaxes(1, 2)  # [B, H, length, D]

  def keys_values(self, x: base.Array) -> tuple[base.Array, base.Array]:
    """Keys and values `[B, H, L, D]` of `x [B, L, E]`."""
    return self._split(self.key(x)), self._split(self.value(x))

  def __call__(
    self,
    x: base.Array,
    keys: base.Array,
    values: base.Array,
    bias: base.Array,
    deterministic: bool,
  ) -> base.Array:
    """Attends from `x [B, K, E]`; `bias [B or 1, H or 1, K, L]` is added."""
    query = self._split(self.query(x))
    logits = jnp.einsum('bhkd,bhld->bhkl', query, keys)
    weights = jax.nn.softmax(logits.astype(jnp.float32) + bias, axis=-1)
    weights = self.dropout(
      weights.astype(self.dtype), deterministic=deterministic
    )
    mixed = jnp.einsum('bhkl,bhld->bhkd', weights, values)
    batch, _, length, _ = mixed.shape
    return self.out(mixed.swapaxes(1, 2).reshape(batch, length, -1))
