"""T5 in Flax linen: one decoder for training and for cached decoding.

Parameter names, shapes and logical axes are T5X's, so that its checkpoints map
one to one and its sharding rules apply. The same layers run without a cache
(teacher forcing, all T positions at once) and with one (K tokens a row, at
per-row positions); only the source of keys, values and biases differs.
"""

from __future__ import annotations

from flax import linen as nn
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax.models import kv_cache
from speccascade_jax.models import layers
from speccascade_jax.models.t5 import config as t5_config
from speccascade_jax.models.t5 import layers as t5_layers

KeysValues = tuple[base.Array, base.Array]  # 2 x [B, H, L, D]

PAD_ID = 0  # Also the token that starts every target.


@base.pytree_dataclass
class T5Cache:
  """What one batch carries through decoding."""

  self_attention: tuple[KeysValues, ...]  # a layer each: 2 x [B, H, L, D]
  cross_attention: tuple[KeysValues, ...]  # a layer each: 2 x [B, H, S, D]
  cross_bias: base.Array  # [B, 1, 1, S] 0, or MASKED at padding
  # 1 x [L, H], or one a layer: decoder position bias by distance, looked up
  # once: neither the logarithm of the buckets nor the gather of weights recurs
  # at every step.
  distance_bias: tuple[base.Array, ...]


def _attention(config: t5_config.T5Config, name: str) -> t5_layers.Attention:
  return t5_layers.Attention(
    config.num_heads,
    config.head_dim,
    config.emb_dim,
    config.dropout_rate,
    config.compute_dtype,
    name=name,
  )


def _norm(config: t5_config.T5Config, name: str) -> t5_layers.RMSNorm:
  return t5_layers.RMSNorm(
    config.layer_norm_epsilon, config.compute_dtype, name=name
  )


def _mlp(config: t5_config.T5Config, name: str) -> layers.MLP:
  return layers.MLP(
    config.mlp_dim,
    config.mlp_activations,
    config.dropout_rate,
    config.compute_dtype,
    name=name,
  )


def _dropout(config: t5_config.T5Config) -> nn.Dropout:
  return nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))


def _position_bias(
  config: t5_config.T5Config, bidirectional: bool, name: str | None
) -> t5_layers.RelativePositionBias:
  return t5_layers.RelativePositionBias(
    config.num_heads,
    config.relative_attention_num_buckets,
    config.relative_attention_max_distance,
    bidirectional,
    name=name,
  )


def _encoder_bias(config: t5_config.T5Config, length: int) -> base.Array:
  """Position bias `[1, H, S, S]`, of the module that calls it."""
  position = jnp.arange(length)
  bias = _position_bias(config, bidirectional=True, name='relpos_bias')(
    position[None, :] - position[:, None]
  )  # [S, S, H]
  return bias.transpose(2, 0, 1)[None]


class EncoderLayer(nn.Module):
  """Attention and a feed-forward block, each behind its norm."""

  config: t5_config.T5Config

  @nn.compact
  def __call__(
    self, x: base.Array, bias: base.Array, deterministic: bool
  ) -> base.Array:
    config = self.config
    if config.relative_attention_per_layer:
      bias = bias + _encoder_bias(config, x.shape[1])
    dropout = _dropout(config)
    h = _norm(config, 'pre_attention_layer_norm')(x)
    attention = _attention(config, 'attention')
    keys, values = attention.keys_values(h)
    h = attention(h, keys, values, bias, deterministic)
    x = x + dropout(h, deterministic=deterministic)
    h = _norm(config, 'pre_mlp_layer_norm')(x)
    h = _mlp(config, 'mlp')(h, deterministic)
    return x + dropout(h, deterministic=deterministic)


class Encoder(nn.Module):
  """The stack of encoder layers, with one position bias for all, or each."""

  config: t5_config.T5Config

  @nn.compact
  def __call__(
    self, x: base.Array, mask: base.Array, deterministic: bool
  ) -> base.Array:
    """Encodes `x [B, S, E]`, with `mask [B, S]` true on real tokens."""
    config = self.config
    dropout = _dropout(config)
    bias = _padding_bias(mask)
    if not config.relative_attention_per_layer:
      bias = bias + _encoder_bias(config, x.shape[1])
    x = dropout(x, deterministic=deterministic)
    for i in range(config.num_encoder_layers):
      x = EncoderLayer(config, name=f'layers_{i}')(x, bias, deterministic)
    x = _norm(config, 'encoder_norm')(x)
    return dropout(x, deterministic=deterministic)


