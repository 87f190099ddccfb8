"""What is wrong with a pair, if anything.

A filter names the reason, for the statistics of the build. The order matters
only for these: a pair is counted under the first reason that holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
import re

from experiments.corpora import align

TRANSLATION_LENGTHS = (8, 256)  # Characters of either side.
DESCRIPTION_LENGTHS = (40, 1000)
LONGEST_RATIO = 2.75

_DIGITS = re.compile(r'\d+')
_URL = re.compile(r'(?:\b[a-z][a-z0-9+.-]*://|\bwww\.)[^\s<>"]+', re.IGNORECASE)
_URL_IN_TEXT = re.compile(rf'<(?:URL:)?\s*{_URL.pattern}>|{_URL.pattern}', re.I)
# Not every host name: `X.org` is the name of software, too.
_ADDRESS = re.compile(r'[\w.+-]+@[\w-]+\.\w|\bmailto:', re.IGNORECASE)
# Hosts of package registries, which are no text; `RubyGems` alone is.
_REGISTRY = re.compile(
  r'\b(?:pypi|rubygems|npmjs|crates|cpan|metacpan|hackage|packagist)'
  r'(?:\.[a-z]+)*\.(?:org|com|io|net)\b',
  re.IGNORECASE,
)
_WORD = re.compile(r'[^\W\d_]+')
_TRANSITIONAL = re.compile(
  r'\b(?:transitional|dummy)(?:[\s/,]+\w+)? package|\btransition package',
  re.IGNORECASE,
)
_TRANSITIONAL_SYNOPSIS = re.compile(
  r'\b(?:transitional|dummy)\b', re.IGNORECASE
)
_ENGLISH = frozenset(
  'a an and are as at be by can for from has have if in into is it its of on '
  'or other such that the their these this to use used using was which will '
  'with you your'.split()
)
# Words of the one language that are words of the other, too.
_FALSE_FRIENDS = frozenset('an in was on a at so de per di i il la al'.split())
_BRACKETS = ('()', '[]', '{}')

Filter = Callable[[str, str], bool]


def too_long(source: str, target: str) -> bool:
  return max(len(source), len(target)) > TRANSLATION_LENGTHS[1]


def too_short(source: str, target: str) -> bool:
  return min(len(source), len(target)) < TRANSLATION_LENGTHS[0]


def identical(source: str, target: str) -> bool:
  return source == target


def other_digits(source: str, target: str) -> bool:
  """Sets, since one mention may become two."""
  return set(_DIGITS.findall(source)) != set(_DIGITS.findall(target))


def addresses(source: str, target: str) -> bool:
  both = f'{source}\n{target}'
  return bool(_URL.search(both) or _ADDRESS.search(both))


def registries(source: str, target: str) -> bool:
  return bool(_REGISTRY.search(f'{source}\n{target}'))


def untranslated(source: str, target: str) -> bool:
  """Most words of the target are the source's, English ones among them."""
  words = [word.casefold() for word in _WORD.findall(target)]
  ours = {word.casefold() for word in _WORD.findall(source)}
  english = _ENGLISH - _FALSE_FRIENDS
  foreign = sum(word in english for word in words)
  copied = sum(word in ours for word in words)
  return (
    not words
    or (copied >= 0.7 * len(words) and foreign > 0)
    or foreign >= 2
    and foreign >= 0.15 * len(words)
  )


def uneven(source: str, target: str) -> bool:
  """Short texts may differ by more, hence the constant."""
  longer = max(len(source), len(target))
  return longer > LONGEST_RATIO * min(len(source), len(target))


def unbalanced(source: str, target: str) -> bool:
  return any(
    text.count(pair[0]) != text.count(pair[1])
    for text in (source, target)
    for pair in _BRACKETS
  )


def damaged(source: str, target: str) -> bool:
  """What a wrong encoding leaves, and control characters."""
  return any(
    character == '\ufffd' or not character.isprintable()
    for character in source + target
  )


def transitional(source: str, target: str) -> bool:
  return bool(
    _TRANSITIONAL_SYNOPSIS.search(target) or _TRANSITIONAL.search(source)
  )


def lengths(source: str, target: str) -> bool:
  low, high = DESCRIPTION_LENGTHS
  return not low <= len(source) <= high or len(target) < TRANSLATION_LENGTHS[0]


TRANSLATIONS: tuple[Filter, ...] = (
  too_long,
  too_short,
  damaged,
  identical,
  addresses,
  registries,
  other_digits,
  untranslated,
  uneven,
  unbalanced,
)
SYNOPSES: tuple[Filter, ...] = (
  lengths,
  damaged,
  transitional,
  identical,
  registries,
)


def without_urls(pair: align.Pair) -> align.Pair:
  """URLs become the word URL, with the brackets around them.

  https://example.org/. -> URL.
  <URL:https://example.org/> -> URL
  """
  return pair._replace(source=_URL_IN_TEXT.sub(_url, pair.source))


def _url(found: re.Match[str]) -> str:
  if found.group().startswith('<'):
    return 'URL'
  # What ends a sentence is not part of an address.
  address = found.group()
  return 'URL' + address[len(address.rstrip('.,;:!?)]\'"')) :]


def keep(
  pairs: Iterable[align.Pair], filters: tuple[Filter, ...]
) -> tuple[list[align.Pair], Counter[str]]:
  """The pairs that no filter objects to, and how many each one dropped."""
  kept, dropped = [], Counter[str]()
  for pair in pairs:
    for wrong in filters:
      if wrong(pair.source, pair.target):
        dropped[wrong.__name__] += 1
        break
    else:
      kept.append(pair)
  return kept, dropped
