"""Text to token ids and back, for the public API.

SentencePiece alone, so that generating text needs neither seqio nor
TensorFlow; the seqio tasks read the same model file.
"""

from __future__ import annotations

from collections.abc import Iterable
import pathlib

import sentencepiece


class Vocabulary:
  """A SentencePiece model file with T5's conventions (0 pads, EOS ends)."""

  def __init__(self, path: str | pathlib.Path):
    path = pathlib.Path(path)
    if not path.is_file():
      raise FileNotFoundError(
        f'No vocabulary at {path}: expected a SentencePiece model file.'
      )
    try:
      self._processor = sentencepiece.SentencePieceProcessor(
        model_file=str(path)
      )
    except (RuntimeError, OSError) as error:
      raise ValueError(
        f'{path} is not a SentencePiece model file: {error}'
      ) from error
    if self._processor.eos_id() < 0:
      raise ValueError(f'The vocabulary {path} has no end-of-sequence token.')

  @property
  def size(self) -> int:
    """Number of pieces; a model's V may be padded beyond it."""
    return self._processor.get_piece_size()

  @property
  def eos_id(self) -> int:
    return self._processor.eos_id()

  def encode(self, text: str) -> list[int]:
    """Token ids of `text`, without an EOS."""
    return self._processor.encode(text)

  def decode(self, ids: Iterable[int]) -> str:
    """Text up to the first EOS; ids past the vocabulary read as unknown."""
    return self._processor.decode(self._known(ids))

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """One piece a token, the EOS included, for display."""
    return [self._processor.id_to_piece(i) for i in self._known(ids, True)]

  def _known(self, ids: Iterable[int], keep_eos: bool = False) -> list[int]:
    known = []
    for i in ids:
      i = int(i)
      if i == self.eos_id and not keep_eos:
        break
      known.append(i if i < self.size else self._processor.unk_id())
    return known
