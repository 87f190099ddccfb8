"""What a call of a model cannot do without: weights read, operations on them.

Read off the traced function, so that it holds for any model. Of a table that
is looked up only the rows count that are. Caches and activations are left out,
which makes the floor a little too low and never too high.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
from jax.extend import core

from speccascade_jax import base
from speccascade_jax.models import protocol

# What passes a weight on as it is: another view, or type, of the same memory.
_VIEWS = {
  *('convert_element_type', 'transpose', 'reshape', 'broadcast_in_dim'),
  *('squeeze', 'copy', 'copy_p', 'optimization_barrier'),
}
_CALLS = {'jit', 'pjit', 'remat2', 'checkpoint'}


@dataclasses.dataclass(frozen=True)
class Work:
  """Of one call, at least."""

  bytes: float  # Of weights, each read once.
  operations: float  # Multiplications and additions with weights.

  def floor_ms(self, bytes_per_s: float, operations_per_s: float) -> float:
    """Milliseconds that the slower of the two takes."""
    return 1e3 * max(
      self.bytes / bytes_per_s, self.operations / operations_per_s
    )


def of_extend(
  model: protocol.StepModel,
  params: base.Params,
  *,
  batch: int,
  width: int,
  input_length: int,
  max_length: int,
) -> Work:
  """Of a call of `extend` that scores `width` tokens of each row."""
  inputs = jax.ShapeDtypeStruct((batch, input_length), 'int32')
  tokens = jax.ShapeDtypeStruct((batch, width), 'int32')
  room = (max_length + width, width)
  start = jax.eval_shape(lambda p, x: model.start(p, x, *room), params, inputs)
  closed = jax.make_jaxpr(model.extend)(
    params, start.cache, tokens, start.lengths
  )
  leaves = jax.tree.leaves(params)
  weights = dict(zip(closed.jaxpr.invars[: len(leaves)], range(len(leaves))))
  whole, rows, operations = set[int](), 0.0, 0.0
  for primitive, use, equation in _uses(closed.jaxpr, weights):
    if primitive == 'gather':
      rows += _bytes(equation.outvars[0].aval)
      continue
    whole |= set(use)
    if primitive == 'dot_general':
      operations += _operations(equation)
  return Work(rows + sum(_bytes(leaves[i]) for i in whole), operations)


def _uses(jaxpr: core.Jaxpr, weights: dict[Any, int]):
  """Yields (primitive, weights, equation) for all that reads a weight."""
  weights = dict(weights)
  for equation in jaxpr.eqns:
    # A literal is no variable and cannot be looked up.
    known = [v for v in equation.invars if isinstance(v, core.Var)]
    use = [weights[v] for v in known if v in weights]
    if not use:
      continue
    primitive = equation.primitive.name
    if primitive in _VIEWS:
      weights[equation.outvars[0]] = use[0]
    elif primitive in _CALLS:
      yield from _within(equation.params['jaxpr'], equation.invars, weights)
    elif primitive == 'cond':
      # One branch is taken, such as the one for this device; none does less.
      branches = [
        list(_within(branch, equation.invars[1:], weights))
        for branch in equation.params['branches']
      ]
      yield from min(branches, key=_total)
    else:
      yield primitive, use, equation


def _within(jaxpr, given, weights: dict[Any, int]):
  """As `_uses`, of a function that an equation calls, argument by argument."""
  jaxpr = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
  known = {
    inside: weights[outside]
    for inside, outside in zip(jaxpr.invars, given)
    if isinstance(outside, core.Var) and outside in weights
  }
  return _uses(jaxpr, known)


def _total(uses) -> float:
  return sum(
    _operations(equation)
    for primitive, _, equation in uses
    if primitive == 'dot_general'
  )


def _operations(equation: core.JaxprEqn) -> float:
  (contracted, _), _ = equation.params['dimension_numbers']
  left = equation.invars[0].aval.shape
  inner = math.prod(left[i] for i in contracted)
  return 2.0 * math.prod(equation.outvars[0].aval.shape) * inner


def _bytes(array: Any) -> float:
  return float(math.prod(array.shape) * array.dtype.itemsize)
