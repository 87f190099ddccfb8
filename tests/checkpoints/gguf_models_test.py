"""GGUF files that the gguf library wrote, and what mutations of them end in."""

from __future__ import annotations

import pathlib

import gguf
import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest
import sentencepiece

from speccascade_jax import vocabulary as vocabularies
from speccascade_jax import zoo
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import gguf_file
from speccascade_jax.checkpoints import gguf_models
from speccascade_jax.checkpoints import huggingface
from tests.checkpoints import huggingface_test

GOLDENS = huggingface_test.GOLDENS
_SPIECE = zoo.paths('debian')[2]
_ARCHITECTURES = {
  'hf_gemma_1': 'gemma',
  'hf_gemma_2': 'gemma2',
  'hf_gemma_3': 'gemma3',
  'hf_t5_v1_0': 't5',
  'hf_t5_v1_1': 't5',
}


def write(
  path,
  name,
  change=lambda writer: None,
  kinds=None,
  add_vocab=True,
  bos_id=None,
):
  """A folder of the goldens as llama.cpp's converter writes it."""
  config, params = huggingface.load(GOLDENS / name, dtype='float32')
  kind = _ARCHITECTURES[name]
  writer = gguf.GGUFWriter(str(path), kind)
  writer.add_head_count(config.num_heads)
  writer.add_key_length(config.head_dim)
  writer.add_embedding_length(config.emb_dim)
  writer.add_feed_forward_length(config.mlp_dim)
  if kind == 't5':
    writer.add_block_count(config.num_encoder_layers)
    writer.add_decoder_block_count(config.num_decoder_layers)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_relative_attn_buckets_count(
      config.relative_attention_num_buckets
    )
  else:
    writer.add_block_count(config.num_layers)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_epsilon)
  if kind in ('gemma2', 'gemma3'):
    writer.add_sliding_window(config.sliding_window)
  if kind == 'gemma2':
    writer.add_attn_logit_softcapping(config.attn_logit_softcap)
    writer.add_final_logit_softcapping(config.final_logit_softcap)
  if kind == 'gemma3':
    writer.add_rope_freq_base(config.rope_base)
  if add_vocab:
    _write_vocabulary(writer, bos_id)
  flat = {
    '/'.join(k.key for k in keys): np.asarray(value)
    for keys, value in jax.tree_util.tree_leaves_with_path(params)
  }
  for there, (part,) in gguf_models.table_of(config).items():
    value = flat[part.target]
    if value.ndim == 2 and not there.startswith('token_embd'):
      value = value.T
    elif value.ndim == 1 and kind != 't5':
      value = value + 1
    wanted = (kinds or {}).get(there)
    if wanted is None:
      writer.add_tensor(there, np.ascontiguousarray(value))
    else:
      data = gguf.quants.quantize(np.ascontiguousarray(value), wanted)
      writer.add_tensor(there, data, raw_dtype=wanted)
  change(writer)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def _write_vocabulary(writer, bos_id):
  words = sentencepiece.SentencePieceProcessor(model_file=str(_SPIECE))
  pieces, scores, types = [], [], []
  for i in range(words.get_piece_size()):
    kind = gguf.TokenType.NORMAL
    if words.is_byte(i):
      kind = gguf.TokenType.BYTE
    elif words.is_control(i) or i == bos_id:
      kind = gguf.TokenType.CONTROL
    elif words.is_unused(i):
      kind = gguf.TokenType.UNUSED
    # What is unknown is left to the metadata, as in the file of the 270M.
    pieces.append(words.id_to_piece(i).encode())
    scores.append(words.get_score(i))
    types.append(kind)
  writer.add_tokenizer_model('t5')
  writer.add_token_list(pieces)
  writer.add_token_scores(scores)
  writer.add_token_types(types)
  writer.add_eos_token_id(words.eos_id())
  if bos_id is not None:
    writer.add_bos_token_id(bos_id)
  writer.add_unk_token_id(words.unk_id())
  writer.add_pad_token_id(0)
  writer.add_add_space_prefix(True)
  writer.add_remove_extra_whitespaces(True)


