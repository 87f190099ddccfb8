"""A small vocabulary of the kind that Gemma is published with."""

from __future__ import annotations

from collections.abc import Iterable
import pathlib

import sentencepiece

MARKS = ('<start_of_turn>', '<end_of_turn>')
SIZE = 400


def train(folder: pathlib.Path, texts: Iterable[str]) -> pathlib.Path:
  """Writes a SentencePiece model: BPE, BOS 2, a token for each mark of a turn.

  Spaces and lines stay as they are, and what has no piece is spelt in bytes.
  """
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_prefix=str(folder / 'tokenizer'),
    model_type='bpe',
    vocab_size=SIZE,
    byte_fallback=True,
    add_dummy_prefix=False,
    remove_extra_whitespaces=False,
    normalization_rule_name='identity',
    pad_id=0,
    eos_id=1,
    bos_id=2,
    unk_id=3,
    pad_piece='<pad>',
    eos_piece='<eos>',
    bos_piece='<bos>',
    user_defined_symbols=[*MARKS, '\n', '\n\n'],
    minloglevel=2,
  )
  return folder / 'tokenizer.model'
