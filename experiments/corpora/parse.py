"""Reads package descriptions and undoes their layout.

A description is a synopsis, one line, and a body in the layout of Debian's
policy manual, section 5.6.13. Each line of the body starts with a space:

   GnuTLS is a portable library which        <- a paragraph, wrapped
   implements Transport Layer Security.
   .                                         <- ends it
   GnuTLS features support for:
    - the Online Certificate Status          <- a list: shown as it is,
      Protocol (OCSP).                          for the sake of two spaces
    - CPU-assisted cryptography.

`blocks` turns a body into paragraphs and list items, each a single line.
"""

from __future__ import annotations

from collections.abc import Iterator
import pathlib
import re
from typing import NamedTuple
import unicodedata

PARAGRAPH = 'paragraph'
ITEM = 'item'


class Description(NamedTuple):
  """A description in one language."""

  package: str
  checksum: str  # Of the English description, whatever the language.
  synopsis: str
  body: tuple[str, ...]  # Lines as in the file, less their first space.


class Origin(NamedTuple):
  """What the index says of the software, not of its description."""

  source_package: str
  homepage: str  # Empty where there is none.


class Block(NamedTuple):
  """A paragraph or an item of a list, unwrapped."""

  kind: str
  text: str


_SPACE = re.compile(r'\s+')
# Soft hyphens, zero-width characters, byte-order marks: nobody sees them.
_INVISIBLE = re.compile('[\u00ad\u200b-\u200f\u2060\ufeff]')
_MARK = re.compile(r'(?:[-*+o\u2022\u00b7\u2013\u2014]|\d{1,2}[.)])\s+(?=\S)')
# At a hyphen, or at a slash that is not the end of a path.
_BROKEN_WORD = re.compile(r'\w-$|(?:^|\s)\w[^\s/]*/$')
# After these a hyphen at the end of a line stands for the rest of the word, as
# in `pre- and post-processing`; otherwise the word was broken at its hyphen.
_ELLIPSIS = re.compile(r'\W?(?:and|or|to|und|oder|bzw|sowie|bis|als|e|o|og)\b')


def stanzas(path: pathlib.Path) -> Iterator[dict[str, str]]:
  """The fields of each stanza of an index file.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is not an index file.
  """
  fields: dict[str, str] = {}
  name = None
  with path.open(encoding='utf-8', newline='\n') as lines:
    for number, line in enumerate(lines, start=1):
      line = line.rstrip('\n')
      if not line:
        if fields:
          yield fields
        fields, name = {}, None
      elif line[0] in ' \t' and name is not None:
        fields[name] += '\n' + line
      else:
        name, colon, value = line.partition(':')
        if not colon:
          raise ValueError(
            f'{path}, line {number} is no field of an index file: {line!r}.'
          )
        fields[name] = value.removeprefix(' ')
  if fields:
    yield fields


def descriptions(path: pathlib.Path, language: str) -> dict[str, Description]:
  """The descriptions of a file `Translation-LANGUAGE`, by checksum.

  Packages built of one source often share a description; the first package in
  alphabetical order stands for them.
  """
  found: dict[str, Description] = {}
  for fields in stanzas(path):
    text = fields.get(f'Description-{language}')
    checksum = fields.get('Description-md5')
    if text is None or checksum is None:
      continue
    synopsis, *body = text.split('\n')
    description = Description(
      fields['Package'],
      checksum,
      normalise(synopsis),
      tuple(line[1:] for line in body),
    )
    known = found.get(checksum)
    if known is None or description.package < known.package:
      found[checksum] = description
  return found


def origins(path: pathlib.Path) -> dict[str, Origin]:
  """Source package and homepage of each package of a file `Packages`."""
  found = {}
  for fields in stanzas(path):
    package = fields['Package']
    # `Source: glibc (2.36-9)` where its version is another than the package's.
    source = fields.get('Source', package).split(' ')[0]
    found[package] = Origin(source, fields.get('Homepage', ''))
  return found


def normalise(text: str) -> str:
  """One line in composed Unicode, with single spaces and nothing invisible."""
  text = unicodedata.normalize('NFC', text)
  return _SPACE.sub(' ', _INVISIBLE.sub('', text)).strip()


def blocks(body: tuple[str, ...]) -> list[Block]:
  """The paragraphs and list items of a body, in order.

  A line without a mark continues what it follows, however it is indented:
  authors indent text for many reasons, and translators in other ways.
  """
  found: list[Block] = []
  lines: list[str] = []  # Of the block being read.
  kind = PARAGRAPH
  depth = 0  # Indent of the mark of the item being read.

  def close() -> None:
    text = normalise(join(lines))
    if text:
      found.append(Block(kind, text))
    lines.clear()

  for line in body:
    text = line.strip()
    indent = len(line) - len(line.lstrip())
    mark = _MARK.match(text)
    # A wrapped line may happen to start with a dash, but not after a colon.
    starts_item = mark and (
      indent or kind == ITEM or not lines or lines[-1].endswith(':')
    )
    if text in ('', '.'):
      close()
      kind = PARAGRAPH
    elif mark and starts_item:
      close()
      kind, depth = ITEM, indent
      lines.append(text[mark.end() :])
    else:
      if kind == ITEM and indent == 0 < depth:
        close()
        kind = PARAGRAPH
      lines.append(text)
  close()
  return found


def join(lines: list[str]) -> str:
  """Undoes word wrapping, also of words broken at a hyphen or a slash."""
  text = ''
  for line in lines:
    if not text:
      text = line
    elif _BROKEN_WORD.search(text) and not _ELLIPSIS.match(line):
      text += line
    else:
      text += ' ' + line
  return text
