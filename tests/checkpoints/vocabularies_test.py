"""Gemma's vocabulary as it is published, and models with fewer or more rows.

In small: 4,032 pieces, of which `<s>` and `</s>` are tags of HTML, and behind
them the token of an image, for which the small models have no row and the large
ones have, beside 63 of padding.
"""

from __future__ import annotations

import dataclasses
import json
import shutil

import gguf
import numpy as np
import pytest
import tokenizers

from speccascade_jax import loading
from speccascade_jax import marks
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax import zoo
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import gguf_models
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import load
from speccascade_jax.checkpoints import native
from speccascade_jax.launch import initial_params
from speccascade_jax.launch import training_inputs
from tests.checkpoints import gguf_models_test
from tests.checkpoints import huggingface_test
from tests.checkpoints import t5x_test

SMALL, LARGE = 4032, 4096
IMAGE = '<image_soft_token>'
PAD, EOS, BOS, UNK, MASK, START, TURN = range(7)
SPECIAL = [
  *('<pad>', '<eos>', '<bos>', '<unk>', '<mask>'),
  *('<start_of_turn>', '<end_of_turn>'),
]
TAGS = ['<s>', '</s>', '<table>']
LETTERS = ['\u2581', *'abcdefghijklmnopqrstuvwxyz.,']
PIECES = [*SPECIAL, *TAGS, *LETTERS]
PIECES += [f'<unused{i}>' for i in range(SMALL - len(PIECES))]
PIECES.append(IMAGE)
GOLDEN = huggingface_test.GOLDENS / 'hf_gemma_3'


def write_tokenizer(folder, files=None, pieces=PIECES):
  """tokenizer.json, and what lies beside it by name."""
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      {piece: i for i, piece in enumerate(pieces[:SMALL])},
      [],
      unk_token='<unk>',
    )
  )
  tokenizer.normalizer = tokenizers.normalizers.Replace(' ', '\u2581')
  tokenizer.decoder = tokenizers.decoders.Replace('\u2581', ' ')
  tokenizer.add_special_tokens(SPECIAL)
  tokenizer.add_tokens(TAGS)
  if pieces[-1] == IMAGE:
    tokenizer.add_special_tokens([IMAGE])
  else:
    tokenizer.add_tokens(pieces[SMALL:])
  # What a fast tokenizer was saved with after it had cut a text.
  tokenizer.enable_truncation(3)
  tokenizer.save(str(folder / 'tokenizer.json'))
  for name, content in (files or {}).items():
    (folder / name).write_text(json.dumps(content))
  return folder


def write_gguf(path, change=lambda writer: None):
  """As llama.cpp's converter writes a model with `LARGE` rows."""

  def add(writer):
    types = dict.fromkeys((*SPECIAL, IMAGE), gguf.TokenType.CONTROL)
    types |= dict.fromkeys(TAGS, gguf.TokenType.USER_DEFINED)
    fill = [f'[PAD{i}]' for i in range(len(PIECES), LARGE)]
    types |= dict.fromkeys(fill, gguf.TokenType.UNUSED)
    pieces = PIECES + fill
    writer.add_tokenizer_model('llama')
    writer.add_token_list([piece.encode() for piece in pieces])
    writer.add_token_scores([0.0] * LARGE)
    writer.add_token_types(
      [types.get(piece, gguf.TokenType.NORMAL) for piece in pieces]
    )
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(UNK)
    writer.add_pad_token_id(PAD)
    writer.add_add_space_prefix(False)
    change(writer)

  return gguf_models_test.write(path, 'hf_gemma_3', add, add_vocab=False)


def write_large(folder, files=None):
  shutil.copytree(GOLDEN, folder)
  return write_tokenizer(folder, files)


def write_small(folder, files=None, rows=SMALL):
  config, params = huggingface.load(GOLDEN, dtype='float32')
  config, params = loading.cut_vocabulary(config, params, rows)
  huggingface.save(folder, config, params)
  return write_tokenizer(folder, files)


# Which tokens begin and end a text.

_CHAT = {'eos_token_id': [EOS, TURN]}


