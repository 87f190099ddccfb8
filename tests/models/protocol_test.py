"""One list of every `StepModel`, one set of contract tests for all of them."""

from __future__ import annotations

import dataclasses
import functools

from flax.core import meta
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import base
from speccascade_jax.models import families
from speccascade_jax.models import kv_cache
from speccascade_jax.models import protocol
from speccascade_jax.models import tabular
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.gemma import step_model as gemma_step_model
from speccascade_jax.models.t5 import config as t5_config

V = 5
MAX_LENGTH = 8

# Ragged rows, the last one full.
INPUTS = np.array([[3, 2, 0, 0, 0], [2, 0, 0, 0, 0], [4, 3, 2, 4, 3]], np.int32)
# What comes behind the pending token; 0 and 1 are tokens like any other.
TEXT = np.array(
  [
    [2, 3, 0, 4, 2, 1, 3],
    [4, 4, 2, 3, 1, 0, 2],
    [1, 2, 4, 2, 3, 3, 0],
  ],
  np.int32,
)


@dataclasses.dataclass(frozen=True)
class Case:
  """A model, its parameters, and its law by a path without a cache."""

  model: protocol.StepModel
  params: base.Params
  decoder_only: bool = False
  config: families.Config | None = None  # None for tabular models.

  @functools.cached_property
  def uncached(self) -> np.ndarray:
    """Log-probabilities `[B, 1 + T, V]` behind the pending token and TEXT."""
    if self.config is not None:
      network = families.family_of(self.config).network(self.config)
      logits = jax.jit(network.apply)(
        {'params': self.params}, INPUTS, np.pad(TEXT, ((0, 0), (1, 0)))
      )
      return np.asarray(jax.nn.log_softmax(logits))
    return np.log([self._laws(row) for row in range(len(INPUTS))])

  def _laws(self, row: int) -> list[np.ndarray]:
    prefix, condition = [0], int(INPUTS[row].sum()) % 3
    if self.decoder_only:
      prefix, condition = INPUTS[row][INPUTS[row] != 0].tolist(), 0
    text = TEXT[row].tolist()
    return [
      tabular.next_probs(self.params, prefix + text[:end], condition)
      for end in range(len(text) + 1)
    ]


def _t5_case() -> Case:
  config = t5_config.T5Config(
    vocab_size=V,
    emb_dim=12,
    num_heads=2,
    head_dim=5,
    mlp_dim=16,
    num_encoder_layers=1,
    num_decoder_layers=2,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=6,
  )
  return Case(
    families.step_model(config), _normal_params(config), config=config
  )


def _gemma_case(prefill_chunk: int = 1024, **settings) -> Case:
  config = gemma_config.GemmaConfig(
    vocab_size=V,
    emb_dim=12,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_dim=16,
    **settings,
  )
  return Case(
    gemma_step_model.step_model(config, prefill_chunk=prefill_chunk),
    _normal_params(config),
    decoder_only=True,
    config=config,
  )


def _normal_params(config: families.Config):
  """Normal throughout, so that norms and position biases matter."""
  leaves, tree = jax.tree.flatten(meta.unbox(families.abstract_params(config)))
  # Around one in T5, around zero in Gemma.
  centre = float(isinstance(config, t5_config.T5Config))
  rng = np.random.default_rng(0)
  leaves = [
    rng.normal(0, leaf.shape[0] ** -0.5, leaf.shape)
    if leaf.ndim == 2
    else rng.normal(centre, 0.3, leaf.shape)
    for leaf in leaves
  ]
  leaves = [jnp.asarray(leaf, jnp.float32) for leaf in leaves]
  return jax.tree.unflatten(tree, leaves)


# Every StepModel of the package stands here.
CASES = {
  'tabular': lambda: Case(
    tabular.step_model(V),
    tabular.init_params(jax.random.key(3), V, order=3, conditions=3),
  ),
  'tabular_decoder_only': lambda: Case(
    tabular.step_model(V, decoder_only=True),
    tabular.init_params(jax.random.key(4), V, order=3),
    decoder_only=True,
  ),
  't5': lambda: _t5_case(),
  'gemma_1': lambda: _gemma_case(),
  'gemma_2': lambda: _gemma_case(
    attention_pattern=('local', 'global'),
    sliding_window=3,
    query_pre_attn_scalar=5.0,
    attn_logit_softcap=2.0,
    final_logit_softcap=4.0,
    use_post_norms=True,
  ),
  # Prompts of up to 5 tokens are read in parts of 2: a ring of a window of 2
  # is written over while it is read.
  'gemma_3': lambda: _gemma_case(
    prefill_chunk=2,
    attention_pattern=('local', 'local', 'global'),
    sliding_window=2,
    use_post_norms=True,
    use_qk_norm=True,
    rope_base=1e6,
    rope_scale_factor=8.0,
  ),
}
# The widest block that a test writes.
WIDEST = 5


