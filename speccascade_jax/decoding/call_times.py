"""How long single model calls take, apart from everything around them.

Many calls run in one program, each on the cache that the last one left, so
that the way from Python to the device is paid once and not by every call.
Programs take short turns, and the quickest turn of each is what counts: other
jobs on the machine can only add to a time. (A median will not do on a CPU that
is shared: a large model that runs on all cores waits for the slowest of them,
a small one on a single core does not, and their ratio is lost.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base
from speccascade_jax.models import protocol


def programs(
  model: protocol.StepModel,
  params: base.Params,
  widths: Sequence[int],
  *,
  calls: int,
  input_length: int,
  max_length: int,
) -> dict[str, Callable[[], base.Array]]:
  """Programs of `calls` calls at batch size 1, by name.

  Args:
    model: the step functions.
    params: the model's parameters.
    widths: tokens that a call of `extend` scores, a program each.
    calls: how many a program makes.
    input_length: S, of the source or prompt.
    max_length: T, the most tokens to emit; the cache has room for them.

  Returns:
    'start', which begins a text, and 'K' for every K of `widths`.
  """
  # Any tokens do: the cost of a call does not depend on what they are.
  inputs = jnp.full((1, input_length), 2, jnp.int32)
  room = (max_length + max(widths), max(widths))
  begun = jax.jit(model.start, static_argnums=(2, 3))(params, inputs, *room)
  found: dict[str, Callable[[], base.Array]] = {
    'start': functools.partial(
      _starts, model, params, inputs, begun, calls=calls, room=room
    )
  }
  for width in widths:
    found[str(width)] = functools.partial(
      _extends,
      model,
      params,
      begun,
      calls=calls,
      width=width,
      max_length=max_length,
    )
  return found


def quickest_ms(
  timed: Mapping[str, Callable[[], base.Array]],
  *,
  calls: int,
  repeats: int,
) -> dict[str, float]:
  """Milliseconds of one call in each program, in the quickest repeat."""
  found = turns(timed, repeats=repeats)
  return {
    name: float(f'{min(values) * 1e3 / calls:.6g}')
    for name, values in found.items()
  }


def turns(
  timed: Mapping[str, Callable[[], Any]], *, repeats: int
) -> dict[str, list[float]]:
  """Seconds that each program takes in each of `repeats` turns."""
  for program in timed.values():
    jax.block_until_ready(program())  # Compiles.
  found: dict[str, list[float]] = {name: [] for name in timed}
  names = list(timed)
  for turn in range(repeats):
    for name in names[turn % len(names) :] + names[: turn % len(names)]:
      start = time.perf_counter()
      jax.block_until_ready(timed[name]())
      found[name].append(time.perf_counter() - start)
  return found


@functools.partial(jax.jit, static_argnames=('model', 'calls', 'room'))
def _starts(model, params, inputs, begun, *, calls, room):
  def step(_, carry):
    inputs, last = carry
    # Each start waits for the one before it, lest the compiler see that they
    # are all the same and keep one.
    probe = sum(
      jnp.asarray(leaf).reshape(-1)[0].astype(jnp.float32)
      for leaf in jax.tree.leaves(last.cache)
    )
    inputs = jnp.where(probe == jnp.inf, 0, inputs)
    return inputs, model.start(params, inputs, *room)

  return jax.lax.fori_loop(0, calls, step, (inputs, begun))[1]


@functools.partial(
  jax.jit, static_argnames=('model', 'calls', 'width', 'max_length')
)
def _extends(model, params, begun, *, calls, width, max_length):
  def step(number, carry):
    cache, token = carry
    # Down the text, and from its end back to its beginning.
    lengths = begun.lengths + number * width % np.int32(max_length)
    tokens = jnp.broadcast_to(token[:, None], (1, width))
    logits, cache = model.extend(params, cache, tokens, lengths)
    return cache, logits[:, -1].argmax(-1).astype(jnp.int32)

  carry = (begun.cache, begun.token.astype(jnp.int32))
  return jax.lax.fori_loop(0, calls, step, carry)[1]
