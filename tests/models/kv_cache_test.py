"""The cache's drawings, and that its checkers notice a wrong write."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax.models import kv_cache

FREE = '.'


def _from_drawing(*rows: str) -> jax.Array:
  """Rows such as 'abc....' to a cache [B, 1, L, 1]; '.' is an empty slot."""
  codes = [[0 if c == FREE else ord(c) for c in row] for row in rows]
  return jnp.asarray(codes, jnp.float32)[:, None, :, None]


def _draw(cache: jax.Array) -> tuple[str, ...]:
  rows = np.asarray(cache)[:, 0, :, 0].astype(int)
  return tuple(''.join(chr(c) if c else FREE for c in row) for row in rows)


def _write(write, cache, new, lengths):
  return write(cache, _from_drawing(*new), jnp.asarray(lengths))


def _clamping_write(cache, new, lengths):
  """What `dynamic_update_slice` does at the end: shifts the block back."""

  def row(cache, new, length):
    return jax.lax.dynamic_update_slice(cache, new, (0, length, 0))

  return jax.vmap(row)(cache, new, lengths)


def _additive_write(cache, new, lengths):
  """What adding through a one-hot mask does: stale slots shine through."""
  slots = lengths[:, None] + jnp.arange(new.shape[2])
  one_hot = jax.nn.one_hot(slots, cache.shape[2])  # [B, K, L]
  return cache + jnp.einsum('bkl,bhkd->bhld', one_hot, new)


def check_drawing_of_the_docstring(write):
  cache = _from_drawing('abc....')
  cache = _write(write, cache, ['def'], [3])
  assert _draw(cache) == ('abcdef.',)
  cache = _write(write, cache, ['xy'], [4])
  assert _draw(cache) == ('abcdxy.',)


def check_drops_past_the_end(write):
  cache = _from_drawing('abcdef.', 'abcdefg', 'ab.....')
  cache = _write(write, cache, ['xyz', 'xyz', 'xyz'], [5, 7, 2])
  assert _draw(cache) == ('abcdexy', 'abcdefg', 'abxyz..')


def test_drawing_of_the_docstring():
  check_drawing_of_the_docstring(kv_cache.write)
  check_drawing_of_the_docstring(jax.jit(kv_cache.write))


def test_writes_past_the_end_are_dropped():
  check_drops_past_the_end(kv_cache.write)
  check_drops_past_the_end(jax.jit(kv_cache.write))


def test_would_catch_a_write_that_clamps():
  check_drawing_of_the_docstring(_clamping_write)  # Only the end gives it away.
  with pytest.raises(AssertionError):
    check_drops_past_the_end(_clamping_write)


def test_would_catch_a_write_that_adds():
  with pytest.raises(AssertionError):
    check_drawing_of_the_docstring(_additive_write)


def test_rows_write_at_their_own_lengths():
  cache = _from_drawing('.....', 'abcd.', 'ab...')
  cache = _write(kv_cache.write, cache, ['xy', 'xy', 'xy'], [0, 3, 1])
  assert _draw(cache) == ('xy...', 'abcxy', 'axy..')


def test_heads_and_features_stay_apart():
  batch, heads, slots, head_dim, k = 2, 3, 5, 4, 2
  keys, values = kv_cache.empty(batch, heads, slots, head_dim, jnp.bfloat16)
  assert keys.shape == values.shape == (batch, heads, slots, head_dim)
  assert keys.dtype == values.dtype == jnp.bfloat16
  new = jax.random.normal(jax.random.key(0), (batch, heads, k, head_dim))
  written = kv_cache.write(keys, new, jnp.asarray([1, 3]))
  expected = np.zeros(keys.shape, np.float32)
  rounded = np.asarray(new.astype(jnp.bfloat16), np.float32)
  expected[0, :, 1:3] = rounded[0]
  expected[1, :, 3:5] = rounded[1]
  assert written.dtype == jnp.bfloat16
  np.testing.assert_array_equal(np.asarray(written, np.float32), expected)


def test_attention_mask_sees_the_past_and_itself():
  mask = kv_cache.attention_mask(jnp.asarray([0, 2]), 2, 5)
  drawn = [[''.join('.x'[int(s)] for s in token) for token in r] for r in mask]
  assert drawn == [['x....', 'xx...'], ['xxx..', 'xxxx.']]
