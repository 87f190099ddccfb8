"""Gemma 1, 2 and 3 in Flax linen: one stack for training and for decoding.

The same layers run without a cache (a whole text at once) and with one (K
tokens a row, at per-row positions); only the source of keys, values and biases
differs. A global layer has a slot for every token. So has a local one while
the text is short; of a longer one it keeps a ring, see `ring_cache`.
"""

from __future__ import annotations

import dataclasses

from flax import linen as nn
import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax.models import kv_cache
from speccascade_jax.models import layers
from speccascade_jax.models import ring_cache
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.gemma import layers as gemma_layers

KeysValues = tuple[base.Array, base.Array]  # 2 x [B, kv heads, L, D]

PAD_ID = 0
_ACTIVATIONS = ('gelu', 'linear')


@base.pytree_dataclass
class GemmaCache:
  """What one batch carries through decoding.

  Attributes:
    layers: keys and values of each layer.
    widest: the most tokens that one call may write (static).
    ring: whether local layers have fewer slots than the text has tokens
      (static).
  """

  layers: tuple[KeysValues, ...]
  widest: int = dataclasses.field(metadata={'static': True})
  ring: bool = dataclasses.field(metadata={'static': True})


@base.pytree_dataclass
class _View:
  """What layers of one kind see of K tokens' surroundings.

  Attributes:
    by: rotary angles of the tokens.
    bias: `[B, 1, 1, K, L]` over what they attend to, see `_remember`.
  """

  by: gemma_layers.Rotation
  bias: base.Array


class Layer(nn.Module):
  """Attention and a gated feed-forward block, each between its norms."""

  config: gemma_config.GemmaConfig

  def setup(self):
    config = self.config
    dtype, epsilon = config.compute_dtype, config.rms_norm_epsilon
    self.pre_attention_norm = gemma_layers.RMSNorm(epsilon, dtype)
    self.pre_mlp_norm = gemma_layers.RMSNorm(epsilon, dtype)
    if config.use_post_norms:
      self.post_attention_norm = gemma_layers.RMSNorm(epsilon, dtype)
      self.post_mlp_norm = gemma_layers.RMSNorm(epsilon, dtype)
    scalar = config.query_pre_attn_scalar
    self.attention = gemma_layers.Attention(
      config.num_heads,
      config.num_kv_heads,
      config.head_dim,
      config.emb_dim,
      (config.head_dim if scalar is None else scalar) ** -0.5,
      config.attn_logit_softcap,
      epsilon if config.use_qk_norm else None,
      dtype,
    )
    self.mlp = layers.MLP(
      config.mlp_dim, _ACTIVATIONS, config.dropout_rate, dtype
    )
    self.dropout = nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))

  def __call__(
    self,
    x: base.Array,
    view: _View,
    cache: KeysValues | None,
    remember,
    deterministic: bool,
  ) -> tuple[base.Array, KeysValues]:
    """One layer over `x [B, K, E]`; also returns its cache."""
    post = self.config.use_post_norms
    h = self.pre_attention_norm(x)
    new = self.attention.keys_values(h, view.by)
    seen, kept = new, new
    if cache is not None:
      (keys, kept_keys), (values, kept_values) = map(remember, cache, new)
      seen, kept = (keys, values), (kept_keys, kept_values)
    h = self.attention(h, view.by, *seen, view.bias)
    h = self.post_attention_norm(h) if post else h
    x = x + self.dropout(h, deterministic=deterministic)
    h = self.mlp(self.pre_mlp_norm(x), deterministic)
    h = self.post_mlp_norm(h) if post else h
    return x + self.dropout(h, deterministic=deterministic), kept


