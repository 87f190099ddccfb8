"""How much memory loading takes, on models of 80 and 250 million numbers."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

from flax import traverse_util
import gguf
import ml_dtypes
import numpy as np
import pytest

from speccascade_jax import zoo
from speccascade_jax.checkpoints import gguf_models
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import native
from speccascade_jax.checkpoints import translate
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config
from tests.checkpoints import gguf_models_test
from tests.checkpoints import t5x_test

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    not pathlib.Path('/proc/self/status').is_file(),
    reason='a process is told its memory under Linux only',
  ),
]

# T5 v1.1 base, and a Gemma of a third of its size.
_T5 = t5_config.T5Config(
  vocab_size=32_128,
  emb_dim=768,
  num_heads=12,
  head_dim=64,
  mlp_dim=2048,
  num_encoder_layers=12,
  num_decoder_layers=12,
  mlp_activations=('gelu', 'linear'),
  logits_via_embedding=False,
)
_GEMMA = gemma_config.GemmaConfig(
  vocab_size=65_536,
  emb_dim=512,
  num_layers=12,
  num_heads=8,
  num_kv_heads=4,
  head_dim=64,
  mlp_dim=2048,
)

_Q8_0, _F16 = (gguf.GGMLQuantizationType[n] for n in ('Q8_0', 'F16'))

# Of what decoding zarr's chunks took, glibc keeps buffers of less than 32 MB
# in every thread's arena, up to 200 MB whatever the model's size: nearly half
# of the one here, and noise. So it is told to give them back.
_ENVIRONMENT = {'MALLOC_MMAP_THRESHOLD_': str(2**20)}

# Loads in a process of its own, so that nothing else is in the figure, and
# prints the peak over the size of what was loaded. What counts is anonymous
# memory: pages of a mapped file can be dropped at any time.
_MEASURE = """
import sys, threading, time
import jax
from speccascade_jax import loading
from speccascade_jax.checkpoints import load

def of_pair(drafter, verifier, vocabulary):
  pair = loading.load_pair(
    drafter=drafter, verifier=verifier, vocabulary=vocabulary
  )
  return [pair.drafter.params, pair.verifier.params]

def anonymous():
  with open('/proc/self/status') as lines:
    return next(int(l.split()[1]) for l in lines if l.startswith('RssAnon'))

jax.block_until_ready(jax.numpy.ones(3) + 1)
before = peak = anonymous()
done = False

def watch():
  global peak
  while not done:
    peak = max(peak, anonymous())
    time.sleep(1e-3)

thread = threading.Thread(target=watch, daemon=True)
thread.start()
what, *arguments = sys.argv[1:]
load_ = of_pair if what == 'pair' else lambda *a: load.load(*a).params
params = jax.block_until_ready(load_(*arguments))
done = True
thread.join()
size = sum(x.nbytes for x in jax.tree.leaves(params))
assert size > 100e6, size
print((peak - before) * 1024 / size)
"""


def flat_params(config, dtype):
  """Mostly zeros, which take no time to compress, but not as small as bombs."""
  rng = np.random.default_rng(0)
  flat = {}
  for name, shape in translate.shapes(config).items():
    flat[name] = np.zeros(shape, dtype)
    flat[name][::8] = rng.random(flat[name][::8].shape, np.float32)
  return flat


def write_huggingface(folder, config, save=huggingface.save):
  flat = flat_params(config, ml_dtypes.bfloat16)
  save(folder, config, traverse_util.unflatten_dict(flat, sep='/'))
  return folder


def write_scanned(folder):
  flat = flat_params(_T5, np.float32)
  return t5x_test.write(folder, t5x_test.scanned(flat))


def write_gemma(folder, style):
  flat = flat_params(_GEMMA, ml_dtypes.bfloat16)
  tensors = t5x_test.published_gemma(_GEMMA, flat, turned=False)
  if style == 'stacked':
    tensors, style = t5x_test.stacked(tensors, turns=6), 'flat'
  return t5x_test.write_gemma(folder, tensors, style)


def write_gguf(folder, kind, config, quantisation):
  """Matrices quantised, norms as they are: as llama.cpp quantises."""
  folder.mkdir()
  kinds = {
    name: quantisation
    for name, (part,) in gguf_models.table_of(config).items()
    if len(translate.shapes(config)[part.target]) > 1 and 'rel_b' not in name
  }
  return gguf_models_test._write(
    folder / 'x.gguf',
    kind,
    config,
    gguf_models_test.tensors_of(config, flat_params(config, np.float32)),
    gguf_models_test._write_letters,
    kinds,
  )


_WRITERS = {
  'huggingface, Gemma': lambda f: write_huggingface(f, _GEMMA),
  'huggingface, T5': lambda f: write_huggingface(f, _T5),
  'native, T5': lambda f: write_huggingface(f, _T5, native.save),
  't5x': lambda f: t5x_test.write(f, flat_params(_T5, np.float32)),
  't5x, scanned': write_scanned,
  'orbax, T5': lambda f: t5x_test.write_orbax(f, flat_params(_T5, np.float32)),
  'orbax, Gemma': lambda f: write_gemma(f, 'flat'),
  'orbax, Gemma, stacked': lambda f: write_gemma(f, 'stacked'),
  'gguf, Gemma, Q8_0': lambda f: write_gguf(f, 'gemma', _GEMMA, _Q8_0),
  'gguf, T5, F16': lambda f: write_gguf(f, 't5', _T5, _F16),
}


@pytest.fixture(scope='module', params=_WRITERS)
def written(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp('model')
  yield request.param, _WRITERS[request.param](folder / 'x')
  shutil.rmtree(folder)  # Some gigabytes, all together.


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_loading_takes_little_more_than_the_model(written, dtype):
  writer, path = written
  ratio = _measured('model', path, dtype)
  print(f'{writer}, {dtype}: {ratio:.2f}')
  assert 0.9 < ratio < 1.2


def test_a_pair_whose_heads_are_cut_takes_little_more_than_its_models(tmp_path):
  """Neither what is cut off nor what lay otherwise is kept beside the rest."""
  small = dataclasses.replace(
    _T5, vocab_size=32_100, num_encoder_layers=1, num_decoder_layers=1
  )
  drafter = write_huggingface(tmp_path / 'drafter', small, native.save)
  flat = flat_params(_T5, np.float32)
  native.save(
    tmp_path / 'verifier', _T5, traverse_util.unflatten_dict(flat, '/')
  )
  vocabulary = zoo.paths('debian')[2]
  ratio = _measured('pair', drafter, tmp_path / 'verifier', vocabulary)
  print(f'pair: {ratio:.2f}')
  assert 0.9 < ratio < 1.3


def _measured(*arguments):
  found = subprocess.run(
    [sys.executable, '-c', _MEASURE, *map(str, arguments)],
    env=os.environ | _ENVIRONMENT,
    check=True,
    capture_output=True,
    text=True,
    timeout=300,
  )
  return float(found.stdout.splitlines()[-1])