@functools.cache
def _build(name: str) -> Case:
  return CASES[name]()


@functools.cache
def _extend(model: protocol.StepModel):
  return jax.jit(model.extend)


@pytest.fixture(params=list(CASES))
def case(request) -> Case:
  return _build(request.param)


def _start(case: Case, inputs: np.ndarray = INPUTS) -> protocol.Start:
  start = jax.jit(case.model.start, static_argnums=(2, 3))
  return start(case.params, jnp.asarray(inputs), MAX_LENGTH, WIDEST)


def _text(start: protocol.Start, rows=slice(None)) -> jax.Array:
  """The pending token and TEXT behind it, `[B, MAX_LENGTH]`."""
  return jnp.concatenate([start.token[:, None], TEXT[rows]], axis=1)


def _scored(case, extend, chunks, inputs=INPUTS, rows=slice(None)):
  """Log-probabilities `[B, sum(chunks), V]`, fed chunk by chunk."""
  start = _start(case, inputs)
  text, cache = _text(start, rows), start.cache
  logits, end = [], 0
  for size in chunks:
    begin, end = end, end + size
    chunk, cache = extend(
      case.params, cache, text[:, begin:end], start.lengths + begin
    )
    logits.append(chunk)
  return jax.nn.log_softmax(jnp.concatenate(logits, axis=1))


def _assert_close(actual, expected):
  np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def _take(text, first, k):
  """`[B, k]` tokens (or `[B, k, ...]`) of each row from position `first`."""
  rows = np.arange(len(text))[:, None]
  return text[rows, np.asarray(first)[:, None] + np.arange(k)]


# Contracts.


def test_start_has_the_pending_token_outside_the_cache(case):
  start = _start(case)
  assert start.token.dtype == start.lengths.dtype == jnp.int32
  tokens, lengths = [0, 0, 0], [0, 0, 0]
  if case.decoder_only:
    tokens, lengths = [2, 2, 3], [1, 0, 4]
  assert start.token.tolist() == tokens
  assert start.lengths.tolist() == lengths


def test_extend_keeps_the_shape_of_the_cache(case):
  """So that a `while_loop` can carry it; logits are float32 `[B, K, V]`."""
  start = _start(case)
  logits, cache = jax.eval_shape(
    case.model.extend, case.params, start.cache, TEXT[:, :3], start.lengths
  )
  assert (logits.shape, logits.dtype) == ((3, 3, V), jnp.float32)
  assert case.model.vocab_size == V
  spec = lambda tree: jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)
  assert spec(cache) == spec(start.cache)


def test_cached_equals_uncached(case):
  uncached = case.uncached
  # The law must depend on row and position for this to mean anything.
  assert np.abs(uncached - uncached[:1]).max() > 0.1
  assert np.abs(uncached - uncached[:, :1]).max() > 0.1
  one_by_one = _scored(case, _extend(case.model), [1] * MAX_LENGTH)
  _assert_close(one_by_one, uncached)


@pytest.mark.parametrize(
  'chunks',
  [
    (4,),
    (3, 1),
    (1, 3),
    (2, 2),
    (2, 1, 1),
    (1, 2, 1),
    (1, 1, 2),
    (1, 1, 1, 1),
  ],
  ids=str,
)
def test_every_chunking_equals_unchunked(case, chunks):
  # The block begins behind a cached token and is followed by others.
  chunks = (1, *chunks, 3)
  _assert_close(_scored(case, _extend(case.model), chunks), case.uncached)


def test_rows_alone_equal_rows_of_a_ragged_batch(case):
  chunks = (4, 4)
  extend = _extend(case.model)
  batch = _scored(case, extend, chunks)
  for row, inputs in enumerate(INPUTS):
    here = slice(row, row + 1)
    stripped = inputs[inputs != 0][None]
    alone = _scored(case, extend, chunks, stripped, here)
    _assert_close(alone, batch[here])


def test_more_padding_changes_nothing(case):
  chunks = (4, 4)
  padded = np.pad(INPUTS, ((0, 0), (0, 4)))
  _assert_close(
    _scored(case, _extend(case.model), chunks, padded),
    _scored(case, _extend(case.model), chunks),
  )