class Decoder(nn.Module):
  """The stack of layers."""

  config: gemma_config.GemmaConfig

  def setup(self):
    config = self.config
    self.layers = [Layer(config) for _ in range(config.num_layers)]
    self.final_norm = gemma_layers.RMSNorm(
      config.rms_norm_epsilon, config.compute_dtype
    )
    self.dropout = nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))

  def __call__(
    self,
    x: base.Array,
    lengths: base.Array,
    cache: GemmaCache | None = None,
    limits: base.Array | None = None,
    deterministic: bool = True,
  ) -> tuple[base.Array, tuple[KeysValues, ...]]:
    """Hidden states `[B, K, E]` before the head, and the layers' caches.

    Args:
      x: `[B, K, E]` embedded tokens.
      lengths: `[B]` tokens before them, row by row.
      cache: holds those; None if there are none.
      limits: `[B]` where a prompt's padding begins; None while decoding.
      deterministic: False draws dropout masks.
    """
    x = self.dropout(x, deterministic=deterministic)
    config, updated = self.config, []
    views, ways = {}, {}
    for i, layer in enumerate(self.layers):
      local = config.is_local(i)
      held = None if cache is None else cache.layers[i]
      if local not in views:
        ring = local and cache is not None and cache.ring
        slots = 0 if held is None else held[0].shape[2]
        ways[local] = _remember(lengths, limits, ring)
        views[local] = _View(
          self._rotation(lengths, x.shape[1], local),
          self._bias(lengths, x.shape[1], local, slots, ring, limits),
        )
      x, kept = layer(x, views[local], held, ways[local], deterministic)
      updated.append(kept)
    x = self.final_norm(x)
    return self.dropout(x, deterministic=deterministic), tuple(updated)

  def _rotation(self, lengths, k, local) -> gemma_layers.Rotation:
    config = self.config
    return gemma_layers.rotation(
      lengths[:, None] + jnp.arange(k),
      config.head_dim,
      config.local_rope_base if local else config.rope_base,
      1.0 if local else config.rope_scale_factor,
    )

  def _bias(self, lengths, k, local, slots, ring, limits) -> base.Array:
    """Who sees whom, `[B, 1, 1, K, L]`, in the order of `_remember`."""
    query = lengths[:, None] + jnp.arange(k)  # [B, K]
    if not slots:
      key = query
    elif not ring:
      key = jnp.arange(slots)[None]
    elif limits is None:
      key = ring_cache.positions(lengths + k, slots)
    else:
      old = ring_cache.positions(lengths, slots)
      key = jnp.concatenate([old, query], axis=1)
    distance = query[:, :, None] - key[:, None, :]  # [B, K, L]
    sees = (distance >= 0) & (key >= 0)[:, None, :]
    if local:
      sees &= distance < self.config.sliding_window
    return jnp.where(sees, 0.0, kv_cache.MASKED)[:, None, None]


def _remember(lengths, limits, ring):
  """How a layer joins its cache `[B, H, L, D]` and new `[B, H, K, D]`.

  Returns:
    A function of both that gives what to attend to, and the cache to keep.
    They are one and the same, but for a prompt in a ring: its tokens may
    overwrite what its first ones still see, so they attend to both.
  """

  def join(cache, new):
    if not ring:
      written = kv_cache.write(cache, new, lengths)
    else:
      written = ring_cache.write(cache, new, lengths, limits)
    if ring and limits is not None:
      return jnp.concatenate([cache, new.astype(cache.dtype)], 2), written
    return written, written

  return join


