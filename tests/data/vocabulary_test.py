"""The shipped vocabulary, read by sentencepiece and by seqio."""

import hashlib
import importlib.util
import pathlib

import pytest
import tokenizers

from speccascade_jax import vocabulary as core
from speccascade_jax.data import corpora
from speccascade_jax.data import debian
from speccascade_jax.data import vocabulary

SCRIPT = (
  pathlib.Path(__file__).parents[2]
  / 'experiments'
  / 'corpora'
  / 'train_vocabulary.py'
)
GERMAN = 'Größenänderung »übermäßig« großer Öl-Bilder – „ß“ & 1.024 €…'
# Emoji, Chinese, an accent of its own, a space that does not break, controls.
FOREIGN = 'a 😀 b 你好 e\u0301 10\u00a0km Ω \x07 \u2028'


@pytest.fixture(scope='module')
def seqio_vocabulary():
  return vocabulary.debian()


@pytest.fixture(scope='module')
def plain():
  return core.Vocabulary(vocabulary.debian_path())


@pytest.fixture(scope='module')
def script():
  spec = importlib.util.spec_from_file_location('train_vocabulary', SCRIPT)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_special_ids(seqio_vocabulary):
  assert seqio_vocabulary.vocab_size == 4096
  assert seqio_vocabulary.pad_id == 0
  assert seqio_vocabulary.eos_id == 1
  assert seqio_vocabulary.unk_id == 2
  assert seqio_vocabulary.tokenizer.bos_id() == -1
  assert all(seqio_vocabulary.tokenizer.is_byte(i) for i in range(5, 261))


@pytest.mark.parametrize('text', [GERMAN, FOREIGN, 'x' * 500, '1234567890'])
def test_text_comes_back(seqio_vocabulary, plain, text):
  ids = plain.encode(text)
  assert 2 not in ids
  assert plain.decode(ids) == text
  assert seqio_vocabulary.encode(text) == ids
  assert seqio_vocabulary.decode(ids) == text
  assert seqio_vocabulary.encode_tf(text).numpy().tolist() == ids


@pytest.mark.parametrize('kind', ['tokenizer.model', 'tokenizer.json'])
def test_a_vocabulary_is_saved_for_a_checkpoint(plain, tmp_path, kind):
  words = plain
  if kind == 'tokenizer.json':
    pieces = [(plain.piece(i), 0.0) for i in range(plain.size)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, 2))
    tokenizer.save(str(tmp_path / 'other.json'))
    words = core.Vocabulary(tmp_path / 'other.json')
  path = words.save(tmp_path)
  assert path == core.find(tmp_path) and path.name == kind
  again = core.Vocabulary(tmp_path)
  core.check_same(words, again, ('before', 'after'))
  assert (again.size, again.eos_id) == (words.size, words.eos_id)
  assert again.encode(GERMAN) == words.encode(GERMAN)


def test_rare_characters_are_bytes(plain):
  pieces = plain.pieces(plain.encode('😀'))
  assert pieces[-4:] == ['<0xF0>', '<0x9F>', '<0x98>', '<0x80>']


@pytest.mark.parametrize('corpus', corpora.CORPORA)
def test_corpus_comes_back(plain, corpus):
  for split in ('validation', 'test'):
    for text in {t for pair in corpora.read(corpus, split) for t in pair}:
      ids = plain.encode(text)
      assert 2 not in ids and plain.decode(ids) == text


@pytest.mark.parametrize('task', debian.PREFIXES)
def test_a_prefix_is_one_token(plain, task):
  prefix = debian.PREFIXES[task]
  for text in ('Qt wrapper', '1 Größe', '😀'):
    ids = plain.encode(prefix + text)
    assert ids[1:] == plain.encode(text)
    assert plain.decode(ids) == prefix + text


def test_digits_are_split(plain):
  assert plain.pieces(plain.encode('2024'))[-4:] == ['2', '0', '2', '4']


def test_missing_model_file(monkeypatch, tmp_path):
  missing = tmp_path / 'debian.model'
  monkeypatch.setattr(vocabulary, 'debian_path', lambda: missing)
  with pytest.raises(FileNotFoundError, match='debian.model is missing'):
    vocabulary.debian()


def test_script_and_tasks_agree_on_prefixes(script):
  assert set(script.PREFIXES) == set(debian.PREFIXES.values())
  assert set(script.REPEATS) == set(corpora.CORPORA)


@pytest.mark.slow
def test_script_makes_the_shipped_file(script):
  made = script.train(corpora.directory())
  shipped = vocabulary.debian_path().read_bytes()
  assert hashlib.sha256(made).digest() == hashlib.sha256(shipped).digest()
