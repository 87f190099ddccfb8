"""The memory that is told equals that of the arrays that are made."""

import dataclasses

import jax
import numpy as np
import pytest

from speccascade_jax import deferral
from speccascade_jax import footprint
from speccascade_jax import loading
from speccascade_jax import loops
from speccascade_jax import pair as pairs
from speccascade_jax.checkpoints import native
from speccascade_jax.launch import initial_params
from speccascade_jax.models import families
from speccascade_jax.models import protocol
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config
from speccascade_jax.training import footprint as training_footprint
from speccascade_jax.training import forward
from speccascade_jax.training import optimizer
from speccascade_jax.training import train_state
from speccascade_jax.training import train_step
from tests.evaluation import tiny_pair

# A vocabulary that is padded, and another that is not.
_T5 = t5_config.T5Config(4096, 16, 2, 8, 32, 1, 1)
_T5_LARGE = t5_config.T5Config(4224, 24, 3, 8, 32, 2, 2)
# A window that is shorter than the text: local layers keep a ring.
_GEMMA = gemma_config.GemmaConfig(
  vocab_size=50,
  emb_dim=16,
  num_layers=2,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  mlp_dim=32,
  attention_pattern=('local', 'global'),
  sliding_window=6,
)
_GEMMA_LARGE = dataclasses.replace(_GEMMA, num_layers=4, num_kv_heads=2)
_EXTENT = footprint.Extent(batch=2, input_length=9, max_length=12)


def _nbytes(tree):
  return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _by_name(parts):
  return {part.name: part.num_bytes for part in parts}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_parameters_are_those_of_the_loaded_pair(tmp_path, dtype):
  paths = {}
  for role, config in (('drafter', _T5), ('verifier', _T5_LARGE)):
    params = families.init(config, jax.random.key(0))
    native.save(tmp_path / role, config, params)
    paths[role] = str(tmp_path / role)
  vocabulary = tiny_pair.save(tmp_path / 'tiny')['vocabulary']
  pair = loading.load_pair(**paths, vocabulary=vocabulary, dtype=dtype)
  models = footprint.abstract_pair(
    {'drafter': _T5, 'verifier': _T5_LARGE}, dtype
  )
  told = _by_name(footprint.of_parameters(models))
  # The verifier's is cut to the drafter's.
  assert pair.verifier.params['token_embedder']['embedding'].shape[0] == 4096
  assert told == {
    'drafter, parameters': _nbytes(pair.drafter.params),
    'verifier, parameters': _nbytes(pair.verifier.params),
  }
  assert models['verifier'].config == pair.verifier.config


class _Recorder:
  """A step model that notes the caches and logits that a loop asks it for."""

  def __init__(self, config):
    self._step = families.step_model(config)
    self.caches, self.logits = [], []
    self.step = protocol.StepModel(
      self._start, self._extend, self._step.vocab_size
    )

  def _start(self, *arguments):
    begun = self._step.start(*arguments)
    self.caches.append(footprint.size_of(begun.cache))
    return begun

  def _extend(self, *arguments):
    logits, cache = self._step.extend(*arguments)
    self.logits.append(logits.shape)
    return logits, cache


_RUNS = [
  ('verifier', 'speculative', None),
  ('pair', 'speculative', 3),
  ('pair', 'bild', 3),
  ('pair', 'token_cascade', None),
  ('pair', 'oracle_cascade', None),
  ('pair', 'sequence_cascade', None),
]


