"""Times of single calls: what is called, how often, and which turn counts."""

import jax
import jax.numpy as jnp
import pytest

from speccascade_jax.decoding import call_times
from speccascade_jax.models import protocol
from tests.evaluation import scripted


def _model(noted):
  """A model that notes its calls as they run."""

  def start(params, inputs, max_length, widest=1):
    jax.debug.callback(lambda x: noted.append(('start', x.shape)), inputs)
    return protocol.Start(
      cache={'keys': inputs[:, :1] * params},
      token=jnp.zeros([1], jnp.int32),
      lengths=jnp.full([1], 2, jnp.int32),
    )

  def extend(params, cache, tokens, lengths):
    jax.debug.callback(
      lambda t, n: noted.append((t.shape[1], int(n[0]))), tokens, lengths
    )
    logits = jnp.ones([*tokens.shape, 9]) * params
    return logits, {'keys': cache['keys'] + tokens[:, :1]}

  return protocol.StepModel(start, extend, vocab_size=9)


def test_every_program_makes_its_calls():
  noted = []
  programs = call_times.programs(
    _model(noted), jnp.float32(1), (1, 3), calls=5, input_length=6, max_length=7
  )
  jax.effects_barrier()
  assert set(programs) == {'start', '1', '3'}
  noted.clear()
  jax.block_until_ready(programs['start']())
  jax.effects_barrier()
  assert noted == [('start', (1, 6))] * 5
  noted.clear()
  jax.block_until_ready(programs['3']())
  jax.effects_barrier()
  # Behind the prompt's two tokens, and never beyond the end of the text.
  assert sorted(noted) == [(3, 2 + n) for n in (0, 2, 3, 5, 6)]


def test_the_quickest_turn_counts_and_compilation_does_not(monkeypatch):
  clock = scripted.Clock(monkeypatch)
  turns = iter([90.0, 0.004, 0.002, 7.0])  # The first one compiles.

  def program():
    clock.sleep(next(turns))
    return jnp.zeros([])

  found = call_times.quickest_ms({'1': program}, calls=2, repeats=3)
  assert found == {'1': pytest.approx(1.0)}
