"""Trains the SentencePiece vocabulary of the two Debian tasks.

From the repository root:

  python experiments/corpora/train_vocabulary.py \
      --corpora speccascade_jax/data/corpora \
      --output speccascade_jax/data/vocabulary/debian.model

4,096 unigram pieces: pad 0, end of sequence 1, unknown 2, no start of
sequence; one piece for each task prefix; 256 pieces for bytes, so that no text
is out of vocabulary; the rest is learned from the train splits of both tasks,
sources and targets. The result is a function of the corpora alone: lines are
read in order, one thread trains, nothing is sampled. A test holds the shipped
file against the choices made here.
"""

import argparse
import hashlib
import io
import lzma
from pathlib import Path

import sentencepiece

VOCAB_SIZE = 4096

# Each prefix is one piece, because the encoder's work at batch size 1 grows
# with every token, and on models this small a prefix of seven tokens would be
# a quarter of the median input. SentencePiece's own mark of a space stands
# for every space, the one it adds before a text included. The space after the
# colon belongs to the word that follows.
PREFIXES = ('translate English to German: ', 'summarize: ')

# How often the sources and the targets of a task are counted. Descriptions
# hold six times the characters of all German text, which would otherwise get
# few of its words. Targets count double: each of their tokens is a step of the
# decoder, which is what costs time. (3, 3) and (1, 1) make German 3.5 % longer.
REPEATS = {'debian_en_de': (3, 6), 'debian_synopsis': (1, 2)}


def as_piece(prefix: str) -> str:
  """'summarize: ' -> '▁summarize:'."""
  return '▁' + prefix.rstrip().replace(' ', '▁')


def columns(corpora: Path, task: str) -> tuple[list[str], list[str]]:
  """Sources and targets of a task's train split, in the order of the file."""
  sources, targets = [], []
  with lzma.open(
    corpora / f'{task}.train.tsv.xz', 'rt', encoding='utf-8', newline='\n'
  ) as lines:
    for line in lines:
      source, target = line.rstrip('\n').split('\t')
      sources.append(source)
      targets.append(target)
  return sources, targets


def train(corpora: Path) -> bytes:
  """The serialised model."""
  text: list[str] = []
  for task, repeats in REPEATS.items():
    for column, times in zip(columns(corpora, task), repeats):
      text += column * times
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(text),
    model_writer=model,
    model_type='unigram',
    vocab_size=VOCAB_SIZE,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    user_defined_symbols=[as_piece(prefix) for prefix in PREFIXES],
    byte_fallback=True,
    # Rarer characters than one in 20,000 (Greek, Cyrillic, CJK) are bytes.
    character_coverage=0.99995,
    # Text comes back as it went in: NFKC would turn '…', '™' and '²' into
    # other characters, in the references too.
    normalization_rule_name='identity',
    # Numbers are copied, and digits are all that there is to copy.
    split_digits=True,
    # Threads add floats in the order in which they finish.
    num_threads=1,
    input_sentence_size=0,
    shuffle_input_sentence=False,
    max_sentence_length=8192,
    minloglevel=1,
  )
  return model.getvalue()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
  parser.add_argument('--corpora', type=Path, required=True)
  parser.add_argument('--output', type=Path, required=True)
  args = parser.parse_args()
  model = train(args.corpora)
  args.output.parent.mkdir(parents=True, exist_ok=True)
  args.output.write_bytes(model)
  print(f'{hashlib.sha256(model).hexdigest()}  {args.output}')


if __name__ == '__main__':
  main()
