"""GGUF files that the gguf library wrote, and what mutations of them end in."""

from __future__ import annotations

import collections

from flax import traverse_util
import gguf
import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import sentencepiece

from speccascade_jax import vocabulary as vocabularies
from speccascade_jax import zoo
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import gguf_file
from speccascade_jax.checkpoints import gguf_models
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import safetensors_source
from speccascade_jax.checkpoints import translate
from speccascade_jax.models.gemma import config as gemma_config
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
  without='nothing',
  **options,
):
  """A folder of the goldens as llama.cpp's converter writes it.

  Without the tensors that have `without` in their names.
  """
  kind = _ARCHITECTURES[name]

  def add(writer):
    if add_vocab:
      _write_vocabulary(writer, bos_id)
    change(writer)

  tensors = {
    name: value
    for name, value in _converted(GOLDENS / name, kind).items()
    if without not in name
  }
  config = huggingface.read_config(GOLDENS / name)
  return _write(path, kind, config, tensors, add, kinds, **options)


def _converted(folder, kind):
  """Transformers' tensors under the names that llama.cpp's library has."""
  names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], n_blocks=9)
  source = safetensors_source.open_folder(folder)
  tensors = {}
  for theirs in source.shapes:
    value = source.read(theirs).astype(np.float32)
    if kind != 't5' and theirs.endswith('norm.weight'):
      value = value + 1
    tensors[names.get_name(theirs, try_suffixes=('.weight',))] = value
  return tensors


def tensors_of(config, flat):
  """Parameters as a file has them, by the names that the reader knows."""
  tensors = {}
  for there, (part,) in gguf_models.table_of(config).items():
    value = flat[part.target]
    if value.ndim == 2 and not there.startswith('token_embd'):
      value = value.T
    elif value.ndim == 1 and isinstance(config, gemma_config.GemmaConfig):
      value = value + 1
    tensors[there] = value
  return tensors


def _write(path, kind, config, tensors, add, kinds=None, **options):
  """A model of one of llama.cpp's architectures, and what `add` adds to it."""
  writer = gguf.GGUFWriter(str(path), kind, **options)
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
  for there, value in tensors.items():
    wanted = (kinds or {}).get(there)
    if wanted is None:
      writer.add_tensor(there, np.ascontiguousarray(value))
    else:
      data = gguf.quants.quantize(np.ascontiguousarray(value), wanted)
      writer.add_tensor(there, data, raw_dtype=wanted)
  add(writer)
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


_LETTERS = ['\u2581', '\n', '<', '>', '_', *'adeflmnorstu']


def _write_letters(writer, more=(), kind=gguf.TokenType.CONTROL):
  """A small vocabulary of Gemma's kind, and a few pieces more."""
  marks = ['<start_of_turn>', '<end_of_turn>']
  special = ['<pad>', '<eos>', '<bos>', '<unk>', *marks]
  pieces = [*special, *_LETTERS, *more]
  writer.add_tokenizer_model('llama')
  writer.add_token_list([piece.encode() for piece in pieces])
  writer.add_token_scores([0.0] * len(pieces))
  # llama.cpp's converter has the marks as control tokens, too.
  kinds = [kind] * len(special)
  rest = len(pieces) - len(special)
  writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * rest)
  writer.add_pad_token_id(0)
  writer.add_eos_token_id(1)
  writer.add_bos_token_id(2)
  writer.add_unk_token_id(3)
  writer.add_add_space_prefix(False)


def test_gemmas_marks_of_a_turn_are_found_in_texts(tmp_path):
  path = write(
    tmp_path / 'x.gguf', 'hf_gemma_3', _write_letters, add_vocab=False
  )
  words = gguf_models.read_vocabulary(path)
  ids = words.encode('<start_of_turn>user\n<end_of_turn>\n<eos>')
  assert words.pieces(ids[:1]) == ['<start_of_turn>']
  assert ids.count(4) == ids.count(5) == 1
  # The ends of a text are not taken from it.
  assert 1 not in ids and words.decode([7, 1, 8]) == '\n'
  assert (words.bos_id, words.eos_id) == (2, 1)


@pytest.mark.parametrize('kind', ['NORMAL', 'USER_DEFINED', 'UNUSED'])
def test_gemmas_marks_are_none_the_less_for_what_a_file_says(kind, tmp_path):
  """As text they would be split into letters, and a text could end itself."""
  models = []
  for name in ('CONTROL', kind):

    def add(writer, name=name):
      more = ['<mask>', '<start_of_image>', '<end_of_image>']
      _write_letters(writer, more, gguf.TokenType[name])
      # Behind the letters, which are text in any case.
      types = writer.kv_data[0]['tokenizer.ggml.token_type'].value
      types[-len(more) :] = [gguf.TokenType[name]] * len(more)

    path = write(tmp_path / 'x.gguf', 'hf_gemma_3', add, add_vocab=False)
    words = gguf_models.read_vocabulary(path)
    assert words.encode('<start_of_turn><eos>')[0] == 4
    assert 1 not in words.encode('<eos>')
    models.append(words.save(tmp_path).read_bytes())
  assert models[0] == models[1]


def test_runs_of_spaces_are_found_in_texts(tmp_path):
  """Gemma's, which llama.cpp's converter writes as spaces (ids 138 to 167)."""
  runs = [' ' * n for n in (2, 3, 4)]
  path = tmp_path / 'x.gguf'

  def add(writer):
    _write_letters(writer, runs)

  words = gguf_models.read_vocabulary(
    write(path, 'hf_gemma_3', add, add_vocab=False)
  )
  space, a = 6, 6 + _LETTERS.index('a')
  first = 6 + len(_LETTERS)
  assert words.encode('a  a') == [a, first, a]
  assert words.encode('    a a') == [first + 2, a, space, a]
  assert words.decode([a, first + 1, a]) == 'a   a'
  assert words.pieces([first]) == ['\u2581\u2581']


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


