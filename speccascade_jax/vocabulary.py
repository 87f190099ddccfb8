"""Text to token ids and back, for the public API.

SentencePiece model files and Hugging Face's tokenizer.json, so that generating
text needs neither seqio nor TensorFlow; the seqio tasks read the same files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
import copy
import dataclasses
import functools
import os
import pathlib
import re
from typing import Protocol

import sentencepiece
import tokenizers

from speccascade_jax import marks as marks_lib

# What a checkpoint's folder may call its vocabulary, the best first: a
# tokenizer.json also knows the tokens that were added later.
FILES = ('tokenizer.json', 'spiece.model', 'tokenizer.model')

# How T5's and Gemma's vocabularies write a token for a single byte.
_BYTE = re.compile('<0x[0-9A-F]{2}>')
# Ids that a tokenizer.json may leave out, beside as many as it has.
_MOST_MISSING = 65_536
# What llama.cpp's converter writes for an id that has no piece.
_PADDING = re.compile(r'\[PAD\d+\]')
# What nobody writes or reads: padding, and what T5 and Gemma keep in reserve.
_UNUSED = re.compile(r'\[PAD\d+\]|<unused\d+>|<extra_id_\d+>')


class Codec(Protocol):
  """What a vocabulary is made of; see `Vocabulary`.

  `eos_id` and `bos_id` are what its own file says, None where it does not.
  """

  size: int
  eos_id: int | None
  bos_id: int | None
  unk_id: int | None

  def encode(self, text: str) -> list[int]: ...

  def decode(self, ids: Sequence[int]) -> str: ...

  def piece(self, token: int) -> str: ...

  def is_special(self, token: int) -> bool: ...

  def save(self, folder: pathlib.Path) -> pathlib.Path: ...


class Vocabulary:
  """Pieces of text by number, and which of them begin and end a text."""

  def __init__(
    self,
    source: str | os.PathLike[str] | Codec,
    marks: marks_lib.Marks | None = None,
  ):
    """Reads a vocabulary, or takes what another module has read.

    Args:
      source: a SentencePiece model file, a tokenizer.json, or a folder with
        one of `FILES`; on this machine or in a bucket.
      marks: what begins and ends a text; by default what the files beside the
        vocabulary say (see `marks.read`), or else what a codec itself says.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is neither, or has no end of sequence.
    """
    if isinstance(source, (str, os.PathLike)):
      path = _file(marks_lib.path_of(source))
      found = _codec(path)
      marks = marks or marks_lib.read(path.parent, found)
      codec: Codec = found
    else:
      codec = source
    if marks is None:
      if codec.eos_id is None:
        raise ValueError('The vocabulary has no end-of-sequence token.')
      marks = marks_lib.Marks(codec.eos_id, codec.bos_id, (codec.eos_id,))
    self._codec, self._marks = codec, marks
    self._size = codec.size

  @property
  def size(self) -> int:
    """Number of pieces; a model's V may be padded beyond it."""
    return self._size

  @property
  def marks(self) -> marks_lib.Marks:
    """What begins and ends a text, all of it."""
    return self._marks

  @property
  def eos_id(self) -> int:
    """What is put behind a text."""
    return self._marks.eos_id

  @property
  def bos_id(self) -> int | None:
    """What texts begin with, for models that were trained so (Gemma)."""
    return self._marks.bos_id

  @property
  def end_ids(self) -> tuple[int, ...]:
    """All tokens that end a text which is being written, `eos_id` first."""
    return self._marks.end_ids

  def marked(self, marks: marks_lib.Marks) -> Vocabulary:
    """The same pieces between other marks."""
    other = copy.copy(self)
    other._marks = marks
    return other

  def cut(self, size: int, owner: str) -> Vocabulary:
    """The same for models that have rows for the first `size` tokens alone.

    A Gemma 3 of 1B has 262,144 rows, and its tokenizer 262,145 tokens: the
    last stands for an image. What is cut is never written by such a model, and
    a text that holds it is refused.

    Args:
      size: tokens that the models score.
      owner: whose vocabulary it is, for messages.

    Raises:
      ValueError: naming the first token that would be missed in texts.
    """
    if size >= self.size:
      return self
    marks = {self.eos_id, *self.end_ids, self.bos_id} - {None}
    for token in range(size, self.size):
      piece = self._codec.piece(token)
      spare = self._codec.is_special(token) or _UNUSED.fullmatch(piece)
      if token in marks or not spare:
        raise ValueError(
          f'The vocabulary of {owner} has {self.size} pieces, but not all '
          f'models score as many: {size} is the least, and token {token}, '
          f'{piece!r:.80}, is no padding. They do not belong together.'
        )
    other = copy.copy(self)
    other._size = size
    # Those of the longer one.
    other.__dict__.pop('surfaces', None)
    return other

  def encode(self, text: str) -> list[int]:
    """Token ids of `text`, without an EOS.

    Raises:
      ValueError: if it holds a token that was cut off.
    """
    ids = self._codec.encode(text)
    if self._size < self._codec.size:
      missing = next((i for i in ids if i >= self._size), None)
      if missing is not None:
        raise ValueError(
          f'A text holds {self._codec.piece(missing)!r}, which is token '
          f'{missing}; the models score {self._size} tokens.'
        )
    return ids

  def decode(self, ids: Iterable[int]) -> str:
    """Text up to what ends it; ids past the vocabulary read as unknown."""
    return self._codec.decode(self._known(ids))

  def piece(self, token: int) -> str:
    """The piece of one token of the vocabulary."""
    return self._codec.piece(token)

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """One piece a token, what ends a text included, for display."""
    return [self.piece(i) for i in self._known(ids, True)]

  def save(self, folder: str | os.PathLike[str]) -> pathlib.Path:
    """Writes it as one of `FILES`, for a checkpoint that stands alone.

    Beside it lies what says which tokens begin and end a text.

    Returns:
      The file, which `Vocabulary` reads; other vocabularies in the folder are
      left alone.
    """
    path = self._codec.save(pathlib.Path(folder))
    marks_lib.write(path.parent, self._marks, self.names())
    return path

  def names(self) -> dict[str, str | None]:
    """What a tokenizer_config.json says: 'bos_token' and the like, by name."""
    bos_id = self.bos_id
    return {
      'bos_token': None if bos_id is None else self.piece(bos_id),
      'eos_token': self.piece(self.eos_id),
    }

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

  def _known(self, ids: Iterable[int], keep_ends: bool = False) -> list[int]:
    unknown = self._codec.unk_id
    if unknown is None:
      unknown = self.eos_id
    known = []
    for i in ids:
      i = int(i)
      if i in self.end_ids and not keep_ends:
        break
      known.append(i if i < self.size else unknown)
    return known