@pytest.mark.parametrize(('model', 'method', 'gamma'), _RUNS)
@pytest.mark.parametrize('family', ['t5', 'gemma'])
def test_the_loops_ask_for_what_is_told(family, model, method, gamma):
  configs = {
    't5': {'drafter': _T5, 'verifier': dataclasses.replace(_T5, emb_dim=24)},
    'gemma': {'drafter': _GEMMA, 'verifier': _GEMMA_LARGE},
  }[family]
  models = footprint.abstract_pair(configs, 'float32')
  recorders = {role: _Recorder(m.config) for role, m in models.items()}
  steps = [recorder.step for recorder in recorders.values()]
  inputs = jax.ShapeDtypeStruct((2, 9), np.int32)
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
  if model == 'pair':
    loop = loops.LOOPS[method]
    settings = {'rule': deferral.chow} if loop.takes_rule else {}
    settings |= {'gamma': gamma} if loop.drafts_blocks else {}
    settings |= {'fallback': 0.6} if method == 'bild' else {}

    def decode(drafter, verifier, inputs, keys):
      return pairs._DECODE[method](
        *steps, drafter, verifier, inputs, keys, 0.5, max_length=12, **settings
      )
  else:

    def decode(_, verifier, inputs, keys):
      return pairs.autoregressive.decode(
        steps[1], verifier, inputs, keys, max_length=12
      )

  params = [m.params for m in models.values()]
  jax.eval_shape(decode, *params, inputs, keys)
  room = footprint.rooms(model, method, gamma, 12)
  told = _by_name(footprint.of_decoding(models, room, _EXTENT))
  assert {name.split(',')[0] for name in told} == (
    {'drafter', 'verifier'} if model == 'pair' else {model}
  )
  for role in room:
    assert set(recorders[role].caches) == {told[f'{role}, cache']}
    batch, widest, vocabulary = max(recorders[role].logits)
    scored = room[role].scored
    # The drafter scores a block token by token; all of it is kept.
    assert widest == (1 if role == 'drafter' else scored)
    assert told[f'{role}, logits'] == 4 * batch * scored * vocabulary


def test_a_ring_is_told_as_the_arrays_that_it_has():
  config = dataclasses.replace(_GEMMA, dtype='bfloat16')
  models = footprint.abstract_pair({'verifier': config}, 'bfloat16')
  room = {'verifier': footprint.Room(12, 4, 4)}
  cache, _ = footprint.of_decoding(models, room, _EXTENT)
  params = jax.tree.map(
    lambda leaf: np.zeros(leaf.shape, leaf.dtype), models['verifier'].params
  )
  step = models['verifier'].step
  inputs = np.ones((2, 9), np.int32)
  made = jax.jit(step.start, static_argnums=(2, 3))(params, inputs, 12, 4)
  assert cache.num_bytes == _nbytes(made.cache)
  # 9 slots of window and block for one layer, 20 for the other.
  assert '2 x bfloat16[2x1x9x8], 2 x bfloat16[2x1x20x8]' in cache.detail


@pytest.mark.parametrize('averaged', [False, True])
def test_training_keeps_what_is_told(averaged):
  optimizers = optimizer.adamw() if averaged else optimizer.adafactor()
  start = initial_params.Start(_T5, frozen=('token_embedder',))
  trained, own, borrowed = start.shapes()
  params, kept = start.load(0, None)
  made = train_state.create(params, optimizers, 0, averaged)
  told = training_footprint.state(trained, optimizers, averaged=averaged)
  assert footprint.size_of(told) == _nbytes(made)
  assert footprint.size_of(own) == _nbytes(kept) == 4 * 4096 * 16
  assert not jax.tree.leaves(borrowed)
  for count in (1, 2):
    gradients = training_footprint.gradients(trained, count)
    assert footprint.size_of(gradients) == count * _nbytes(params)


def test_activations_grow_with_the_batch_and_leave_out_the_weights():
  loss = train_step.teacher_forcing(forward.teacher_forced(_T5))
  params = jax.eval_shape(lambda: families.init(_T5, jax.random.key(0)))
  found = [
    training_footprint.activations(
      loss,
      params,
      None,
      training_footprint.abstract_batch(rows, {'inputs': 8, 'targets': 8}),
    )
    for rows in (2, 4)
  ]
  shapes = {leaf.shape for leaf in found[0]}
  assert (2, 8, 4096) in shapes  # The logits.
  assert (4096, 16) not in shapes  # The embedding.
  sizes = [footprint.size_of(leaves) for leaves in found]
  assert 1.8 < sizes[1] / sizes[0] <= 2.0