class Transformer(nn.Module):
  """A decoder-only Gemma with its embedding for a head."""

  config: gemma_config.GemmaConfig

  def setup(self):
    config = self.config
    self.token_embedder = layers.Embed(
      config.vocab_size,
      config.emb_dim,
      config.compute_dtype,
      init_scale=config.emb_dim**-0.5,
    )
    self.decoder = Decoder(config)

  def __call__(
    self,
    inputs: base.Array,
    targets: base.Array,
    deterministic: bool = True,
    scored: base.Array | None = None,
  ) -> base.Array:
    """Teacher-forced logits `[B, T, V]` float32 of texts behind prompts.

    Args:
      inputs: `[B, S]` int32 prompts, right-padded with 0.
      targets: `[B, T]` int32, the texts shifted right behind a 0, as an
        encoder-decoder model reads them; the 0 stands for the prompt's end.
      deterministic: False draws dropout masks from the 'dropout' stream.
      scored: `[N]` int32, the tokens whose logits are wanted, `[B, T, N]`;
        None: all.
    """
    tokens, prompt = _joined(inputs, targets)
    x, _ = self.decoder(
      self._embed(tokens),
      jnp.zeros_like(prompt),
      deterministic=deterministic,
    )
    at = prompt[:, None] - 1 + jnp.arange(targets.shape[1])
    return self._logits(jnp.take_along_axis(x, at[..., None], axis=1), scored)

  def empty(self, batch: int, tokens: int, widest: int) -> GemmaCache:
    """A cache for texts of `tokens`, in calls of up to `widest` of them."""
    config = self.config
    window = config.sliding_window
    slots = tokens
    if window is not None:
      slots = ring_cache.slots_for(window, widest, tokens)
    return GemmaCache(
      tuple(
        kv_cache.empty(
          batch,
          config.num_kv_heads,
          slots if config.is_local(i) else tokens,
          config.head_dim,
          config.compute_dtype,
        )
        for i in range(config.num_layers)
      ),
      widest,
      slots < tokens,
    )

  def prefill(
    self,
    cache: GemmaCache,
    tokens: base.Array,
    lengths: base.Array,
    limits: base.Array,
  ) -> GemmaCache:
    """Puts a part `[B, K]` of the prompts into the cache, unscored.

    Args:
      cache: holds `lengths [B]` tokens of every row.
      tokens: the next ones; at `limits [B]` of a row its padding begins.
      lengths: see above.
      limits: see above.
    """
    _, updated = self.decoder(self._embed(tokens), lengths, cache, limits)
    return dataclasses.replace(cache, layers=updated)

  def extend(
    self, cache: GemmaCache, tokens: base.Array, lengths: base.Array
  ) -> tuple[base.Array, GemmaCache]:
    """Scores `tokens [B, K]` written behind `lengths [B]` cached ones.

    Returns:
      Logits `[B, K, V]` float32 and the cache with the K slots overwritten.

    Raises:
      ValueError: if K is more than the cache was made for.
    """
    k = tokens.shape[1]
    if cache.ring and k > cache.widest:
      raise ValueError(
        f'A call of {k} tokens, but this cache was started for calls of up to '
        f'{cache.widest}: give `start` the widest call as `widest`.'
      )
    x, updated = self.decoder(self._embed(tokens), lengths, cache)
    return self._logits(x), dataclasses.replace(cache, layers=updated)

  def _embed(self, tokens: base.Array) -> base.Array:
    config = self.config
    # Rounded to the activations' type, as the published models were trained.
    scale = jnp.asarray(config.emb_dim**0.5, config.compute_dtype)
    return self.token_embedder(tokens) * scale

  def _logits(
    self, x: base.Array, scored: base.Array | None = None
  ) -> base.Array:
    logits = self.token_embedder.attend(x, scored)
    return gemma_layers.softcap(logits, self.config.final_logit_softcap)


def prompt_lengths(inputs: base.Array) -> base.Array:
  """Tokens `[B]` of right-padded prompts; an empty one counts as one 0."""
  return jnp.maximum((inputs != PAD_ID).sum(axis=-1, dtype=jnp.int32), 1)


def _joined(inputs, targets) -> tuple[base.Array, base.Array]:
  """Prompts and texts without a gap, `[B, S + T - 1]`, and prompt lengths."""
  prompt = prompt_lengths(inputs)
  width = inputs.shape[1]
  position = jnp.arange(width + targets.shape[1] - 1)
  # The 0 in front of the targets is left out.
  side_by_side = jnp.concatenate([inputs, targets[:, 1:]], axis=1)
  behind = width + position - prompt[:, None]
  at = jnp.where(position < prompt[:, None], position, behind)
  # Behind the texts lies nothing that anyone sees.
  at = jnp.minimum(at, side_by_side.shape[1] - 1)
  return jnp.take_along_axis(side_by_side, at, axis=1), prompt