class SentencePieces:
  """A SentencePiece model, from its bytes.

  Attributes:
    special: tokens that are not text although the model takes them for it.
  """

  def __init__(self, model: bytes, name: str, special: Collection[int] = ()):
    self.special = frozenset(special)
    try:
      self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
      self.size = self._processor.get_piece_size()
      # A piece that is no UTF-8 would be met long after.
      self._processor.id_to_piece(list(range(self.size)))
    except (RuntimeError, OSError, UnicodeDecodeError) as error:
      raise ValueError(
        f'{name} is not a SentencePiece model file: {error}'
      ) from error
    self.eos_id: int | None = self._processor.eos_id()
    self.unk_id: int | None = self._processor.unk_id()
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
    return (
      token in self.special
      or self._processor.is_control(token)
      or self._processor.is_unused(token)
    )

  def id_of(self, name: str) -> int | None:
    found = self._processor.piece_to_id(name)
    return found if self._processor.id_to_piece(found) == name else None

  def save(self, folder: pathlib.Path) -> pathlib.Path:
    path = folder / 'tokenizer.model'
    path.write_bytes(self._processor.serialized_model_proto())
    return path


class TokenizerJson:
  """A tokenizer.json, as Hugging Face's `tokenizers` writes it.

  It says of no token what it stands for; see `marks`.
  """

  eos_id: int | None = None
  bos_id: int | None = None

  def __init__(self, content: bytes, name: str):
    try:
      self._tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except (KeyboardInterrupt, SystemExit):
      raise
    except BaseException as error:
      # The library raises nothing narrower, and where its Rust code panics
      # nothing but a BaseException.
      raise ValueError(f'{name} is not a tokenizer.json: {error}') from error
    # What a text was cut or filled up to when the file was written.
    self._tokenizer.no_truncation()
    self._tokenizer.no_padding()
    # Ids may have gaps: what counts is the largest.
    pieces = self._tokenizer.get_vocab()
    self.size = 1 + max(pieces.values(), default=-1)
    if self.size > 2 * len(pieces) + _MOST_MISSING:
      raise ValueError(
        f'{name} is not a tokenizer.json that a model can have: it has '
        f'{len(pieces)} pieces, and the id {self.size - 1}.'
      )
    self.unk_id = self.id_of('<unk>')
    added = self._tokenizer.get_added_tokens_decoder()
    self._special = {i for i, token in added.items() if token.special}

  def id_of(self, name: str) -> int | None:
    return self._tokenizer.token_to_id(name)

  def encode(self, text: str) -> list[int]:
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int]) -> str:
    return self._tokenizer.decode(list(ids), skip_special_tokens=True)

  def piece(self, token: int) -> str:
    # In a gap as llama.cpp has it.
    return self._tokenizer.id_to_token(token) or f'[PAD{token}]'

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

  @classmethod
  def of(cls, vocabulary: Vocabulary, decoder_only: bool) -> Framing:
    """As models of this kind have been trained, by their vocabulary."""
    return cls(vocabulary, decoder_only and vocabulary.bos_id is not None)

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