@pytest.mark.parametrize('name', _ARCHITECTURES)
def test_a_file_computes_what_the_folder_does(name, tmp_path):
  path = write(tmp_path / 'model.gguf', name)
  config, params, _ = gguf_models.load(path)
  if name in ('hf_gemma_2', 'hf_gemma_3'):
    # Follows from the width in the file; the folder has a number of its own.
    assert config.query_pre_attn_scalar == config.head_dim
    config = huggingface.load(GOLDENS / name)[0]
  huggingface_test.assert_computes_as_expected(config, params, GOLDENS / name)


def test_the_vocabulary_is_rebuilt(tmp_path):
  path = write(tmp_path / 'model.gguf', 'hf_gemma_3')
  _, _, words = gguf_models.load(path)
  original = vocabularies.Vocabulary(_SPIECE)
  assert (words.size, words.eos_id, words.bos_id) == (4096, 1, None)
  for text in ('The quick brown fox, 12 Männer.', '  a   b', '日本'):
    assert words.encode(text) == original.encode(text)
    assert words.decode(original.encode(text)) == original.decode(
      original.encode(text)
    )


def test_gemmas_marks_of_a_turn_are_found_in_texts(tmp_path):
  marks = ('<start_of_turn>', '<end_of_turn>')
  letters = ['\u2581', '\n', '<', '>', '_', *'adeflmnorstu']
  pieces = ['<pad>', '<eos>', '<bos>', '<unk>', *marks, *letters]
  control = gguf.TokenType.CONTROL

  def add(writer):
    writer.add_tokenizer_model('llama')
    writer.add_token_list([piece.encode() for piece in pieces])
    writer.add_token_scores([0.0] * len(pieces))
    # llama.cpp's converter has all of them as control tokens.
    rest = [gguf.TokenType.NORMAL] * len(letters)
    writer.add_token_types([control] * 6 + rest)
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_space_prefix(False)

  path = write(tmp_path / 'x.gguf', 'hf_gemma_3', add, add_vocab=False)
  words = gguf_models.read_vocabulary(path)
  ids = words.encode('<start_of_turn>user\n<end_of_turn>\n<eos>')
  assert words.pieces(ids[:1]) == ['<start_of_turn>']
  assert ids.count(4) == ids.count(5) == 1
  # The ends of a text are not taken from it.
  assert 1 not in ids and words.decode([7, 1, 8]) == '\n'
  assert (words.bos_id, words.eos_id) == (2, 1)


_KINDS = [
  gguf.GGMLQuantizationType.F16,
  gguf.GGMLQuantizationType.BF16,
  gguf.GGMLQuantizationType.Q8_0,
  gguf.GGMLQuantizationType.Q4_0,
  gguf.GGMLQuantizationType.Q4_1,
  gguf.GGMLQuantizationType.Q5_0,
  gguf.GGMLQuantizationType.Q5_1,
]


