"""Which tokens begin a text and which end it, as a checkpoint says itself.

Neither can be told from a tokenizer.json. That of a Gemma has `<s>` and `</s>`,
two tags of HTML, beside its `<bos>` and `<eos>`, and what an instruction-tuned
one ends its answers with is `<end_of_turn>`. Hugging Face says all that in
files beside the vocabulary, and they decide::

  tokenizer_config.json    bos_token and eos_token, by name
  special_tokens_map.json  likewise, where the first does not say
  generation_config.json   eos_token_id: an id, or a list of all that end a text
  config.json              likewise, where the former does not say

Where none of them does, a SentencePiece model knows its own two, and what is
left goes by name. `<end_of_turn>` then ends a text, as with llama.cpp and with
DeepMind's own sampler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
import json
import os
import pathlib
from typing import Any, Protocol, TypeAlias

from etils import epath

AnyPath: TypeAlias = pathlib.Path | epath.Path

TOKENIZER_CONFIG = 'tokenizer_config.json'
GENERATION_CONFIG = 'generation_config.json'
_TOKENS_MAP, _CONFIG = 'special_tokens_map.json', 'config.json'

# By likelihood: `<s>` and `</s>` are marks only where the others are not.
_BOS, _EOS = ('<bos>', '<s>'), ('<eos>', '</s>')
_END_OF_TURN = '<end_of_turn>'


class Names(Protocol):
  """Of a vocabulary, what its marks are found by.

  Attributes:
    size: number of tokens.
    eos_id: that the vocabulary's own file says; None if it says nothing.
    bos_id: likewise, None also where that file says that there is none.
  """

  size: int
  eos_id: int | None
  bos_id: int | None

  def id_of(self, name: str) -> int | None: ...


@dataclasses.dataclass(frozen=True)
class Marks:
  """Tokens that stand around texts.

  Attributes:
    eos_id: what is put behind a text: an encoder's input, a target.
    bos_id: what is put in front of a prompt; None for nothing.
    end_ids: all that end a text which is being written, `eos_id` among them.
  """

  eos_id: int
  bos_id: int | None
  end_ids: tuple[int, ...]

  def __post_init__(self):
    ids = dict.fromkeys((self.eos_id, *self.end_ids))
    object.__setattr__(self, 'end_ids', tuple(ids))


def path_of(path: str | os.PathLike[str]) -> AnyPath:
  """A path on this machine, or in a bucket."""
  text = os.fspath(path)
  return epath.Path(text) if '://' in text else pathlib.Path(text)


def by_name(words: Names, end_ids: Iterable[int] = ()) -> Marks:
  """Where no file beside it says anything: by itself, then by its names.

  Args:
    words: the vocabulary.
    end_ids: that are known to end a text.

  Raises:
    ValueError: if it has no end of sequence.
  """
  eos_id, bos_id = _own(words)
  if eos_id is None:
    raise ValueError(
      f'The vocabulary has no end-of-sequence token: none of {", ".join(_EOS)}.'
    )
  turn = words.id_of(_END_OF_TURN)
  return Marks(eos_id, bos_id, (*end_ids, *([] if turn is None else [turn])))


def read(folder: AnyPath, words: Names) -> Marks:
  """What the files in a vocabulary's folder say of it.

  Raises:
    ValueError: if one is broken, names a token that the vocabulary does not
      have, or none says what ends a text.
  """
  said = {**_json(folder, _TOKENS_MAP), **_json(folder, TOKENIZER_CONFIG)}
  ends = _end_ids(folder, words.size)
  bos_id, eos_id = (
    _named(folder, said, key, words) for key in ('bos_token', 'eos_token')
  )
  own_eos, own_bos = _own(words)
  if eos_id is None:
    eos_id = own_eos
    if words.eos_id is None and ends and eos_id not in ends:
      # The name was chance: texts have been generated with these.
      eos_id = ends[0]
  if eos_id is None:
    raise ValueError(
      f'The vocabulary in {folder} has no end-of-sequence token: none of '
      f'{", ".join(_EOS)}, and no {TOKENIZER_CONFIG} names another.'
    )
  # To be told that there is none is not to be told nothing.
  if 'bos_token' not in said:
    bos_id = own_bos
  if not ends:
    turn = words.id_of(_END_OF_TURN)
    ends = () if turn is None else (turn,)
  return Marks(eos_id, bos_id, ends)


def write(folder: AnyPath, marks: Marks, names: Mapping[str, Any]) -> None:
  """Says in a vocabulary's folder what `read` reads there.

  Args:
    folder: that the vocabulary lies in.
    marks: of the vocabulary.
    names: what else to put into tokenizer_config.json.
  """
  write_json(folder / TOKENIZER_CONFIG, names)
  ends = {'eos_token_id': id_or_ids(marks.end_ids)}
  write_json(folder / GENERATION_CONFIG, ends)


def id_or_ids(end_ids: tuple[int, ...]) -> int | list[int]:
  """As Hugging Face has it: a list only where there are several."""
  return end_ids[0] if len(end_ids) == 1 else list(end_ids)


def write_json(path: AnyPath, content: Mapping[str, Any]) -> None:
  """As Hugging Face writes its files."""
  path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n')


def _own(words: Names) -> tuple[int | None, int | None]:
  """End and beginning, by the vocabulary's own file or else by name."""
  if words.eos_id is not None:
    return words.eos_id, words.bos_id

  def first(names: Iterable[str]) -> int | None:
    found = map(words.id_of, names)
    return next((i for i in found if i is not None), None)

  return first(_EOS), first(_BOS)


def _named(
  folder: AnyPath, said: Mapping[str, Any], key: str, words: Names
) -> int | None:
  """The token of a name, which older files wrap in an object."""
  name = said.get(key)
  if isinstance(name, Mapping):
    name = name.get('content')
  if name is None:
    return None
  found = words.id_of(name) if isinstance(name, str) else None
  if found is None:
    raise ValueError(
      f'The files in {folder} say {key} is {name!r:.80}, which is no token of '
      'the vocabulary there.'
    )
  return found


def _end_ids(folder: AnyPath, size: int) -> tuple[int, ...]:
  """All that end a text; none where no file says."""
  config = _json(folder, _CONFIG)
  # That of a model which also sees images.
  text = config.get('text_config')
  for name, content in (
    (GENERATION_CONFIG, _json(folder, GENERATION_CONFIG)),
    (_CONFIG, config),
    (_CONFIG, text if isinstance(text, Mapping) else {}),
  ):
    said = content.get('eos_token_id')
    ids = said if isinstance(said, list) else [said]
    if said is None or not ids:
      continue
    for i in ids:
      if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < size:
        raise ValueError(
          f'{folder / name} says eos_token_id is {said!r:.80}; the vocabulary '
          f'beside it has the tokens 0 to {size - 1}.'
        )
    return tuple(ids)
  return ()


def _json(folder: AnyPath, name: str) -> Mapping[str, Any]:
  path = folder / name
  if not path.is_file():
    return {}
  try:
    content = json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is no JSON: {error}') from error
  if not isinstance(content, Mapping):
    raise ValueError(f'{path} must hold an object, got {content!r:.80}.')
  return content