def find(folder: str | os.PathLike[str]) -> marks_lib.AnyPath | None:
  """The vocabulary's file in a checkpoint's folder, if there is one."""
  candidates = (marks_lib.path_of(folder) / name for name in FILES)
  return next((path for path in candidates if path.is_file()), None)


def check_same(
  first: Vocabulary, second: Vocabulary, names: tuple[str, str]
) -> None:
  """Refuses two vocabularies that give a number to different pieces.

  One may go on where the other ends (T5's tokenizer.json has 100 sentinels
  behind the 32,000 pieces of its SentencePiece model), or have nothing but
  padding for a number.

  Raises:
    ValueError: naming the first id that differs.
  """
  for i in range(min(first.size, second.size)):
    a, b = first.piece(i), second.piece(i)
    if a != b and not (_PADDING.fullmatch(a) or _PADDING.fullmatch(b)):
      raise ValueError(
        f'{names[0]} and {names[1]} have different vocabularies: token {i} is '
        f'{a!r} in the one and {b!r} in the other. Drafter and verifier must '
        'share one.'
      )


def _file(path: marks_lib.AnyPath) -> marks_lib.AnyPath:
  if path.is_dir():
    found = find(path)
    if found is None:
      raise FileNotFoundError(
        f'No vocabulary in {path}: it has none of {", ".join(FILES)}.'
      )
    return found
  if not path.is_file():
    raise FileNotFoundError(
      f'No vocabulary at {path}: expected a SentencePiece model file or a '
      'tokenizer.json.'
    )
  return path


def _codec(path: marks_lib.AnyPath) -> SentencePieces | TokenizerJson:
  # By its bytes: the libraries read no buckets.
  kind = TokenizerJson if path.suffix == '.json' else SentencePieces
  return kind(path.read_bytes(), str(path))