@pytest.mark.parametrize(
  ('files', 'expected'),
  [
    ({}, (EOS, BOS, (EOS, TURN))),
    (
      {'tokenizer_config.json': {'bos_token': '<bos>', 'eos_token': '<eos>'}},
      (EOS, BOS, (EOS, TURN)),
    ),
    ({'generation_config.json': _CHAT}, (EOS, BOS, (EOS, TURN))),
    ({'config.json': {'eos_token_id': EOS}}, (EOS, BOS, (EOS,))),
    ({'config.json': {'text_config': _CHAT}}, (EOS, BOS, (EOS, TURN))),
    (
      {'config.json': _CHAT, 'generation_config.json': {'eos_token_id': EOS}},
      (EOS, BOS, (EOS,)),
    ),
    (
      {'config.json': _CHAT, 'generation_config.json': {'eos_token_id': None}},
      (EOS, BOS, (EOS, TURN)),
    ),
    (
      {
        'tokenizer_config.json': {'eos_token': '<end_of_turn>'},
        'special_tokens_map.json': {'eos_token': '<eos>', 'bos_token': '<s>'},
        'generation_config.json': {'eos_token_id': EOS},
      },
      (TURN, 7, (TURN, EOS)),
    ),
    (
      {'tokenizer_config.json': {'eos_token': {'content': '</s>'}}},
      (8, BOS, (8, TURN)),
    ),
    ({'tokenizer_config.json': {'bos_token': None}}, (EOS, None, (EOS, TURN))),
  ],
)
def test_the_files_beside_it_say_what_begins_and_ends_a_text(
  files, expected, tmp_path
):
  words = vocabularies.Vocabulary(write_tokenizer(tmp_path, files))
  assert words.marks == marks.Marks(*expected)
  # A file within the folder is that vocabulary as well.
  by_file = vocabularies.Vocabulary(tmp_path / 'tokenizer.json')
  assert by_file.marks == words.marks
  assert words.encode('a </s> b')[2] == 8
  ids = [*words.encode('a letter'), *words.end_ids[-1:]]
  assert words.decode([*ids, *ids]) == 'a letter'


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('generation_config.json', {'eos_token_id': '1'}, "eos_token_id is '1'"),
    ('generation_config.json', {'eos_token_id': [1, -1]}, 'tokens 0 to 4032'),
    ('config.json', {'eos_token_id': True}, 'eos_token_id is True'),
    ('config.json', {'eos_token_id': 10**9}, 'eos_token_id is 1000000000'),
    ('tokenizer_config.json', {'eos_token': '<end>'}, "'<end>', which is no"),
    ('tokenizer_config.json', {'bos_token': 2}, 'bos_token is 2'),
    ('tokenizer_config.json', [], 'must hold an object'),
    ('special_tokens_map.json', 'x', 'must hold an object'),
  ],
)
def test_a_broken_file_beside_it_is_named(name, content, message, tmp_path):
  write_large(tmp_path / 'm', {name: content} if name != 'config.json' else {})
  if name == 'config.json':
    path = tmp_path / 'm' / name
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
  with pytest.raises(errors.CheckpointError, match=message) as error:
    load.vocabulary_of(tmp_path / 'm')
  assert str(tmp_path / 'm') in str(error.value)


def test_a_sentencepiece_model_that_says_there_is_no_bos_has_none(tmp_path):
  shutil.copy(zoo.paths('debian')[2], tmp_path / 'spiece.model')
  # As transformers writes it of every Gemma, whatever its tokenizer.
  (tmp_path / 'config.json').write_text('{"bos_token_id": 2}')
  words = vocabularies.Vocabulary(tmp_path)
  assert words.marks == marks.Marks(1, None, (1,))


def test_what_is_saved_says_the_same(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'b').mkdir()
  files = {
    'tokenizer_config.json': {'eos_token': '<end_of_turn>', 'bos_token': None},
    'generation_config.json': {'eos_token_id': [TURN, EOS, MASK]},
  }
  words = vocabularies.Vocabulary(write_tokenizer(tmp_path / 'a', files))
  words.save(tmp_path / 'b')
  again = vocabularies.Vocabulary(tmp_path / 'b')
  assert (
    again.marks == words.marks == marks.Marks(TURN, None, (TURN, EOS, MASK))
  )


def test_a_text_ends_at_every_token_that_the_checkpoint_names(tmp_path):
  texts = ['a small text', 'another']
  said = {'generation_config.json': {'eos_token_id': EOS}}
  folder = write_large(tmp_path / 'm', said)
  pair = loading.load_pair(drafter=folder, verifier=folder)
  whole = pair.generate(texts, model='verifier', max_length=8)
  assert whole.lengths.tolist() == [8, 8]
  # In the middle of a block of the one, and never in the other.
  end = int(whole.tokens[0, 2])
  assert end not in whole.tokens[0, :2] and end not in whole.tokens[1]
  (folder / 'generation_config.json').write_text(
    json.dumps({'eos_token_id': [EOS, end]})
  )
  pair = loading.load_pair(drafter=folder, verifier=folder)
  assert pair.verifier.step.end_ids == pair.drafter.step.end_ids == (EOS, end)
  for options in ({'model': 'verifier'}, {'gamma': 4}):
    out = pair.generate(texts, max_length=8, **options)
    assert out.lengths.tolist() == [3, 8]
    np.testing.assert_array_equal(out.tokens[0, :3], whole.tokens[0, :3])
    assert not out.tokens[0, 3:].any()
    np.testing.assert_array_equal(out.tokens[1], whole.tokens[1])
  assert pair.framing.input('a')[0] == BOS


