"""How much memory loading takes, on models of 80 and 250 million numbers."""

from __future__ import annotations

import pathlib
import subprocess
import sys

from flax import traverse_util
import ml_dtypes
import numpy as np
import pytest

from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import translate
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config
from tests.checkpoints import t5x_test

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    not pathlib.Path('/proc/self/status').is_file(),
    reason='a process is told its memory under Linux only',
  ),
]

# T5 v1.1 base, and a Gemma of a third of its size. (The allocator keeps up
# to 100 MB of what decoding zarr's chunks took, which would count in a
# smaller model.)
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

# Loads in a process of its own, so that nothing else is in the figure, and
# prints the peak over the size of what was loaded. What counts is anonymous
# memory: pages of a mapped file can be dropped at any time.
_MEASURE = """
import sys, threading, time
import jax
from speccascade_jax.checkpoints import load

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
params = jax.block_until_ready(load.load(sys.argv[1], sys.argv[2]).params)
done = True
thread.join()
size = sum(x.nbytes for x in jax.tree.leaves(params))
assert size > 100e6, size
print((peak - before) * 1024 / size)
"""


def flat_params(config, dtype):
  return {
    name: np.zeros(shape, dtype)
    for name, shape in translate.shapes(config).items()
  }


def write_huggingface(folder, config):
  flat = flat_params(config, ml_dtypes.bfloat16)
  huggingface.save(
    folder / 'x', config, traverse_util.unflatten_dict(flat, sep='/')
  )
  return folder / 'x'


_WRITERS = {
  'huggingface, Gemma': lambda folder: write_huggingface(folder, _GEMMA),
  'huggingface, T5': lambda folder: write_huggingface(folder, _T5),
  't5x': lambda folder: t5x_test.write(
    folder / 'x', flat_params(_T5, np.float32)
  ),
  'orbax': lambda folder: t5x_test.write_orbax(
    folder / 'x', flat_params(_T5, np.float32)
  ),
}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('writer', _WRITERS)
def test_loading_takes_little_more_than_the_model(writer, dtype, tmp_path):
  path = _WRITERS[writer](tmp_path)
  found = subprocess.run(
    [sys.executable, '-c', _MEASURE, str(path), dtype],
    check=True,
    capture_output=True,
    text=True,
    timeout=300,
  )
  ratio = float(found.stdout.splitlines()[-1])
  print(f'{writer}, {dtype}: {ratio:.2f}')
  assert 0.9 < ratio < 1.3
