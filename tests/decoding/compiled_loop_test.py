"""What XLA makes of the loops: caches are updated where they lie.

A copy of a cache in a loop's body would cost every step as much as reading the
whole cache, and nothing in the results would tell.
"""

import functools
import re

from flax.core import meta
import jax
import jax.numpy as jnp
import pytest

from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax import verification
from speccascade_jax.decoding import autoregressive
from speccascade_jax.decoding import speculative
from speccascade_jax.models import families
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config

# Numbers that occur in no other shape, so that a cache is known by its own.
_HEADS, _HEAD_DIM, _LENGTH, _GAMMA = 3, 8, 37, 4
_INPUT, _WINDOW = 11, 19
_CONFIGS = {
  't5': t5_config.T5Config(
    vocab_size=64,
    emb_dim=16,
    num_heads=_HEADS,
    head_dim=_HEAD_DIM,
    mlp_dim=32,
    num_encoder_layers=1,
    num_decoder_layers=2,
  ),
  'gemma': gemma_config.GemmaConfig(
    vocab_size=64,
    emb_dim=16,
    num_layers=2,
    num_heads=_HEADS,
    num_kv_heads=_HEADS,
    head_dim=_HEAD_DIM,
    mlp_dim=32,
    attention_pattern=(gemma_config.LOCAL, gemma_config.GLOBAL),
    sliding_window=_WINDOW,
  ),
}
_COPY = re.compile(r'= f32\[([\d,]+)\]\S* (copy|copy-start)\(')


def _copies_in_loops(text, sizes):
  """Copies of arrays of these sizes outside of the entry computation."""
  found, entry = [], False
  for line in text.splitlines():
    if line.rstrip().endswith('{') and not line.startswith(' '):
      entry = line.startswith('ENTRY')
    match = _COPY.search(line)
    if match and not entry:
      count = 1
      for n in match[1].split(','):
        count *= int(n)
      if count in sizes:
        found.append(line.strip())
  return found


def _lowered(family, loop, batch):
  config = _CONFIGS[family]
  model = families.step_model(config)
  params = meta.unbox(families.abstract_params(config))
  inputs = jax.ShapeDtypeStruct((batch, _INPUT), jnp.int32)
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
  number = jax.ShapeDtypeStruct((), jnp.float32)
  common = dict(
    max_length=_LENGTH, scaling=distributions.Scaling(), trace=False
  )
  if loop == 'autoregressive':
    return autoregressive._decode.lower(  # pylint: disable=protected-access
      model, params, inputs, keys, number, None, role=2, **common
    )
  return speculative._decode.lower(  # pylint: disable=protected-access
    *(model, model, params, params, inputs, keys, number, number),
    *(None, None, None),
    rule=deferral.opt,
    gamma=_GAMMA,
    verify=verification.verify_tokens,
    **common,
  )


def _slots(family, loop):
  """How many tokens each kind of cache in the program has room for."""
  gamma = _GAMMA if loop == 'speculative' else 0
  if family == 't5':
    return {_LENGTH + gamma}
  # Prompt and text; the local layer's window and a block.
  return {_INPUT - 1 + _LENGTH + gamma, _WINDOW + gamma}


def _sizes(slots, batch):
  return {batch * _HEADS * n * _HEAD_DIM for n in slots}


@pytest.mark.parametrize(
  'loop, batch',
  [('autoregressive', 1), ('speculative', 1), ('speculative', 3)],
)
@pytest.mark.parametrize('family', _CONFIGS)
def test_no_loop_copies_a_cache(family, loop, batch):
  text = _lowered(family, loop, batch).compile().as_text()
  slots = _slots(family, loop)
  # There are caches of these sizes in the program, or nothing is tested.
  for n in slots:
    assert f'f32[{batch},{_HEADS},{n},{_HEAD_DIM}]' in text
  assert _copies_in_loops(text, _sizes(slots, batch)) == []


def test_a_copy_would_be_found():
  """A loop that changes the array and also needs it as it was."""

  @functools.partial(jax.jit, donate_argnums=0)
  def loop(cache):
    def body(i, carry):
      cache, total = carry
      new = cache.at[0, 0, i].set(1.0)
      return new, total + cache[0, 0, ::-1] * new[0, 0]

    shape = (_LENGTH, _HEAD_DIM)
    return jax.lax.fori_loop(0, 5, body, (cache, jnp.zeros(shape)))

  cache = jnp.zeros((1, _HEADS, _LENGTH, _HEAD_DIM))
  text = loop.lower(cache).compile().as_text()
  assert _copies_in_loops(text, _sizes({_LENGTH}, 1))