class DecoderLayer(nn.Module):
  """As in the encoder, with attention to the source in between."""

  config: t5_config.T5Config

  def setup(self):
    config = self.config
    self.pre_self_attention_layer_norm = _norm(config, None)
    self.self_attention = _attention(config, None)
    self.pre_cross_attention_layer_norm = _norm(config, None)
    self.encoder_decoder_attention = _attention(config, None)
    self.pre_mlp_layer_norm = _norm(config, None)
    self.mlp = _mlp(config, None)
    self.dropout = _dropout(config)
    if config.relative_attention_per_layer:
      self.relpos_bias = _position_bias(config, bidirectional=False, name=None)

  def cross_keys_values(self, encoded: base.Array) -> KeysValues:
    return self.encoder_decoder_attention.keys_values(encoded)

  def __call__(
    self,
    x: base.Array,
    self_bias: base.Array,
    cross: KeysValues,
    cross_bias: base.Array,
    cache: KeysValues | None,
    lengths: base.Array | None,
    deterministic: bool,
  ) -> tuple[base.Array, KeysValues]:
    """One layer over `x [B, K, E]`; also returns the keys and values used."""
    h = self.pre_self_attention_layer_norm(x)
    keys, values = self.self_attention.keys_values(h)
    if cache is not None:
      keys = kv_cache.write(cache[0], keys, lengths)
      values = kv_cache.write(cache[1], values, lengths)
    h = self.self_attention(h, keys, values, self_bias, deterministic)
    x = x + self.dropout(h, deterministic=deterministic)
    h = self.pre_cross_attention_layer_norm(x)
    h = self.encoder_decoder_attention(h, *cross, cross_bias, deterministic)
    x = x + self.dropout(h, deterministic=deterministic)
    h = self.pre_mlp_layer_norm(x)
    h = self.mlp(h, deterministic)
    x = x + self.dropout(h, deterministic=deterministic)
    return x, (keys, values)


class Decoder(nn.Module):
  """The stack of decoder layers, with the untied head if there is one."""

  config: t5_config.T5Config

  def setup(self):
    config = self.config
    if not config.relative_attention_per_layer:
      self.relpos_bias = _position_bias(config, bidirectional=False, name=None)
    self.layers = [
      DecoderLayer(config) for _ in range(config.num_decoder_layers)
    ]
    self.decoder_norm = _norm(config, None)
    self.dropout = _dropout(config)
    if not config.logits_via_embedding:
      self.logits_dense = layers.Dense(
        config.vocab_size,
        ('embed', 'vocab'),
        config.compute_dtype,
        out_dtype=jnp.float32,
      )

  def cross_keys_values(self, encoded: base.Array) -> tuple[KeysValues, ...]:
    """The encoder's output `[B, S, E]` as every layer will attend to it."""
    return tuple(layer.cross_keys_values(encoded) for layer in self.layers)

  def distance_bias(self, slots: int) -> tuple[base.Array, ...]:
    """Position bias `[L, H]` of looking back 0 .. L-1 tokens: one, or one a
    layer."""
    owners = self.layers if self.config.relative_attention_per_layer else [self]
    return tuple(owner.relpos_bias(-jnp.arange(slots)) for owner in owners)

  def __call__(
    self,
    x: base.Array,
    self_bias: tuple[base.Array, ...],
    cross: tuple[KeysValues, ...],
    cross_bias: base.Array,
    cache: tuple[KeysValues, ...] | None = None,
    lengths: base.Array | None = None,
    deterministic: bool = True,
  ) -> tuple[base.Array, tuple[KeysValues, ...]]:
    """Hidden states `[B, K, E]` before the head, and the updated cache."""
    x = self.dropout(x, deterministic=deterministic)
    updated = []
    for i, layer in enumerate(self.layers):
      x, keys_values = layer(
        x,
        self_bias[i % len(self_bias)],  # One is that of all layers.
        cross[i],
        cross_bias,
        None if cache is None else cache[i],
        lengths,
        deterministic,
      )
      updated.append(keys_values)
    x = self.decoder_norm(x)
    return self.dropout(x, deterministic=deterministic), tuple(updated)


