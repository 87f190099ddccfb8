"""The architecture of a T5, from v1.0 to v1.1, Flan-T5 and our own pairs."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from speccascade_jax.models import config_checks

# Their distances are spread out one by one, on the host.
_MOST_BUCKETS = 2**16
_ACTIVATIONS = ('relu', 'gelu', 'silu', 'linear')
_SIZES = (
  'vocab_size',
  'emb_dim',
  'num_heads',
  'head_dim',
  'mlp_dim',
  'num_encoder_layers',
  'num_decoder_layers',
)


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Static shape of a T5; hashable, so that it can be a jit-static argument.

  T5 v1.0 is `mlp_activations=('relu',)` with `logits_via_embedding=True`;
  v1.1 and Flan-T5 are `('gelu', 'linear')` (gated) with an untied head, UL2 is
  `('silu', 'linear')`.

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
    relative_attention_per_layer: each layer has a position bias of its own
      (umT5; T5X's scanned layers) instead of one a stack.
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
  relative_attention_per_layer: bool = False
  layer_norm_epsilon: float = 1e-6
  dtype: str = 'float32'

  def __post_init__(self):
    config_checks.sizes(self, _SIZES)
    # Half of the buckets are for either direction, half of those for exact
    # distances; the others are spread up to the largest.
    buckets = 'relative_attention_num_buckets'
    config_checks.size(self, buckets, least=4, most=_MOST_BUCKETS)
    config_checks.size(
      self,
      'relative_attention_max_distance',
      least=self.relative_attention_num_buckets // 2 + 1,
    )
    config_checks.chosen(self, 'mlp_activations', _ACTIVATIONS)
    config_checks.flag(self, 'logits_via_embedding')
    config_checks.flag(self, 'relative_attention_per_layer')
    config_checks.positive(self, 'layer_norm_epsilon')
    config_checks.rate(self, 'dropout_rate')
    config_checks.compute_dtype(self)

  @property
  def compute_dtype(self) -> jnp.dtype:
    return jnp.dtype(self.dtype)