def check_rollback(case: Case, extend) -> None:
  """Rows keep 0, 1 and 3 of four tokens, then go on with other ones."""
  start = _start(case)
  text, fresh = _text(start), case.uncached
  lengths = start.lengths
  _, cache = extend(case.params, start.cache, text[:, :1], lengths)

  keep = np.array([0, 1, 3])
  block = text[:, 1:5]
  wrong = np.arange(4) >= keep[:, None]
  block = jnp.where(wrong, (block + 1) % V, block)
  logits, cache = extend(case.params, cache, block, lengths + 1)
  drift = np.abs(jax.nn.log_softmax(logits) - fresh[:, 1:5]).max(axis=-1)
  assert (drift[wrong] > 1e-2).all() and (drift[~wrong] < 1e-5).all()

  first = 1 + keep
  logits, cache = extend(
    case.params, cache, _take(text, first, 4), lengths + first
  )
  _assert_close(jax.nn.log_softmax(logits), _take(fresh, first, 4))


def test_rolled_back_rows_equal_fresh_ones(case):
  check_rollback(case, _extend(case.model))


def test_would_catch_a_cache_that_is_not_rolled_back(case):
  extend, longest = _extend(case.model), [0]

  def never_back(params, cache, tokens, lengths):
    lengths = jnp.maximum(lengths, longest[0])
    longest[0] = lengths + tokens.shape[1]
    return extend(params, cache, tokens, lengths)

  with pytest.raises(AssertionError, match='Not equal to tolerance'):
    check_rollback(case, never_back)


def test_would_catch_lengths_shared_by_the_rows(case):
  extend = _extend(case.model)

  def in_step(params, cache, tokens, lengths):
    return extend(params, cache, tokens, jnp.full_like(lengths, lengths.min()))

  with pytest.raises(AssertionError):
    check_rollback(case, in_step)


@pytest.mark.parametrize('name', ['tabular', 't5'])
def test_would_catch_a_write_that_adds(name, monkeypatch):
  case = _build(name)

  def add(cache, new, lengths):
    slots = lengths[:, None] + jnp.arange(new.shape[2])
    one_hot = jax.nn.one_hot(slots, cache.shape[2], dtype=cache.dtype)
    return cache + jnp.einsum('bkl,bhkd->bhld', one_hot, new)

  monkeypatch.setattr(kv_cache, 'write', add)
  # A new function: jax.jit remembers the intact trace of the old one.
  broken = jax.jit(lambda *args: case.model.extend(*args))
  # Adding to empty slots is right, and goes unnoticed without a rollback.
  _assert_close(_scored(case, broken, (4, 4)), case.uncached)
  with pytest.raises(AssertionError, match='Not equal to tolerance'):
    check_rollback(case, broken)


def check_end(case: Case, extend) -> None:
  """A block that runs past the last slot leaves the slots before it alone."""
  start = _start(case)
  text, fresh = _text(start), case.uncached
  lengths, last = start.lengths, MAX_LENGTH - 1
  half = last // 2
  _, cache = extend(case.params, start.cache, text[:, :half], lengths)
  _, cache = extend(case.params, cache, text[:, half:last], lengths + half)
  over = jnp.concatenate([text[:, last:], text[:, :2]], axis=1)
  logits, cache = extend(case.params, cache, over, lengths + last)
  _assert_close(jax.nn.log_softmax(logits[:, 0]), fresh[:, last])
  # Two slots back, so that the slots before them are read once more.
  logits, _ = extend(case.params, cache, text[:, -2:], lengths + last - 1)
  _assert_close(jax.nn.log_softmax(logits), fresh[:, -2:])


def test_writes_past_the_last_slot_are_dropped(case):
  check_end(case, _extend(case.model))


def test_would_catch_a_write_that_clamps(case, monkeypatch):
  def clamp(cache, new, lengths):
    def row(cache, new, length):
      return jax.lax.dynamic_update_slice(cache, new, (0, length, 0))

    return jax.vmap(row)(cache, new.astype(cache.dtype), lengths)

  monkeypatch.setattr(kv_cache, 'write', clamp)
  broken = jax.jit(lambda *args: case.model.extend(*args))
  check_rollback(case, broken)  # Only the end gives it away.
  with pytest.raises(AssertionError, match='Not equal to tolerance'):
    check_end(case, broken)


def test_lengths_and_tokens_are_traced(case):
  extend = jax.jit(lambda *args: case.model.extend(*args))
  _scored(case, extend, [1] * MAX_LENGTH)
  _scored(case, extend, [1] * 3)
  assert extend._cache_size() == 1


def test_equal_arguments_give_one_static_model(case):
  """So that a loop with the model for a static argument compiles once."""
  if isinstance(case.config, gemma_config.GemmaConfig):
    again = gemma_step_model.step_model(
      dataclasses.replace(case.config),
      end_ids=(1,),
      prefill_chunk=2 if case.config.use_qk_norm else 1024,
    )
  elif case.config is not None:
    again = families.step_model(dataclasses.replace(case.config), end_ids=(1,))
  else:
    again = tabular.step_model(V, case.decoder_only, end_ids=(1,))
  assert hash(again) == hash(case.model) and again == case.model
