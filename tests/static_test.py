"""Settings that are equal are one static argument."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import static


@pytest.mark.parametrize(
  'value', [3, np.int32(3), np.uint8(3), np.array(3), jnp.int32(3)]
)
def test_integers_of_any_type_become_python_s(value):
  found = static.positive_integer('gamma', value)
  assert type(found) is int and found == 3


@pytest.mark.parametrize(
  'value', [True, np.True_, 3.0, np.float32(3), '3', None, 0, np.int64(-1), [3]]
)
def test_what_is_no_positive_integer_is_named(value):
  with pytest.raises(ValueError, match='gamma must be a positive integer, got'):
    static.positive_integer('gamma', value)


def _scaled(x, factor=1, offset=0):
  return factor * x + offset


def test_equal_partials_are_traced_once():
  traced = []

  @functools.partial(jax.jit, static_argnames='function')
  def call(function, x):
    traced.append(function)
    return function(x)

  def partial(**keywords):
    return static.function(functools.partial(_scaled, **keywords))

  assert partial(factor=2) == partial(factor=2)
  for _ in range(2):
    assert call(partial(factor=2, offset=1), 5) == 11
    assert call(partial(offset=1, factor=2), 5) == 11
  assert len(traced) == 1
  # Without the wrapper each of them is another function.
  call(functools.partial(_scaled, factor=2, offset=1), 5)
  assert len(traced) == 2


def test_partials_of_other_contents_differ():
  def partial(*args, **keywords):
    return static.function(functools.partial(_scaled, *args, **keywords))

  plain = partial(factor=1)
  assert plain != partial(factor=2)
  assert plain != partial(offset=1)
  assert plain != partial(1)
  assert plain != static.function(functools.partial(max, factor=1))
  # Equal as numbers, and another program.
  assert plain != partial(factor=1.0)
  assert plain != partial(factor=True)


def test_partials_of_partials_are_compared_by_what_they_hold():
  def nested():
    inner = functools.partial(_scaled, factor=2)
    inner.note = 'an attribute keeps partials from being merged'
    return static.function(functools.partial(inner, offset=1))

  assert nested() == nested()
  assert nested()(5) == 11


def test_other_functions_and_unhashable_arguments_are_left_alone():
  assert static.function(_scaled) is _scaled
  partial = functools.partial(_scaled, factor=np.ones(2))
  assert static.function(partial) is partial