@pytest.mark.parametrize('kind', _KINDS, ids=lambda k: k.name)
def test_quantised_rows_are_read_in_any_parts(kind, tmp_path):
  rng = np.random.default_rng(0)
  matrix = rng.normal(size=(5, 64)).astype(np.float32)
  blocks = gguf.quants.quantize(matrix, kind)
  writer = gguf.GGUFWriter(str(tmp_path / 'x.gguf'), 'gemma3')
  writer.add_tensor('a', rng.normal(size=(3,)).astype(np.float32))
  writer.add_tensor('m', blocks, raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  file = gguf_file.File(tmp_path / 'x.gguf')
  assert file.shapes == {'a': (3,), 'm': (5, 64)}
  expected = gguf.quants.dequantize(blocks, kind)
  np.testing.assert_array_equal(file.read('m'), expected)
  np.testing.assert_array_equal(file.read('m', 1, 4), expected[1:4])
  assert np.abs(expected - matrix).max() < 0.4


@pytest.mark.parametrize('kind', ['Q4_K', 'Q5_K', 'Q6_K'])
def test_k_quants_are_read_block_by_block(kind, tmp_path):
  """Nothing here can write them; any bytes are some blocks."""
  kind = gguf.GGMLQuantizationType[kind]
  size = gguf.GGML_QUANT_SIZES[kind][1]
  rng = np.random.default_rng(0)
  blocks = rng.integers(0, 64, (3, 2 * size), np.uint8)
  writer = gguf.GGUFWriter(str(tmp_path / 'x.gguf'), 'gemma3')
  writer.add_tensor('m', blocks, raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  file = gguf_file.File(tmp_path / 'x.gguf')
  assert file.shapes == {'m': (3, 512)}
  expected = gguf.quants.dequantize(blocks, kind)
  np.testing.assert_array_equal(file.read('m', 1, 3), expected[1:3])


# What is not read, or broken.


def _fails(path, message):
  with pytest.raises(errors.CheckpointError, match=message) as error:
    gguf_models.load(path)
  assert str(path) in str(error.value)


def test_another_architecture_is_named(tmp_path):
  path = tmp_path / 'x.gguf'
  writer = gguf.GGUFWriter(str(path), 'llama')
  writer.add_tensor('a', np.zeros(3, np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  _fails(path, "holds a 'llama'; gemma, gemma2, gemma3, t5 are read")


def test_a_quantisation_that_is_not_read_is_named(tmp_path):
  kind = gguf.GGMLQuantizationType.TQ2_0
  path = tmp_path / 'x.gguf'
  writer = gguf.GGUFWriter(str(path), 'gemma3')
  writer.add_tensor('m', np.zeros((2, 66), np.uint8), raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  with pytest.raises(ValueError, match='TQ2_0 is not read; F32, F16'):
    gguf_file.File(path).read('m')


def test_a_missing_key_is_named(tmp_path):
  path = tmp_path / 'x.gguf'
  writer = gguf.GGUFWriter(str(path), 'gemma3')
  writer.add_tensor('token_embd.weight', np.zeros((2, 2), np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  _fails(path, 'does not say gemma3.block_count')


def test_a_missing_tensor_is_named(tmp_path, monkeypatch):
  whole = gguf_models.table_of
  with monkeypatch.context() as patch:
    patch.setattr(
      gguf_models,
      'table_of',
      lambda c: {k: v for k, v in whole(c).items() if 'ffn_up' not in k},
    )
    path = write(tmp_path / 'x.gguf', 'hf_gemma_3')
  _fails(path, 'missing blk.0.ffn_up.weight, blk.1.ffn_up.weight')


def test_a_file_without_a_vocabulary_says_so(tmp_path):
  path = write(tmp_path / 'x.gguf', 'hf_gemma_3', add_vocab=False)
  _fails(path, 'does not say tokenizer.ggml.model')


@pytest.mark.parametrize('size', [0, 3, 20, 100, 5000, -40])
def test_a_file_that_is_cut_short_says_so(size, tmp_path):
  path = write(tmp_path / 'x.gguf', 'hf_gemma_3')
  path.write_bytes(path.read_bytes()[:size])
  _fails(path, 'no GGUF file, or cut short|cannot be read')


def test_absurd_counts_and_lengths_end_at_once(tmp_path):
  path = tmp_path / 'x.gguf'
  head = b'GGUF' + (3).to_bytes(4, 'little')
  huge = (2**62).to_bytes(8, 'little')
  for tail in (
    huge + huge,
    (0).to_bytes(8, 'little') + huge,
    huge + (0).to_bytes(8, 'little'),
    # One key of 2^62 bytes.
    (0).to_bytes(8, 'little') + (1).to_bytes(8, 'little') + huge,
  ):
    path.write_bytes(head + tail + bytes(64))
    _fails(path, 'no GGUF file, or cut short')


@pytest.fixture(scope='module')
def valid(tmp_path_factory):
  """A small file and its header's length, give or take."""
  path = write(
    tmp_path_factory.mktemp('gguf') / 'x.gguf', 'hf_gemma_3', add_vocab=False
  )
  return path.read_bytes()


@hypothesis.settings(
  max_examples=150,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
  changes=st.lists(
    st.tuples(st.integers(0, 2500), st.integers(0, 255)),
    min_size=1,
    max_size=4,
  ),
  keep=st.one_of(st.none(), st.integers(0, 3000)),
)
def test_a_mutated_file_is_read_or_refused(valid, tmp_path, changes, keep):
  """Whatever the bytes: a CheckpointError or a model, and nothing else."""
  data = bytearray(valid)
  for at, byte in changes:
    data[at] = byte
  path = pathlib.Path(tmp_path) / 'x.gguf'
  path.write_bytes(bytes(data[:keep]))
  try:
    file = gguf_file.File(path)
    config = gguf_models.config_of(file)
    if config.vocab_size * config.emb_dim < 1e6 and config.num_layers < 9:
      gguf_models.load(path)
  except errors.CheckpointError as error:
    assert str(path) in str(error)
