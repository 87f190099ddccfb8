"""The SentencePiece vocabularies of the tasks, for seqio.

That of the shipped tasks is part of the package:

4,096 unigram pieces: pad 0, end of sequence 1, unknown 2, no start of
sequence, one piece a task prefix, 256 pieces of one byte each, so that any
text comes back as it went in. `experiments/corpora/train_vocabulary.py` makes
it.
"""

from __future__ import annotations

import importlib.resources
import pathlib

import seqio


def debian_path() -> pathlib.Path:
  """The model file, as `speccascade_jax.vocabulary.Vocabulary` reads it too."""
  data = pathlib.Path(str(importlib.resources.files(__package__)))
  return data / 'vocabulary' / 'debian.model'


def debian() -> seqio.SentencePieceVocabulary:
  """The vocabulary of `debian_en_de` and `debian_synopsis`.

  Raises:
    FileNotFoundError: if the model file is missing.
  """
  path = debian_path()
  if not path.is_file():
    raise FileNotFoundError(
      f'{path} is missing. The vocabulary is part of the package: install it '
      'again, or train it with experiments/corpora/train_vocabulary.py.'
    )
  return seqio.SentencePieceVocabulary(str(path))


def t5() -> seqio.SentencePieceVocabulary:
  """T5's 32,000 pieces and 100 sentinels, from its bucket when first used."""
  return seqio.SentencePieceVocabulary(
    'gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model'
  )


def gemma_2() -> seqio.SentencePieceVocabulary:
  """Gemma 2's 256,000 pieces, from its bucket when first used."""
  return seqio.SentencePieceVocabulary(
    'gs://gemma-data/tokenizers/tokenizer_gemma2.model'
  )
