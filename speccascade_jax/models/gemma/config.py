"""The architecture of a Gemma, generations 1 to 3 (text)."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import jax.numpy as jnp

from speccascade_jax.models import config_checks

GLOBAL, LOCAL = 'global', 'local'

_SIZES = (
  'vocab_size',
  'emb_dim',
  'num_layers',
  'num_heads',
  'num_kv_heads',
  'head_dim',
  'mlp_dim',
)


@dataclasses.dataclass(frozen=True)
class GemmaConfig:
  """Static shape of a Gemma; hashable, so that it can be jit-static.

  The generations differ in switches alone (Gemma Team, 2024a, 2024b, 2025):

                          Gemma 1   Gemma 2        Gemma 3
    attention_pattern     global    local, global  5 x local, global
    sliding_window        -         4096           512 or 1024
    use_post_norms        no        yes            yes
    use_qk_norm           no        no             yes
    attn_logit_softcap    -         50             -
    final_logit_softcap   -         30             -
    local_rope_base       -         10,000         10,000
    rope_base             10,000    10,000         1,000,000

  Attributes:
    vocab_size: V, rows of the embedding, which is also the head.
    emb_dim: E, width of the residual stream.
    num_layers: at least 1.
    num_heads: H, of queries.
    num_kv_heads: heads of keys and values; divides H.
    head_dim: D, even. H * D need not equal E.
    mlp_dim: width of each of the two halves of the gated feed-forward layer.
    attention_pattern: 'local' or 'global', layer by layer, repeated as often
      as there are layers.
    sliding_window: tokens that a local layer sees, its own included.
    query_pre_attn_scalar: attention logits are divided by its square root; D
      where it is None.
    attn_logit_softcap: c in `c tanh(logits / c)`, before the mask.
    final_logit_softcap: likewise, of the logits over the vocabulary.
    use_post_norms: also norm what attention and feed-forward layer give.
    use_qk_norm: norm queries and keys, head by head.
    rope_base: of the rotary positions of global layers.
    local_rope_base: of those of local layers.
    rope_scale_factor: positions of global layers are divided by it (8 in
      Gemma 3 from 4B on).
    rms_norm_epsilon: of all norms.
    dropout_rate: for training only.
    dtype: of activations and matrix products: 'float32' or 'bfloat16'.
      Softmaxes and norms are computed in float32 in any case, and logits are
      summed in it.
  """

  vocab_size: int
  emb_dim: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_dim: int
  attention_pattern: tuple[str, ...] = (GLOBAL,)
  sliding_window: int | None = None
  query_pre_attn_scalar: float | None = None
  attn_logit_softcap: float | None = None
  final_logit_softcap: float | None = None
  use_post_norms: bool = False
  use_qk_norm: bool = False
  rope_base: float = 10_000.0
  local_rope_base: float = 10_000.0
  rope_scale_factor: float = 1.0
  rms_norm_epsilon: float = 1e-6
  dropout_rate: float = 0.0
  dtype: str = 'float32'

  def __post_init__(self):
    config_checks.sizes(self, _SIZES)
    if self.num_heads % self.num_kv_heads:
      wanted = f'a divisor of num_heads={self.num_heads}'
      config_checks.refuse(self, 'num_kv_heads', wanted)
    if self.head_dim % 2:
      # Rotary positions turn its halves against each other.
      config_checks.refuse(self, 'head_dim', 'even')
    config_checks.chosen(self, 'attention_pattern', (GLOBAL, LOCAL))
    if self.sliding_window is not None:
      config_checks.size(self, 'sliding_window')
    elif LOCAL in self.attention_pattern:
      wanted = 'given, since attention_pattern has local layers'
      config_checks.refuse(self, 'sliding_window', wanted)
    for field in ('attn_logit_softcap', 'final_logit_softcap'):
      config_checks.positive(self, field, optional=True)
    config_checks.positive(self, 'query_pre_attn_scalar', optional=True)
    for field in (
      'rope_base',
      'local_rope_base',
      'rope_scale_factor',
      'rms_norm_epsilon',
    ):
      config_checks.positive(self, field)
    config_checks.flag(self, 'use_post_norms')
    config_checks.flag(self, 'use_qk_norm')
    config_checks.rate(self, 'dropout_rate')
    config_checks.compute_dtype(self)

  @property
  def compute_dtype(self) -> jnp.dtype:
    return jnp.dtype(self.dtype)

  def is_local(self, layer: int) -> bool:
    """Whether a layer, counted from 0, sees its window alone."""
    pattern = self.attention_pattern
    return pattern[layer % len(pattern)] == LOCAL


def shortest_pattern(layers: Sequence[str]) -> tuple[str, ...]:
  """The `attention_pattern` that gives these layers, as short as can be."""
  return next(
    tuple(layers[:n])
    for n in range(1, len(layers) + 1)
    if all(kind == layers[i % n] for i, kind in enumerate(layers))
  )


def generation(config: GemmaConfig) -> int | None:
  """1, 2 or 3: the first whose published code computes this shape.

  None where no generation combines the config's switches.
  """
  local = LOCAL in config.attention_pattern
  # Where all layers are global, all are scaled, as the first two scale.
  one_rope = not local or (
    config.rope_scale_factor == 1.0
    and config.rope_base == config.local_rope_base
  )
  capped = (config.attn_logit_softcap, config.final_logit_softcap) != (
    None,
    None,
  )
  scaled = config.query_pre_attn_scalar not in (None, config.head_dim)
  if config.use_post_norms and config.use_qk_norm:
    return 3
  if config.use_post_norms and one_rope:
    return 2
  plain = not (config.use_post_norms or config.use_qk_norm or local)
  return 1 if plain and one_rope and not capped and not scaled else None
