"""Valid small checkpoints with bytes or numbers changed, cut, or a file gone.

Whatever the bytes: a model or a CheckpointError, and nothing else. GGUF, whose
header is read by code of this package, has the same test beside its own.
"""

from __future__ import annotations

import json
import re
import shutil
import tracemalloc

from flax import traverse_util
import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from speccascade_jax import zoo
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import load
from speccascade_jax.checkpoints import native
from speccascade_jax.checkpoints import translate
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config
from tests.checkpoints import t5x_test

_T5 = t5_config.T5Config(
  vocab_size=8,
  emb_dim=4,
  num_heads=2,
  head_dim=2,
  mlp_dim=4,
  num_encoder_layers=1,
  num_decoder_layers=1,
)
_GEMMA = gemma_config.GemmaConfig(
  vocab_size=8,
  emb_dim=4,
  num_layers=2,
  num_heads=2,
  num_kv_heads=1,
  head_dim=2,
  mlp_dim=4,
)


_BYTES = st.lists(
  st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4
)
# In place of anything in a JSON file.
_VALUES = st.sampled_from(
  [0, -1, 3, 1.5, 10**9, 10**30, 1e300, True, None, 'x' * 300, [], [4], {}]
)
_VOCABULARY = zoo.paths('debian')[2]


def flat_params(config):
  """By name; what the values are is not looked at."""
  rng = np.random.default_rng(0)
  return {
    name: rng.normal(size=shape).astype(np.float32)
    for name, shape in translate.shapes(config).items()
  }


def write_huggingface(config, save=huggingface.save):
  def write(folder):
    params = traverse_util.unflatten_dict(flat_params(config), sep='/')
    save(folder / 'x', config, params)
    return folder / 'x'

  return write


def write_native(config):
  return write_huggingface(config, native.save)


# What is written, and how many bytes of each file are worth a change: those
# that describe it. The rest are weights, of which any will do.
_WRITERS = {
  'huggingface, T5': (write_huggingface(_T5), 4000),
  'huggingface, Gemma': (write_huggingface(_GEMMA), 2500),
  'native': (write_native(_T5), 4000),
  't5x': (lambda f: t5x_test.write(f / 'x', flat_params(_T5)), 4000),
  'orbax': (lambda f: t5x_test.write_orbax(f / 'x', flat_params(_T5)), 4000),
}


@pytest.fixture(scope='module', params=_WRITERS)
def checkpoint(request, tmp_path_factory):
  """A valid folder, how far into its files to go, and its parameters."""
  write, reach = _WRITERS[request.param]
  folder = write(tmp_path_factory.mktemp('valid').absolute())
  shutil.copy(_VOCABULARY, folder)
  return folder, reach, _flat(load.load(folder).params)


def _flat(params):
  flat = traverse_util.flatten_dict(params, sep='/')
  return {name: np.asarray(value) for name, value in flat.items()}


def _mutate_bytes(file, reach, data):
  content = bytearray(file.read_bytes())
  for at, byte in data.draw(_BYTES):
    if content:
      content[at % min(len(content), reach)] = byte
  keep = data.draw(st.one_of(st.none(), st.integers(0, reach)))
  file.write_bytes(bytes(content[:keep]))


def _mutate_json(file, data):
  """Puts other values in one to three places."""
  content = json.loads(file.read_text())
  for _ in range(data.draw(st.integers(1, 3))):
    places = _places(content)
    if not places:  # What they were in has been replaced.
      break
    *parents, last = data.draw(st.sampled_from(places))
    node = content
    for key in parents:
      node = node[key]
    node[last] = data.draw(_VALUES)
  file.write_text(json.dumps(content))


def _places(node, above=()):
  if not isinstance(node, (dict, list)) or not node:
    return []
  keys = node if isinstance(node, dict) else range(len(node))
  return [
    place
    for key in keys
    for place in ((*above, key), *_places(node[key], (*above, key)))
  ]


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(data=st.data())
def test_a_mutated_folder_is_read_or_refused(
  checkpoint, tmp_path_factory, data
):
  valid, reach, params = checkpoint
  folder = tmp_path_factory.mktemp('mutated') / valid.name
  shutil.copytree(valid, folder)
  files = sorted(path for path in folder.rglob('*') if path.is_file())
  described = [file for file in files if file.read_bytes()[:1] == b'{']
  kind = data.draw(st.sampled_from(['bytes', 'gone', 'json', 'json']))
  file = data.draw(st.sampled_from(described if kind == 'json' else files))
  if kind == 'bytes':
    _mutate_bytes(file, reach, data)
  elif kind == 'json':
    _mutate_json(file, data)
  else:
    file.unlink()
  try:
    loaded = load.load(folder).params
  except errors.CheckpointError as error:
    assert str(folder) in str(error)
  else:
    if kind == 'gone':  # Then it was none that counts.
      jax.tree.map(np.testing.assert_array_equal, _flat(loaded), params)
  finally:
    shutil.rmtree(folder)


# What chance would hardly come upon: the tensors that tell the model's sizes.
@pytest.mark.parametrize('shape', [(), (4,), (0, 4), (4, 1, 4, 4, 4)])
@pytest.mark.parametrize(
  'name',
  [
    'token_embedder/embedding',
    'encoder/relpos_bias/rel_embedding',
    'encoder/encoder/relpos_bias/rel_embedding',
    'encoder/encoder/attention/query/kernel',
    'encoder/layers_0/attention/query/kernel',
    'encoder/layers_0/mlp/wi/kernel',
    'encoder/layers_9999999/mlp/wi/kernel',
  ],
)
def test_a_tensor_of_another_rank_is_refused(name, shape, tmp_path):
  params = flat_params(_T5) | {name: np.zeros(shape, np.float32)}
  if name.startswith('encoder/encoder/relpos_bias'):
    params.pop('encoder/relpos_bias/rel_embedding')
  folder = t5x_test.write(tmp_path / 'x', params)
  with pytest.raises(errors.CheckpointError, match=re.escape(str(folder))):
    load.load(folder)


# Headers that claim what no file holds.
@pytest.mark.parametrize(
  'shape, offsets',
  [
    ([2**40, 2**20], [0, 2**62]),  # Sizes past the file's end.
    ([2**63, 2**63], [0, 128]),  # A product that overflows 64 bits.
    ([8, 4], [2**40, 2**40 + 128]),
    ([8, 4], [128, 0]),
  ],
)
def test_a_malicious_header_is_refused_within_little_memory(
  shape, offsets, tmp_path
):
  folder = write_huggingface(_GEMMA)(tmp_path)
  path = folder / 'model.safetensors'
  data = path.read_bytes()
  size = int.from_bytes(data[:8], 'little')
  header = json.loads(data[8 : 8 + size])
  name = 'model.embed_tokens.weight'
  header[name] |= {'shape': shape, 'data_offsets': offsets}
  text = json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, 'little') + text + data[8 + size :])
  tracemalloc.start()
  try:
    with pytest.raises(errors.CheckpointError, match=re.escape(str(folder))):
      load.load(folder)
    assert tracemalloc.get_traced_memory()[1] < 50e6
  finally:
    tracemalloc.stop()
