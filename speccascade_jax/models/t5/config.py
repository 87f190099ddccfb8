"""The architecture of a T5, from v1.0 to v1.1, Flan-T5 and our own pairs."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

# A checkpoint that claims more is broken, or means harm: every layer is traced.
MOST_LAYERS = 1000
_ACTIVATIONS = ('relu', 'gelu', 'linear')


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Static shape of a T5; hashable, so that it can be a jit-static argument.

  T5 v1.0 is `mlp_activations=('relu',)` with `logits_via_embedding=True`;
  v1.1 and Flan-T5 are `('gelu', 'linear')` (gated) with an untied head.

  Attributes:
    vocab_size: V, rows of the embedding (a checkpoint may pad it).
    emb_dim: E, width of the residual stream.
    num_heads: H.
    head_dim: D. H * D need not equal E.
    mlp_dim: width of the feed-forward layer.
    num_encoder_layers: at least 1.
    num_decoder_layers: at least 1.
    mlp_activations: one function, or two whose products are the gate.
    logits_via_embedding: share the head with the embedding, scaled by
      E^-0.5 (v1.0), instead of a matrix of its own (v1.1).
    dropout_rate: for training only.
    relative_attention_num_buckets: of the position bias.
    relative_attention_max_distance: beyond it all distances share a bucket.
    layer_norm_epsilon: of the RMS norms.
    dtype: of activations and matrix products: 'float32' or 'bfloat16'.
      Softmaxes and norms are computed in float32 in any case, and logits are
      summed in it.
  """

  vocab_size: int
  emb_dim: int
  num_heads: int
  head_dim: int
  mlp_dim: int
  num_encoder_layers: int
  num_decoder_layers: int
  mlp_activations: tuple[str, ...] = ('gelu', 'linear')
  logits_via_embedding: bool = False
  dropout_rate: float = 0.0
  relative_attention_num_buckets: int = 32
  relative_attention_max_distance: int = 128
  layer_norm_epsilon: float = 1e-6
  dtype: str = 'float32'

  def __post_init__(self):
    # Half of the buckets are for either direction, half of those for exact
    # distances; the others are spread up to the largest.
    buckets = self.relative_attention_num_buckets
    distance = self.relative_attention_max_distance
    if not isinstance(buckets, int) or buckets < 4:
      raise ValueError(
        'T5Config.relative_attention_num_buckets must be an integer, at least '
        f'4, got {buckets!r}.'
      )
    if not isinstance(distance, int) or distance <= buckets // 2:
      raise ValueError(
        'T5Config.relative_attention_max_distance must be an integer above '
        f'half of the {buckets} buckets, got {distance!r}.'
      )
    # JSON and gin hand over lists; a tuple keeps the config hashable.
    object.__setattr__(self, 'mlp_activations', tuple(self.mlp_activations))
    for field in (
      'vocab_size',
      'emb_dim',
      'num_heads',
      'head_dim',
      'mlp_dim',
      'num_encoder_layers',
      'num_decoder_layers',
    ):
      value = getattr(self, field)
      if not isinstance(value, int) or value < 1:
        raise ValueError(
          f'T5Config.{field} must be a positive integer, got {value!r}.'
        )
      if field.endswith('_layers') and value > MOST_LAYERS:
        raise ValueError(
          f'T5Config.{field} must be at most {MOST_LAYERS}, got {value}.'
        )
    unknown = [a for a in self.mlp_activations if a not in _ACTIVATIONS]
    if unknown or not self.mlp_activations:
      raise ValueError(
        f'T5Config.mlp_activations must be chosen from {_ACTIVATIONS}, got '
        f'{self.mlp_activations!r}.'
      )
    if not 0.0 <= self.dropout_rate < 1.0:
      raise ValueError(
        f'T5Config.dropout_rate must be in [0, 1), got {self.dropout_rate!r}.'
      )
    if self.dtype not in ('float32', 'bfloat16'):
      raise ValueError(
        "T5Config.dtype must be 'float32' or 'bfloat16', got "
        f'{self.dtype!r}. (float16 overflows in T5.)'
      )

  @property
  def compute_dtype(self) -> jnp.dtype:
    return jnp.dtype(self.dtype)