def test_gguf_ends_a_text_at_a_turn_as_llama_cpp_does(tmp_path):
  words = gguf_models.read_vocabulary(write_gguf(tmp_path / 'm.gguf'))
  assert words.marks == marks.Marks(EOS, BOS, (EOS, TURN))
  more = write_gguf(tmp_path / 'x.gguf', lambda w: w.add_eot_token_id(MASK))
  assert gguf_models.read_vocabulary(more).end_ids == (EOS, MASK, TURN)


# More tokens than rows, and more rows than tokens.


def test_a_token_without_a_row_is_neither_fed_nor_drawn(tmp_path):
  pair = loading.load_pair(verifier=write_small(tmp_path / 'm'))
  words = pair.vocabulary
  assert words.size == pair.verifier.step.vocab_size == SMALL
  assert len(words.surfaces) == SMALL
  with pytest.raises(
    ValueError, match=f"'{IMAGE}', which is token 4032;.*4032"
  ):
    pair.generate([f'an {IMAGE}'], model='verifier')
  # Written again, it is the vocabulary that it was.
  words.save(tmp_path)
  assert vocabularies.Vocabulary(tmp_path).size == SMALL + 1


@pytest.mark.parametrize('kinds', ['folders', 'files', 'both'])
def test_a_small_one_drafts_for_a_large_one(kinds, tmp_path):
  small = write_small(tmp_path / 'small')
  if kinds == 'folders':
    large = write_large(tmp_path / 'large')
  else:
    large = write_gguf(tmp_path / 'large.gguf')
  if kinds == 'files':
    config, params = huggingface.load(small)
    native.save(tmp_path / 'native', config, params)
    small = tmp_path / 'native'
  pair = loading.load_pair(drafter=small, verifier=large)
  sizes = {model.step.vocab_size for model in (pair.drafter, pair.verifier)}
  assert sizes == {pair.vocabulary.size} == {SMALL}
  assert pair.bos_first and pair.verifier.step.end_ids[0] == EOS
  if kinds == 'folders':
    # One model, but for the rows that have been cut.
    out = pair.generate(['a text'], gamma=2, max_length=6)
    assert out.stats['acceptance_rate'].tolist() == [1.0]
    assert out.tokens.max() < SMALL


def test_the_verifier_says_where_a_text_ends(tmp_path):
  plain = {'generation_config.json': {'eos_token_id': EOS}}
  chat = {'generation_config.json': _CHAT}
  drafter = write_small(tmp_path / 'small', plain)
  verifier = write_large(tmp_path / 'large', chat)
  pair = loading.load_pair(drafter=drafter, verifier=verifier)
  assert pair.vocabulary.end_ids == (EOS, TURN)
  pair = loading.load_pair(drafter=verifier, verifier=drafter)
  assert pair.vocabulary.end_ids == (EOS,)


def test_padding_is_no_piece(tmp_path):
  """T5's sentinels are padding in a file of llama.cpp's."""
  folder = write_tokenizer(tmp_path)
  there = gguf_models.read_vocabulary(write_gguf(tmp_path / 'm.gguf'))
  assert there.size == SMALL + 1
  here = vocabularies.Vocabulary(folder)
  vocabularies.check_same(here, there, ('a', 'b'))
  assert here.encode('a <s>') == there.encode('a <s>')
  text = here.piece(20)
  path = folder / 'tokenizer.json'
  for other, same in (('[PAD20]', True), ('words', False)):
    content = json.loads(path.read_text())
    vocabulary = content['model']['vocab']
    vocabulary[other] = vocabulary.pop(text)
    text = other
    path.write_text(json.dumps(content))
    changed = vocabularies.Vocabulary(folder)
    if same:
      vocabularies.check_same(changed, there, ('a', 'b'))
    else:
      with pytest.raises(ValueError, match="token 20 is 'words' in the one"):
        vocabularies.check_same(changed, there, ('a', 'b'))


@pytest.mark.parametrize(
  ('pieces', 'rows', 'message'),
  [
    ([*PIECES[:SMALL], 'words'], SMALL, "token 4032, 'words', is no padding"),
    (PIECES, 20, 'token 20, .*, is no padding'),
  ],
)
def test_text_that_no_row_stands_for_is_refused(
  pieces, rows, message, tmp_path
):
  folder = write_small(tmp_path / 'm', rows=rows)
  write_tokenizer(folder, pieces=pieces)
  with pytest.raises(ValueError, match=message) as error:
    loading.load_pair(verifier=folder)
  assert f'has {len(pieces)} pieces' in str(error.value)
  assert f'{rows} is the least' in str(error.value)


