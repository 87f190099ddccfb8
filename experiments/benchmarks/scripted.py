"""Acceptance as one likes it: models that are told what to say.

Each network runs in full, then its logits are overruled: the verifier says a
successor of the token before, the drafter says the same one for a given share
of all tokens and its neighbour for the others. So the time is that of the
networks, and the acceptance does not depend on their weights. Both libraries
are told the same, and so take the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import jax.numpy as jnp

from speccascade_jax import base
from speccascade_jax.models import protocol

_FIRST = 3  # Below it are the padding, the end and the unknown token.
_CERTAIN = 1e4
_SHARES = 997  # A prime, so that tokens scatter over the shares.


def successors(tokens: Any, size: int, acceptance: float | None) -> Any:
  """What is said behind each token; NumPy's, JAX's or PyTorch's integers.

  Args:
    tokens: of any shape.
    size: V.
    acceptance: of a drafter, the share of tokens behind which it is right;
      None for the verifier.
  """
  room = size - _FIRST
  right = (tokens * 31 + 7) % room
  if acceptance is not None:
    # A multiply and a mask: all that is the same everywhere.
    share = (tokens * 7919 & 0xFFFF) % _SHARES
    right = (right + (share >= acceptance * _SHARES)) % room
  return _FIRST + right


def step_model(
  model: protocol.StepModel, acceptance: float | None = None
) -> protocol.StepModel:
  """The model, overruled."""

  def extend(params, cache, tokens, lengths):
    logits, cache = model.extend(params, cache, tokens, lengths)
    said = successors(tokens, model.vocab_size, acceptance)
    chosen = jnp.arange(model.vocab_size) == said[..., None]
    return jnp.where(chosen, _CERTAIN, logits), cache

  return dataclasses.replace(model, extend=extend)


def drafter(model: protocol.StepModel) -> protocol.StepModel:
  """The same with the acceptance among its parameters: it compiles once.

  Its parameters are `told(params, acceptance)`.
  """

  def start(params, *args):
    return model.start(params['network'], *args)

  def extend(params, *args):
    overruled = step_model(model, params['acceptance'])
    return overruled.extend(params['network'], *args)

  return dataclasses.replace(model, start=start, extend=extend)


def told(params: base.Params, acceptance: float) -> base.Params:
  """Parameters of a `drafter` that is right in so many cases."""
  return {'network': params, 'acceptance': jnp.float32(acceptance)}


def hook(size: int, acceptance: float | None = None) -> Callable:
  """A forward hook, with keywords, that overrules a model of transformers."""

  def overrule(module, args, kwargs, output):
    del module, args
    tokens = kwargs.get('decoder_input_ids')
    if tokens is None:
      tokens = kwargs['input_ids']
    # The logits of a prompt are those of its last tokens alone.
    said = successors(tokens[:, -output.logits.shape[1] :], size, acceptance)
    output.logits.scatter_(-1, said[..., None], _CERTAIN)
    return output

  return overrule


def expected_calls(
  first: int, size: int, acceptance: float, gamma: int, length: int
) -> int:
  """Verifier calls for `length` tokens behind the token `first`."""
  token, emitted, calls = first, 0, 0
  while emitted < length:
    calls += 1
    for _ in range(gamma + 1):
      right = successors(token, size, None)
      kept = successors(token, size, acceptance) == right
      token, emitted = right, emitted + 1
      if not kept:
        break
  return calls