class Transformer(nn.Module):
  """An encoder-decoder T5 with a language-model head."""

  config: t5_config.T5Config

  def setup(self):
    config = self.config
    self.token_embedder = layers.Embed(
      config.vocab_size, config.emb_dim, config.compute_dtype
    )
    self.encoder = Encoder(config)
    self.decoder = Decoder(config)

  def encode(
    self, encoder_inputs: base.Array, deterministic: bool = True
  ) -> base.Array:
    """Encodes `encoder_inputs [B, S]` (0 pads) to `[B, S, E]`."""
    x = self.token_embedder(encoder_inputs)
    return self.encoder(x, encoder_inputs != PAD_ID, deterministic)

  def __call__(
    self,
    encoder_inputs: base.Array,
    decoder_inputs: base.Array,
    deterministic: bool = True,
    scored: base.Array | None = None,
  ) -> base.Array:
    """Teacher-forced logits `[B, T, V]` float32.

    Args:
      encoder_inputs: `[B, S]` int32, right-padded with 0.
      decoder_inputs: `[B, T]` int32, the targets shifted right behind a 0.
      deterministic: False draws dropout masks from the 'dropout' stream.
      scored: `[N]` int32, the tokens whose logits are wanted, `[B, T, N]`;
        None: all.
    """
    encoded = self.encode(encoder_inputs, deterministic)
    length = decoder_inputs.shape[1]
    start = jnp.zeros((1,), jnp.int32)
    self_bias = _causal_biases(
      self.decoder.distance_bias(length), start, length
    )
    x, _ = self.decoder(
      self.token_embedder(decoder_inputs),
      self_bias,
      self.decoder.cross_keys_values(encoded),
      _padding_bias(encoder_inputs != PAD_ID),
      deterministic=deterministic,
    )
    return self._logits(x, scored)

  def start(self, encoder_inputs: base.Array, slots: int) -> T5Cache:
    """Encodes the source and makes an empty cache of `slots` (L) slots."""
    config = self.config
    encoded = self.encode(encoder_inputs)
    empty = tuple(
      kv_cache.empty(
        encoder_inputs.shape[0],
        config.num_heads,
        slots,
        config.head_dim,
        config.compute_dtype,
      )
      for _ in range(config.num_decoder_layers)
    )
    return T5Cache(
      self_attention=empty,
      cross_attention=self.decoder.cross_keys_values(encoded),
      cross_bias=_padding_bias(encoder_inputs != PAD_ID),
      distance_bias=self.decoder.distance_bias(slots),
    )

  def extend(
    self, cache: T5Cache, tokens: base.Array, lengths: base.Array
  ) -> tuple[base.Array, T5Cache]:
    """Scores `tokens [B, K]` written behind `lengths [B]` cached ones.

    Returns:
      Logits `[B, K, V]` float32 and the cache with the K slots overwritten.
    """
    self_bias = _causal_biases(cache.distance_bias, lengths, tokens.shape[1])
    x, updated = self.decoder(
      self.token_embedder(tokens),
      self_bias,
      cache.cross_attention,
      cache.cross_bias,
      cache.self_attention,
      lengths,
    )
    cache = T5Cache(
      self_attention=updated,
      cross_attention=cache.cross_attention,
      cross_bias=cache.cross_bias,
      distance_bias=cache.distance_bias,
    )
    return self._logits(x), cache

  def _logits(
    self, x: base.Array, scored: base.Array | None = None
  ) -> base.Array:
    if self.config.logits_via_embedding:
      # Undoes the unit variance of the embedding (Mesh TensorFlow's rule).
      return self.token_embedder.attend(x, scored) * self.config.emb_dim**-0.5
    return self.decoder.logits_dense(x, scored)


def _padding_bias(mask: base.Array) -> base.Array:
  """`mask [B, S]` to an attention bias `[B, 1, 1, S]`."""
  return jnp.where(mask, 0.0, kv_cache.MASKED)[:, None, None, :]


def _causal_biases(
  distance_bias: tuple[base.Array, ...], lengths: base.Array, k: int
) -> tuple[base.Array, ...]:
  """Position bias and causal mask of K new tokens: each `[B, H, K, L]`.

  Args:
    distance_bias: each `[L, H]`, the bias of looking back 0 .. L-1 tokens.
    lengths: `[B]` tokens before the new ones, row by row.
    k: number of new tokens.
  """
  slots = distance_bias[0].shape[0]
  position = lengths[:, None] + jnp.arange(k)  # [B, K]
  distance = position[:, :, None] - jnp.arange(slots)  # [B, K, L]
  mask = kv_cache.attention_mask(lengths, k, slots)

  def masked(of_layer: base.Array) -> base.Array:
    bias = of_layer[jnp.clip(distance, 0, slots - 1)]  # [B, K, L, H]
    bias = jnp.where(mask[..., None], bias, kv_cache.MASKED)
    return bias.transpose(0, 3, 1, 2)

  return tuple(masked(of_layer) for of_layer in distance_bias)
