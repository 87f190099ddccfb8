"""The shape alphabet and the types that the rest of the package speaks.

Shapes are written with one letter a dimension, the same in every file:

  B  rows of a batch            G  drafted tokens a block (gamma)
  T  target (output) length     S  source (input) length
  V  vocabulary                 L  slots of a key/value cache
  K  tokens scored by one call  H  attention heads
  D  size of one head           E  width of the residual stream (d_model)

Nothing here computes; nothing here imports another module of the package.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import enum
from typing import Any, TypeAlias, TypeVar, dataclass_transform

import jax

Array: TypeAlias = jax.Array
Params = Any  # A pytree of arrays.
Cache = Any  # A pytree of arrays, rows in front; opaque to the loops.

_T = TypeVar('_T')


@dataclass_transform(frozen_default=True)
def pytree_dataclass(cls: type[_T]) -> type[_T]:
  """A frozen dataclass whose fields are all children of a JAX pytree."""
  return jax.tree_util.register_dataclass(
    dataclasses.dataclass(frozen=True)(cls)
  )


class Provenance(enum.IntEnum):
  """Who produced an output token. Zero marks slots past a row's end."""

  NONE = 0
  DRAFTER = 1  # Drafted and kept (or the drafter decodes alone).
  RESAMPLED = 2  # Drawn from the residual after a rejection.
  VERIFIER = 3  # Drawn by the verifier where no drafted token was rejected.


@pytree_dataclass
class Target:
  """What a deferral rule wants to be emitted at each position.

  `pi` and `deferral` are enough for every method that samples a target
  distribution exactly. The optional fields are the wider interface for
  methods that prescribe *how* a drafted token is kept (lossy speculative
  decoding, BiLD); `None` means what exact speculative sampling of `pi` does.
  """

  pi: Array  # [..., V] law of the token emitted here.
  # [...] mass of q handed to the verifier: r, or eta; NaN if undefined.
  deferral: Array
  accept: Array | None = None  # [..., V] keep probability; min(1, pi / q).
  residual: Array | None = None  # [..., V] weights; max(0, pi - q).
  bonus: Array | None = None  # [..., V] law after a fully kept block; pi.


@pytree_dataclass
class Verdict:
  """The outcome of verifying one block of G drafted tokens per row."""

  accepted: Array  # [B] int32, drafted tokens kept, 0 .. G.
  next_token: Array  # [B] int32, the token emitted behind them.
  provenance: Array  # [B, G+1] int32 `Provenance`, NONE past `accepted`.
  deferral: Array  # [B, G+1] float32, mass of q handed to the verifier.


@pytree_dataclass
class Counters:
  """What one row cost and what became of its tokens; all `[B]`.

  Only work done while the row was unfinished is counted, and only tokens that
  ended up in its text: `accepted + resampled + (tokens by the verifier)` is
  the output length, end-of-sequence token included.
  """

  drafter_steps: Array  # [B] int32, single-token calls of the drafter.
  verifier_calls: Array  # [B] int32, calls of the verifier of any width.
  drafted: Array  # [B] int32, tokens that the drafter proposed.
  accepted: Array  # [B] int32, output tokens that were drafted and kept.
  resampled: Array  # [B] int32, output tokens that replaced a rejected one.
  # [B] float32, summed deferral at the output positions; NaN if undefined.
  deferred: Array


@pytree_dataclass
class Generation:
  """Finished text of a batch, with where every token came from."""

  tokens: Array  # [B, T] int32, EOS kept, pad (0) behind it.
  lengths: Array  # [B] int32, output tokens, EOS included.
  provenance: Array  # [B, T] int32 `Provenance`.
  counters: Counters
  # With trace=True: unscaled probabilities of the output tokens, else None.
  # NaN where the model in question did not score the position.
  drafter_probs: Array | None = None  # [B, T]
  verifier_probs: Array | None = None  # [B, T]


# rule(q, p, q_conf, p_conf, alpha) -> Target, or pi alone.
#   q, p            [..., V] scaled distributions (temperature, truncation)
#   q_conf, p_conf  [..., V] unscaled ones, for confidences and entropies
#   alpha           scalar, traced; larger trusts the drafter more
# A bare array is taken for `pi`; its deferral is undefined, NaN.
Rule = Callable[[Array, Array, Array, Array, Array], 'Target | Array']

# verify(drafted, q, target, u_accept, u_next) -> Verdict
#   drafted   [B, G] int32 tokens drawn from q
#   q         [B, G+1, V] scaled drafter distributions
#   target    Target over [B, G+1, V]
#   u_accept  [B, G] independent uniforms in [0, 1)
#   u_next    [B] one more, for the token behind the kept ones
# Pure and deterministic given the uniforms, so that its law is an integral
# over them, which the tests take exactly.
Verify = Callable[[Array, Array, Target, Array, Array], Verdict]