def test_a_missing_tensor_is_named(tmp_path):
  path = write(tmp_path / 'x.gguf', 'hf_gemma_3', without='ffn_up')
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


@pytest.mark.parametrize('name', ['hf_t5_v1_0', 'hf_t5_v1_1'])
def test_a_bias_that_no_t5_reads_is_left_aside(name, tmp_path):
  """It is in the first uploads of T5, and llama.cpp's converter keeps it."""
  odd = gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.DEC_CROSS_ATTN_REL_B]
  odd = f'{odd.format(bid=0)}.weight'

  def add(writer):
    writer.add_tensor(odd, np.zeros((2, 32), np.float32))

  path = write(tmp_path / 'x.gguf', name, add)
  config, params, _ = gguf_models.load(path)
  assert odd in gguf_file.File(path).shapes
  huggingface_test.assert_computes_as_expected(config, params, GOLDENS / name)


def _embedding(name):
  tensors = _converted(GOLDENS / name, _ARCHITECTURES[name])
  return tensors['token_embd.weight']


@pytest.mark.parametrize('name', ['hf_gemma_1', 'hf_gemma_2', 'hf_gemma_3'])
def test_a_gemma_whose_head_is_not_its_embedding_is_refused(
  name, tmp_path, monkeypatch
):
  # Not all of them at a time, and less at last.
  monkeypatch.setattr(gguf_file, '_COMPARED', 10_007)
  head = _embedding(name)

  def add(writer):
    writer.add_tensor('output.weight', head)

  gguf_models.load(write(tmp_path / 'copy.gguf', name, add))
  head[-1, -1] += 1
  path = write(tmp_path / 'x.gguf', name, add)
  _fails(path, 'output.weight that is no copy of its token_embd.weight')


def test_a_head_of_another_type_is_refused(tmp_path):
  """Whether it is a copy cannot be told."""
  head = _embedding('hf_gemma_3').astype(np.float16)

  def add(writer):
    writer.add_tensor('output.weight', head)

  path = write(tmp_path / 'x.gguf', 'hf_gemma_3', add)
  _fails(path, 'quantised otherwise')


def test_a_t5_that_has_its_embedding_twice_is_tied(tmp_path):
  """As the first uploads of T5 are; then what comes out is scaled."""
  head = _embedding('hf_t5_v1_0')
  path = write(
    tmp_path / 'x.gguf',
    'hf_t5_v1_0',
    lambda writer: writer.add_tensor('output.weight', head),
  )
  config, params, _ = gguf_models.load(path)
  folder = GOLDENS / 'hf_t5_v1_0'
  huggingface_test.assert_computes_as_expected(config, params, folder)


def test_a_big_endian_file_is_told_with_what_converts_it(tmp_path):
  path = write(tmp_path / 'x.gguf', 'hf_gemma_3', endianess=gguf.GGUFEndian.BIG)
  _fails(path, 'is big-endian.*gguf-convert-endian .*x.gguf little')


# A model of the kind that is mutated, vocabulary included.
_TINY = gemma_config.GemmaConfig(
  vocab_size=32,
  emb_dim=32,
  num_layers=1,
  num_heads=2,
  num_kv_heads=1,
  head_dim=16,
  mlp_dim=32,
  attention_pattern=('local',) * 5 + ('global',),
  sliding_window=8,
  use_post_norms=True,
  use_qk_norm=True,
)


@pytest.fixture(scope='module')
def valid(tmp_path_factory):
  """A small file, and where its weights begin."""
  path = tmp_path_factory.mktemp('gguf') / 'x.gguf'
  flat = {
    name: np.ones(shape, np.float32)
    for name, shape in translate.shapes(_TINY).items()
  }
  _write(path, 'gemma3', _TINY, tensors_of(_TINY, flat), _write_letters)
  data = path.read_bytes()
  gguf_models.load(path)
  return data, len(data) - 4 * sum(value.size for value in flat.values())


def test_a_mutated_file_is_read_or_refused(valid, tmp_path):
  """Whatever the bytes: a CheckpointError or a model, and nothing else."""
  data, weights = valid
  path = tmp_path / 'x.gguf'
  outcomes = collections.Counter()
  places = st.one_of(
    st.integers(0, weights - 1), st.integers(weights, len(data) - 1)
  )

  @hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
  @hypothesis.given(
    changes=st.lists(
      st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4
    ),
    keep=st.one_of(st.none(), st.none(), st.integers(0, len(data))),
  )
  def mutate(changes, keep):
    mutated = bytearray(data)
    for at, byte in changes:
      mutated[at] = byte
    path.write_bytes(bytes(mutated[:keep]))
    try:
      # Hundreds of layers are traced before they are missed: slow, no more.
      if gguf_models.read_config(path).num_layers < 9:
        _, params, words = gguf_models.load(path)
        words.decode(words.encode('a model'))
        leaves = traverse_util.flatten_dict(params, sep='/')
        shapes = {name: leaf.shape for name, leaf in leaves.items()}
        assert shapes == translate.shapes(_TINY)
        outcomes['read'] += 1
    except errors.CheckpointError as error:
      assert str(path) in str(error)
      outcomes['refused'] += 1

  mutate()
  # Or it were no test of what comes behind the header, or of refusing.
  assert outcomes['read'] > 20 and outcomes['refused'] > 20, outcomes
