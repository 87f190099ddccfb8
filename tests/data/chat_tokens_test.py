"""The marks of a conversation are one token each, whatever the vocabulary."""

import pytest
import tokenizers

from speccascade_jax import vocabulary as core
from speccascade_jax.data import corpora
from speccascade_jax.data import few_shot
from speccascade_jax.decoding import stopping
from tests.data import chat_vocabulary

MARKS = chat_vocabulary.MARKS
CHAT = few_shot.Chat('{question}')
QUESTION = {'question': 'What is a_turn of <5>?'}
PROMPT = CHAT.prompt([few_shot.Example(QUESTION, 'It is > 4.', 4)], QUESTION)


def texts():
  return [pair.source for pair in corpora.read('debian_en_de', 'test')[:300]]


@pytest.fixture(scope='module')
def words(tmp_path_factory):
  """The same kinds of vocabulary that Gemma is published with, by name."""
  folder = tmp_path_factory.mktemp('vocabularies')
  chat_vocabulary.train(folder, texts())
  # Of the same family, with other tokens: what Hugging Face makes of it.
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.BPE(unk_token='<unk>', byte_fallback=True)
  )
  tokenizer.normalizer = tokenizers.normalizers.Replace(' ', '\u2581')
  tokenizer.decoder = tokenizers.decoders.Sequence(
    [
      tokenizers.decoders.Replace('\u2581', ' '),
      tokenizers.decoders.ByteFallback(),
      tokenizers.decoders.Fuse(),
    ]
  )
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=400,
    special_tokens=['<pad>', '<eos>', '<bos>', '<unk>', *MARKS],
    initial_alphabet=list(PROMPT),
    show_progress=False,
  )
  tokenizer.train_from_iterator(texts(), trainer)
  tokenizer.save(str(folder / 'tokenizer.json'))
  return {
    name: core.Vocabulary(folder / name)
    for name in ('tokenizer.model', 'tokenizer.json')
  }


@pytest.mark.parametrize('kind', ['tokenizer.model', 'tokenizer.json'])
def test_a_mark_is_one_token(words, kind):
  vocabulary = words[kind]
  framing = core.Framing(vocabulary, bos_first=True)
  ids = framing.input(PROMPT)
  marks = [p for p in vocabulary.pieces(ids) if p in MARKS]
  start, end = MARKS
  assert marks == [start, end, start, end, start, end, start]
  assert ids[0] == vocabulary.bos_id
  assert vocabulary.piece(ids[1]) == start
  assert ids.count(vocabulary.bos_id) == 1
  assert vocabulary.eos_id not in ids
  # What resembles a mark is text, and nothing is lost of it.
  (last,) = vocabulary.encode(end)
  between = [i for i in ids[2 : ids.index(ids[1], 2)] if i != last]
  text = vocabulary.decode(between)
  assert text == 'user\nWhat is a_turn of <5>?\n'
  # It ends what a model writes, without being asked for.
  assert vocabulary.end_ids == (vocabulary.eos_id, last)
  assert vocabulary.decode([*between, last, *between]) == text


@pytest.mark.parametrize('kind', ['tokenizer.model', 'tokenizer.json'])
def test_the_end_of_a_turn_ends_an_answer(words, kind):
  vocabulary = words[kind]
  (stop,) = CHAT.stops
  table = stopping.build([stop.encode()], vocabulary.surfaces, vocabulary.size)
  (end,) = vocabulary.encode(stop)
  after = table.after[0]
  found = int(after[end])
  assert found == len(table.after) - 1
  # Nothing but the mark does, at once.
  assert [int(i) for i in (after == found).nonzero()[0]] == [end]