def test_an_end_that_is_cut_off_is_refused(tmp_path):
  ends = {'generation_config.json': {'eos_token_id': [EOS, SMALL]}}
  folder = write_small(tmp_path / 'm', ends)
  with pytest.raises(ValueError, match=f"token 4032, '{IMAGE}', is no"):
    loading.load_pair(verifier=folder)


def test_a_drafter_of_few_rows_is_trained_for_a_teacher_of_many(tmp_path):
  teacher = str(write_gguf(tmp_path / 'large.gguf'))
  initial = str(write_large(tmp_path / 'initial'))
  model = dataclasses.replace(load.config_of(teacher), vocab_size=SMALL)
  framing = training_inputs.framing(model, None, None, teacher)
  assert framing.bos_first and framing.vocabulary.size == SMALL
  config = dataclasses.replace(load.config_of(initial), vocab_size=SMALL)
  start = initial_params.Start(config, initial, teacher)
  found = start.load_teacher()
  assert found.config.vocab_size == SMALL
  trained, _ = start.load(0, found)
  for params in (found.params, trained):
    assert params['token_embedder']['embedding'].shape[0] == SMALL
  wide = dataclasses.replace(model, vocab_size=LARGE + 1)
  with pytest.raises(ValueError, match='set vocab_size to 4096'):
    initial_params.Start(wide, None, teacher)
  with pytest.raises(ValueError, match='token 20, .*, is no padding'):
    few = dataclasses.replace(model, vocab_size=20)
    training_inputs.framing(few, None, None, teacher)


# Where a vocabulary lies.


def write_native(folder):
  config, params = huggingface.load(GOLDEN)
  native.save(folder, config, params)
  return folder


def test_a_vocabulary_may_be_that_of_another_checkpoint(tmp_path, monkeypatch):
  revision = '0' * 40
  root = tmp_path / 'models--own--tiny'
  snapshot = root / 'snapshots' / revision
  snapshot.parent.mkdir(parents=True)
  write_large(snapshot)
  (root / 'refs').mkdir()
  (root / 'refs' / 'main').write_text(revision)
  monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
  monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
  model = write_native(tmp_path / 'm')
  digests = set()
  for path in (snapshot, 'hf://own/tiny', write_gguf(tmp_path / 'm.gguf')):
    pair = loading.load_pair(verifier=model, vocabulary=path)
    assert pair.vocabulary.size == SMALL + 1
    digests.add(pair.digest)
  assert len(digests) == 2
  with pytest.raises(FileNotFoundError, match='No vocabulary in .*has none'):
    loading.load_pair(verifier=model, vocabulary=model)


def test_a_gemmas_vocabulary_may_lie_beside_its_step(tmp_path):
  """As Kaggle has it; that of another format's would be a stranger's."""
  spiece = zoo.paths('debian')[2]
  gemma = t5x_test.write_gemma(
    tmp_path / 'gemma', t5x_test.gemma_tensors('hf_gemma_1', False), 'nested'
  )
  assert load.vocabulary_of(gemma) is None
  (tmp_path / 'run').mkdir()
  for folder in (tmp_path, tmp_path / 'run'):
    shutil.copy(spiece, folder / 'tokenizer.model')
  assert load.vocabulary_of(gemma).size == 4096
  assert load.load(gemma).vocabulary.size == 4096
  tensors = t5x_test.tensors_of('hf_t5_v1_0')
  for path in (
    t5x_test.write(tmp_path / 'checkpoint_7', tensors),
    t5x_test.write_orbax(tmp_path / 'run', tensors),
    shutil.copytree(
      huggingface_test.GOLDENS / 'hf_gemma_1', tmp_path / 'folder'
    ),
  ):
    assert load.vocabulary_of(path) is None


# And on the way out.


@pytest.mark.parametrize('name', zoo.names())
def test_an_exported_model_stands_alone(name, tmp_path):
  pair = loading.load_pair(name)
  for role in ('drafter', 'verifier'):
    model = getattr(pair, role)
    huggingface.save(
      tmp_path / role, model.config, model.params, vocabulary=pair.vocabulary
    )
  again = loading.load_pair(
    drafter=tmp_path / 'drafter', verifier=tmp_path / 'verifier'
  )
  assert again.bos_first == pair.bos_first
  assert again.vocabulary.marks == pair.vocabulary.marks
  prefix = next(iter(zoo.PREFIXES[name].values()))
  texts = [
    f'{prefix}It is a text editor.',
    *('  two   spaces ', '', 'Größe «7 %» 日本 😀', 'a\tb\nc', '</s>x'),
  ]
  for text in texts[:-1]:
    ids = pair.vocabulary.encode(text)
    assert again.vocabulary.encode(text) == ids
    assert again.vocabulary.decode(ids) == pair.vocabulary.decode(ids)
  np.testing.assert_array_equal(
    again.verifier.params['token_embedder']['embedding'],
    pair.verifier.params['token_embedder']['embedding'],
  )
