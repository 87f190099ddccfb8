"""The building blocks that all architectures share, under T5X's names."""

from __future__ import annotations

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax.models import int8
from speccascade_jax.models import products

_dense_init = nn.initializers.variance_scaling(
  1.0, 'fan_in', 'truncated_normal'
)


class Dense(nn.Module):
  """A matrix product without bias; `kernel [in, features]`.

  Factors are rounded to `dtype`; `out_dtype`, if given, keeps the sums wider.
  The matrix may have been turned, see `products.lay_out`, or quantised, see
  `int8`.
  """

  features: int
  axes: tuple[str, str]
  dtype: jnp.dtype
  init_scale: float = 1.0
  out_dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(
    self, x: base.Array, chosen: base.Array | None = None
  ) -> base.Array:
    """`x [..., in]` to `[..., features]`, or to the `chosen [N]` of them."""
    x = x.astype(self.dtype)
    rows = self.get_variable('params', products.TURNED)
    if rows is not None:
      rows = rows if chosen is None else rows[chosen]
      return products.matmul_transposed(
        x, rows.astype(self.dtype), self.out_dtype
      )

    def init(key, shape, dtype):
      return self.init_scale * _dense_init(key, shape, dtype)

    kernel = self.param(
      products.NAMED,
      nn.with_logical_partitioning(init, self.axes),
      (x.shape[-1], self.features),
      jnp.float32,
    )
    scale = self.get_variable('params', int8.scale_name(products.NAMED))
    kernel = kernel if chosen is None else kernel[:, chosen]
    if scale is None:
      return products.matmul(x, kernel.astype(self.dtype), self.out_dtype)
    scale = scale if chosen is None else scale[chosen]
    return int8.matmul(x, kernel, scale, self.out_dtype)


class MLP(nn.Module):
  """The feed-forward block, gated when it has two activations (v1.1)."""

  mlp_dim: int
  activations: Sequence[str]
  dropout_rate: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: base.Array, deterministic: bool) -> base.Array:
    gated = len(self.activations) > 1
    hidden = None
    for i, activation in enumerate(self.activations):
      part = Dense(
        self.mlp_dim,
        ('embed', 'mlp'),
        self.dtype,
        name=f'wi_{i}' if gated else 'wi',
      )(x)
      if activation == 'gelu':
        # The tanh approximation, as T5 v1.1 was trained.
        part = jax.nn.gelu(part, approximate=True)
      elif activation == 'relu':
        part = jax.nn.relu(part)
      elif activation == 'silu':
        part = jax.nn.silu(part)
      hidden = part if hidden is None else hidden * part
    # One mask for all positions, as in T5X: cheaper, and as good.
    hidden = nn.Dropout(self.dropout_rate, broadcast_dims=(-2,))(
      hidden, deterministic=deterministic
    )
    return Dense(x.shape[-1], ('mlp', 'embed'), self.dtype, name='wo')(hidden)


class Embed(nn.Module):
  """The token embedding `[V, E]`, also the head where that is tied.

  It may be quantised, see `int8`.
  """

  vocab_size: int
  features: int
  dtype: jnp.dtype
  init_scale: float = 1.0

  def setup(self):
    self.embedding = self.param(
      'embedding',
      nn.with_logical_partitioning(
        nn.initializers.normal(self.init_scale), ('vocab', 'embed')
      ),
      (self.vocab_size, self.features),
      jnp.float32,
    )
    self.scale = self.get_variable('params', int8.scale_name('embedding'))

  def __call__(self, tokens: base.Array) -> base.Array:
    rows = self.embedding[tokens]
    if self.scale is not None:
      rows = rows * self.scale[tokens][..., None]
    return rows.astype(self.dtype)

  def attend(
    self, x: base.Array, scored: base.Array | None = None
  ) -> base.Array:
    """Logits `[..., V]` of `x [..., E]`, summed in float32.

    Those of the N tokens `scored [N]` alone, `[..., N]`, where it is given.
    """
    rows = self.embedding if scored is None else self.embedding[scored]
    if self.scale is None:
      return products.matmul_transposed(x, rows.astype(self.dtype), jnp.float32)
    scale = self.scale if scored is None else self.scale[scored]
    return int8.matmul_transposed(x, rows, scale, jnp.float32)
