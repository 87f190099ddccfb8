"""Text to token ids and back, for the public API.

SentencePiece model files and Hugging Face's tokenizer.json, so that generating
text needs neither seqio nor TensorFlow; the seqio tasks read the same files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
import functools
import os
import pathlib
import re
from typing import Protocol

import sentencepiece
import tokenizers

# What a checkpoint's folder may call its vocabulary, the best first: a
# tokenizer.json also knows the tokens that were added later.
FILES = ('tokenizer.json', 'spiece.model', 'tokenizer.model')

# How T5's and Gemma's vocabularies write a token for a single byte.
_BYTE = re.compile('<0x[0-9A-F]{2}>')
# The names that T5's and Gemma's tokenizers give to their ends.
_EOS = ('</s>', '<eos>')
_BOS = ('<s>', '<bos>')


class Codec(Protocol):
  """What a vocabulary is made of; see `Vocabulary`."""

  size: int
  eos_id: int
  bos_id: int | None
  unk_id: int

  def encode(self, text: str) -> list[int]: ...

  def decode(self, ids: Sequence[int]) -> str: ...

  def piece(self, token: int) -> str: ...

  def is_special(self, token: int) -> bool: ...

  def save(self, folder: pathlib.Path) -> pathlib.Path: ...


class Vocabulary:
  """Pieces of text by number, with an end of sequence."""

  def __init__(self, source: str | os.PathLike[str] | Codec):
    """Reads a vocabulary, or takes what another module has read.

    Args:
      source: a SentencePiece model file, a tokenizer.json, or a folder with
        one of `FILES`.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is neither, or has no end of sequence.
    """
    if isinstance(source, (str, os.PathLike)):
      source = _codec(pathlib.Path(source))
    self._codec = source

  @property
  def size(self) -> int:
    """Number of pieces; a model's V may be padded beyond it."""
    return self._codec.size

  @property
  def eos_id(self) -> int:
    return self._codec.eos_id

  @property
  def bos_id(self) -> int | None:
    """What texts begin with, for models that were trained so (Gemma)."""
    return self._codec.bos_id

  def encode(self, text: str) -> list[int]:
    """Token ids of `text`, without an EOS."""
    return self._codec.encode(text)

  def decode(self, ids: Iterable[int]) -> str:
    """Text up to the first EOS; ids past the vocabulary read as unknown."""
    return self._codec.decode(self._known(ids))

  def piece(self, token: int) -> str:
    """The piece of one token of the vocabulary."""
    return self._codec.piece(token)

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """One piece a token, the EOS included, for display."""
    return [self.piece(i) for i in self._known(ids, True)]

  def save(self, folder: str | os.PathLike[str]) -> pathlib.Path:
    """Writes it as one of `FILES`, for a checkpoint that stands alone.

    Returns:
      The file, which `Vocabulary` reads; other vocabularies in the folder are
      left alone.
    """
    return self._codec.save(pathlib.Path(folder))

  @functools.cached_property
  def surfaces(self) -> list[bytes]:
    """What each token adds to a text, in UTF-8, where it is not the first.

    A special token, which `decode` leaves out, adds its name, so that it can
    be looked for; a token that stands for one byte adds that byte, and the
    unknown one a letter that no text has.
    """
    return [self._surface(token) for token in range(self.size)]

  def _surface(self, token: int) -> bytes:
    piece = self._codec.piece(token)
    if token == self._codec.unk_id:
      return b'\xff'  # In no UTF-8.
    if self._codec.is_special(token):
      return piece.encode()
    if _BYTE.fullmatch(piece):
      return bytes([int(piece[3:5], 16)])
    return piece.replace('\u2581', ' ').encode()

  def _known(self, ids: Iterable[int], keep_eos: bool = False) -> list[int]:
    known = []
    for i in ids:
      i = int(i)
      if i == self.eos_id and not keep_eos:
        break
      known.append(i if i < self.size else self._codec.unk_id)
    return known


class SentencePieces:
  """A SentencePiece model, from a file or from its bytes."""

  def __init__(self, model: pathlib.Path | bytes, name: str):
    try:
      if isinstance(model, bytes):
        self._processor = sentencepiece.SentencePieceProcessor(
          model_proto=model
        )
      else:
        self._processor = sentencepiece.SentencePieceProcessor(
          model_file=str(model)
        )
      self.size = self._processor.get_piece_size()
      # A piece that is no UTF-8 would be met long after.
      self._processor.id_to_piece(list(range(self.size)))
    except (RuntimeError, OSError, UnicodeDecodeError) as error:
      raise ValueError(
        f'{name} is not a SentencePiece model file: {error}'
      ) from error
    self.eos_id = self._processor.eos_id()
    self.unk_id = self._processor.unk_id()
    bos_id = self._processor.bos_id()
    self.bos_id = bos_id if bos_id >= 0 else None
    if self.eos_id < 0:
      raise ValueError(f'The vocabulary {name} has no end-of-sequence token.')

  def encode(self, text: str) -> list[int]:
    return self._processor.encode(text)

  def decode(self, ids: Sequence[int]) -> str:
    return self._processor.decode(list(ids))

  def piece(self, token: int) -> str:
    return self._processor.id_to_piece(token)

  def is_special(self, token: int) -> bool:
    return self._processor.is_control(token)

  def save(self, folder: pathlib.Path) -> pathlib.Path:
    path = folder / 'tokenizer.model'
    path.write_bytes(self._processor.serialized_model_proto())
    return path


