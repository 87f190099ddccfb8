"""Aligns a description with its translation, unit by unit.

A unit is a synopsis, a list item, a sentence, or a paragraph where the two
sides do not have as many sentences. Structure alone decides; no dictionary and
no model does. So what is kept is right, and other languages need no work.
"""

from __future__ import annotations

from collections.abc import Iterator
import re
from typing import NamedTuple

from experiments.corpora import parse

SYNOPSIS = 'synopsis'
SENTENCE = 'sentence'


class Pair(NamedTuple):
  """A line of a corpus, before filters and split."""

  source: str
  target: str
  package: str
  source_package: str
  kind: str


# A full stop within a sentence follows one of these, or a single letter.
_ABBREVIATIONS = frozenset(
  # English
  'al appl approx ca cf co corp dept dr ed eds eg eq esp est etc ext fig ie '
  'inc incl jr lib ltd max min misc mr mrs ms no nr nos p.s ph.d pp prof resp '
  'rev sect sr st tel ver viz vol vs e.g i.e a.k.a u.s a.o '
  # German
  'abk allg bsp bspw bzgl bzw ca d.h dgl einschl engl entspr etc evtl exkl ff '
  'gem ggf hrsg inkl insb insbes i.d.r incl lt m.e mind mio mrd nr o.ä o.g od '
  's.a s.o s.u sog st std str u.a u.ä u.u urspr usw v.a vgl z.b z.t z.zt zzgl '
  # Danish and Italian
  'bl.a dvs f.eks fx m.fl m.m osv pga ecc es pag sig'.split()
)
_END = re.compile(r'[.!?]+["\'\u00ab\u00bb\u201d\u201c\u2019)\]]*\s+')
# What a sentence may begin with. Names of programs are often lower case, so
# lower case is allowed where nothing else is ended by the mark.
_OPENING = '"\'\u00ab\u00bb\u201e\u201c\u201d(['


def sentences(text: str) -> list[str]:
  """The sentences of a paragraph."""
  found = []
  start = 0
  for end in _END.finditer(text):
    if _ends(text[start : end.start()], end.group(), text[end.end() :]):
      found.append(text[start : end.end()].strip())
      start = end.end()
  found.append(text[start:].strip())
  return [sentence for sentence in found if sentence]


def _ends(before: str, mark: str, after: str) -> bool:
  first = after.lstrip(_OPENING)[:1]
  if mark[0] != '.' or len(mark.rstrip()) > 1 and mark[1] == '.':
    return not first.islower()
  word = before.rsplit(' ', 1)[-1].lstrip(_OPENING)
  if word.casefold() in _ABBREVIATIONS or len(word) == 1 and word.isalpha():
    return False
  if word.isdigit() and len(word) < 3 and len(before.split()) < 2:
    return False  # `1. First`
  return bool(first) and not first.islower() and first not in ',;:-'


def units(
  english: parse.Description, other: parse.Description
) -> Iterator[tuple[str, str, str]]:
  """(source, target, kind) for all of a description that aligns."""
  yield english.synopsis, other.synopsis, SYNOPSIS
  ours, theirs = parse.blocks(english.body), parse.blocks(other.body)
  if [block.kind for block in ours] != [block.kind for block in theirs]:
    return
  for source, target in zip(ours, theirs, strict=True):
    item = source.kind == parse.ITEM
    parts = sentences(source.text), sentences(target.text)
    if len(parts[0]) == len(parts[1]):
      for one, its_translation in zip(*parts, strict=True):
        yield one, its_translation, parse.ITEM if item else SENTENCE
    else:
      yield source.text, target.text, source.kind


def translations(
  english: dict[str, parse.Description],
  other: dict[str, parse.Description],
  origins: dict[str, parse.Origin],
) -> Iterator[Pair]:
  """Aligned units of all descriptions that are in both languages."""
  for checksum in sorted(english.keys() & other.keys()):
    package = english[checksum].package
    for source, target, kind in units(english[checksum], other[checksum]):
      yield Pair(source, target, package, source_of(package, origins), kind)


def synopses(
  english: dict[str, parse.Description],
  origins: dict[str, parse.Origin],
) -> Iterator[Pair]:
  """Each description, as one line, with its synopsis."""
  for checksum in sorted(english):
    description = english[checksum]
    package = description.package
    yield Pair(
      flatten(description.body),
      description.synopsis,
      package,
      source_of(package, origins),
      SYNOPSIS,
    )


def flatten(body: tuple[str, ...]) -> str:
  """A body as one line; items keep a dash, to be told from each other."""
  return ' '.join(
    f'- {text}' if kind == parse.ITEM else text
    for kind, text in parse.blocks(body)
  )


def source_of(package: str, origins: dict[str, parse.Origin]) -> str:
  """A package of another architecture is its own source package."""
  origin = origins.get(package)
  return origin.source_package if origin else package
