"""Families of source packages: what has to stay on one side of a split.

Debian has many packages of one kind: `aspell-de` and `aspell-fr`, `boost1.74`
and `boost1.81`, the parts of a desktop, a hundred modules with one introduction
copied into each. With one of them in train and another in test, the test would
measure memory. So source packages that have a name, a homepage or much text in
common are joined, and a family is what is connected by such joins.
"""

from __future__ import annotations

from collections import Counter
from collections import defaultdict
from collections.abc import Iterable, Mapping
import itertools
import re

# A sentence in at most so many source packages is rare: not boilerplate.
RARE = 20
# Two source packages are joined by two rare sentences in common, if these are
# this share of the rare sentences of the one that has fewer ...
SHARE = 0.5
# ... or by one sentence of as many words in as few source packages.
LONG_WORDS = 12
LONG_SOURCES = 8
# Sentences of fewer words are no evidence of anything.
FEWEST_WORDS = 4

_WORD = re.compile(r'\w+')
_VERSION = re.compile(r'[-.]?v?\d[\d.]*(?:esr|lts)?$')
# Parts of a program that are source packages of their own.
_PART = re.compile(r'-(?:data|doc|extras?|i18n)$')
# ISO 639-1, with a country or script after it, as in `zh-cn` and `sr-latin`.
_LANGUAGES = (
  'af am an ar as az be bg bn br bs ca cs cy da de dz el en eo es et eu fa fi '
  'fo fr fy ga gd gl gu gv he hi hr hsb hu hy ia id is it ja ka kk km kn ko ku '
  'ky lb lo lt lv mg mi mk ml mn mr ms nb ne nl nn no nr ns ny oc or pa pl ps '
  'pt ro ru rw sa se si sk sl sq sr ss st sv sw ta te tg th tk tl tn tr ts tt '
  'uk ur uz ve vi wa xh yi zh zu'
)
_LANGUAGE = re.compile(
  rf'[-_](?:{"|".join(_LANGUAGES.split())})(?:[-_](?:[a-z]{{2}}|latin|cyrl))?$'
)
_SCHEME = re.compile(r'^[a-z+]+://(?:www\.)?')
_INDEX = re.compile(r'(?:/index\.\w+|\.git|/)+$')


class Sets:
  """Disjoint sets of names, joined as evidence comes in."""

  def __init__(self, names: Iterable[str]):
    self._parent = {name: name for name in names}

  def find(self, name: str) -> str:
    """The name that stands for the set: its first in alphabetical order."""
    root = name
    while self._parent[root] != root:
      root = self._parent[root]
    while self._parent[name] != root:
      self._parent[name], name = root, self._parent[name]
    return root

  def join(self, names: Iterable[str]) -> None:
    """Makes one set of those that `names` are in."""
    roots = sorted({self.find(name) for name in names})
    for root in roots[1:]:
      self._parent[root] = roots[0]


def stem(source_package: str) -> str:
  """A name without version, language, `-data` and the like.

  boost1.74 -> boost, hunspell-pt-br -> hunspell, 0ad-data -> 0ad
  """
  name = source_package
  while True:
    shorter = name
    for ending in (_PART, _LANGUAGE, _VERSION):
      shorter = ending.sub('', shorter)
    # `0ad` and `7zip` keep their digits, `r-cran-x` its name.
    if len(shorter) < 2 or shorter == name:
      return name
    name = shorter


def address(homepage: str) -> str:
  """A homepage, less what differs between two ways to write it."""
  short = _SCHEME.sub('', homepage.strip().casefold()).partition('#')[0]
  return _INDEX.sub('', short)


def fold(sentence: str) -> tuple[str, ...]:
  """The words of a sentence, as far as it is compared with others."""
  return tuple(_WORD.findall(sentence.casefold()))


def families(
  homepages: Mapping[str, set[str]],
  texts: Mapping[str, set[tuple[str, ...]]],
) -> dict[str, str]:
  """The family of each source package, named after its first member.

  Args:
    homepages: of the packages built of each source package; maybe none.
    texts: sentences of the descriptions of these packages, folded. Its keys
      are the source packages that there are.
  """
  sets = Sets(texts)
  groups = defaultdict(set)
  for name in texts:
    groups['name', stem(name)].add(name)
    for homepage in homepages.get(name, ()):
      if homepage:
        groups['homepage', address(homepage)].add(name)
  for group in groups.values():
    sets.join(group)
  for group in _alike(texts):
    sets.join(group)
  return {name: sets.find(name) for name in texts}


def _alike(
  texts: Mapping[str, set[tuple[str, ...]]],
) -> Iterable[tuple[str, ...]]:
  """Groups of source packages with text in common."""
  users = defaultdict(list)
  for name in sorted(texts):
    for sentence in texts[name]:
      if len(sentence) >= FEWEST_WORDS:
        users[sentence].append(name)
  rare = Counter[str]()  # Number of rare sentences of each source package.
  common = Counter[tuple[str, str]]()  # Rare sentences that two of them share.
  for sentence, names in users.items():
    if len(names) > RARE:
      continue
    rare.update(names)
    common.update(itertools.combinations(names, 2))
    if len(names) <= LONG_SOURCES and len(sentence) >= LONG_WORDS:
      yield tuple(names)
  for pair, number in common.items():
    if number > 1 and number >= SHARE * min(rare[name] for name in pair):
      yield pair