class TokenizerJson:
  """A tokenizer.json, as Hugging Face's `tokenizers` writes it."""

  def __init__(self, path: pathlib.Path):
    try:
      self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit):
      raise
    except BaseException as error:
      # The library raises nothing narrower, and where its Rust code panics
      # nothing but a BaseException.
      raise ValueError(f'{path} is not a tokenizer.json: {error}') from error
    # Ids may have gaps: what counts is the largest.
    self.size = 1 + max(self._tokenizer.get_vocab().values(), default=-1)
    eos_id, self.bos_id = self._first(_EOS), self._first(_BOS)
    if eos_id is None:
      raise ValueError(
        f'The vocabulary {path} has no end-of-sequence token: none of '
        f'{", ".join(_EOS)}.'
      )
    self.eos_id = eos_id
    unk_id = self._first(('<unk>',))
    self.unk_id = eos_id if unk_id is None else unk_id
    added = self._tokenizer.get_added_tokens_decoder()
    self._special = {i for i, token in added.items() if token.special}

  def _first(self, names: Sequence[str]) -> int | None:
    found = (self._tokenizer.token_to_id(name) for name in names)
    return next((i for i in found if i is not None), None)

  def encode(self, text: str) -> list[int]:
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int]) -> str:
    return self._tokenizer.decode(list(ids), skip_special_tokens=True)

  def piece(self, token: int) -> str:
    return self._tokenizer.id_to_token(token) or '<unk>'

  def is_special(self, token: int) -> bool:
    return token in self._special

  def save(self, folder: pathlib.Path) -> pathlib.Path:
    path = folder / 'tokenizer.json'
    self._tokenizer.save(str(path))
    return path


@dataclasses.dataclass(frozen=True)
class Framing:
  """How models read texts: what stands before an input, or behind it.

  Training and decoding frame alike, or a model meets what it has never seen.

  Attributes:
    vocabulary: what texts are split with.
    bos_first: inputs begin with the vocabulary's BOS and are continued, as a
      published decoder-only model expects; else they end with its EOS, as an
      encoder does and the shipped decoder-only pair.
  """

  vocabulary: Vocabulary
  bos_first: bool

  def input(self, text: str) -> list[int]:
    """Token ids of an input."""
    ids = self.vocabulary.encode(text)
    if self.bos_first:
      bos_id = self.vocabulary.bos_id
      assert bos_id is not None  # Or nothing could come first.
      return [bos_id, *ids]
    return [*ids, self.vocabulary.eos_id]

  def cut(self, ids: list[int], length: int) -> list[int]:
    """An input of at most `length` tokens.

    Without the end of a source; without the beginning of a prompt, where the
    question comes last.
    """
    if len(ids) <= length:
      return ids
    if self.bos_first:
      return ids[:1] + ids[len(ids) - length + 1 :]
    return ids[: length - 1] + ids[-1:]

  def target(self, text: str, length: int) -> list[int]:
    """Token ids of an answer of at most `length`, which an EOS ends."""
    return [*self.vocabulary.encode(text)[: length - 1], self.vocabulary.eos_id]


def find(folder: str | os.PathLike[str]) -> pathlib.Path | None:
  """The vocabulary's file in a checkpoint's folder, if there is one."""
  candidates = (pathlib.Path(folder) / name for name in FILES)
  return next((path for path in candidates if path.is_file()), None)


def check_same(
  first: Vocabulary, second: Vocabulary, names: tuple[str, str]
) -> None:
  """Refuses two vocabularies that give a number to different pieces.

  One may go on where the other ends (T5's tokenizer.json has 100 sentinels
  behind the 32,000 pieces of its SentencePiece model).

  Raises:
    ValueError: naming the first id that differs.
  """
  for i in range(min(first.size, second.size)):
    a, b = first.piece(i), second.piece(i)
    if a != b:
      raise ValueError(
        f'{names[0]} and {names[1]} have different vocabularies: token {i} is '
        f'{a!r} in the one and {b!r} in the other. Drafter and verifier must '
        'share one.'
      )


def _codec(path: pathlib.Path) -> Codec:
  if path.is_dir():
    found = find(path)
    if found is None:
      raise FileNotFoundError(
        f'No vocabulary in {path}: it has none of {", ".join(FILES)}.'
      )
    path = found
  if not path.is_file():
    raise FileNotFoundError(
      f'No vocabulary at {path}: expected a SentencePiece model file or a '
      'tokenizer.json.'
    )
  if path.suffix == '.json':
    return TokenizerJson(path)
  return SentencePieces(path, str(path))
