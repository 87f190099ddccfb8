"""Splits pairs by family, and makes every choice by SHA-256 of text.

No random numbers and no order of a dictionary decide anything, so the same
index gives the same bytes on every machine. Families are held out in the order
of the hash of their names, so a new or a vanished package moves few others.
"""

from __future__ import annotations

from collections import Counter
from collections import defaultdict
from collections.abc import Iterable
import hashlib
import re
from typing import NamedTuple

from experiments.corpora import align

TRAIN, VALIDATION, TEST = 'train', 'validation', 'test'
SPLITS = (TRAIN, VALIDATION, TEST)

# Families held out for both corpora: enough to fill each split with the most
# pairs that it may have.
FAMILIES = {TEST: 1450, VALIDATION: 1400}
PAIRS = 1500
# Larger families stay in train: held out, one would be much of a split.
LARGEST_FAMILY = {'source packages': 12, 'pairs': 150}

# Hyphenated words and `don't` count as one.
WORD = re.compile(r"\w+(?:[-'\u2019]\w+)*")
_GRAM = 4

Splits = dict[str, list[align.Pair]]


class Limits(NamedTuple):
  """How much of the held-out families is used."""

  families: dict[str, int]
  pairs: int


LIMITS = Limits(FAMILIES, PAIRS)


def key(*texts: str) -> bytes:
  """What everything is ordered by."""
  return hashlib.sha256('\t'.join(texts).encode()).digest()


def _order(pair: align.Pair) -> bytes:
  return key(pair.source, pair.target)


def one_target(pairs: Iterable[align.Pair]) -> list[align.Pair]:
  """One pair a source: its most frequent target, from one of its packages."""
  by_source = defaultdict(list)
  for pair in pairs:
    by_source[pair.source].append(pair)
  kept = []
  for group in by_source.values():
    number = Counter(pair.target for pair in group)
    kept.append(
      min(
        group,
        key=lambda pair: (
          -number[pair.target],
          key(pair.target),
          key(pair.package),
        ),
      )
    )
  return sorted(kept, key=_order)


def hold_out(
  corpora: Iterable[list[align.Pair]],
  families: dict[str, str],
  limits: Limits = LIMITS,
) -> dict[str, str]:
  """The split of each family; the same for all corpora."""
  members = defaultdict(set)
  pairs = Counter[str]()
  for source_package, family in families.items():
    members[family].add(source_package)
  for corpus in corpora:
    pairs.update(families[pair.source_package] for pair in corpus)
  small = [
    family
    for family in pairs
    if len(members[family]) <= LARGEST_FAMILY['source packages']
    and pairs[family] <= LARGEST_FAMILY['pairs']
  ]
  small.sort(key=lambda family: key('family', family))
  split = dict.fromkeys(pairs, TRAIN)
  start = 0
  for name, number in limits.families.items():
    split.update(dict.fromkeys(small[start : start + number], name))
    start += number
  return split


def apply(
  pairs: list[align.Pair],
  families: dict[str, str],
  split: dict[str, str],
  most_of_family: int,
  limits: Limits = LIMITS,
) -> Splits:
  """The splits of a corpus.

  A held-out pair whose source or target is in train too, or in the other
  held-out split, is dropped, since families may share a short text.

  Args:
    pairs: in the order in which they are to be written.
    families: of source packages.
    split: of families.
    most_of_family: pairs that a family may have in a held-out split.
    limits: the pairs of a split.
  """
  parts: Splits = {name: [] for name in SPLITS}
  for pair in pairs:
    parts[split[families[pair.source_package]]].append(pair)
  sources = {pair.source.casefold() for pair in parts[TRAIN]}
  targets = {pair.target.casefold() for pair in parts[TRAIN]}
  for name in limits.families:
    used = Counter[str]()
    kept = []
    for pair in parts[name]:
      family = families[pair.source_package]
      known = (
        pair.source.casefold() in sources or pair.target.casefold() in targets
      )
      if known or used[family] == most_of_family or len(kept) == limits.pairs:
        continue
      used[family] += 1
      kept.append(pair)
    parts[name] = kept
    sources.update(pair.source.casefold() for pair in kept)
    targets.update(pair.target.casefold() for pair in kept)
  return parts


def overlaps(parts: Splits) -> dict[str, list[float]]:
  """Of each held-out source, the largest share of its 4-grams that one train
  source has; 0 for sources of fewer than four words."""
  held = {
    name: [grams(pair.source) for pair in parts[name]]
    for name in SPLITS
    if name != TRAIN
  }
  wanted = set().union(*(g for part in held.values() for g in part))
  where = defaultdict(list)
  for number, pair in enumerate(parts[TRAIN]):
    for gram in grams(pair.source) & wanted:
      where[gram].append(number)
  return {
    name: [_largest_share(gram, where) for gram in part]
    for name, part in held.items()
  }


def grams(text: str) -> set[tuple[str, ...]]:
  """The different 4-grams of words."""
  words = WORD.findall(text.casefold())
  return {tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)}


def _largest_share(
  own: set[tuple[str, ...]], where: dict[tuple[str, ...], list[int]]
) -> float:
  # `get`, so that looking up a gram does not add it.
  shared = Counter(number for gram in own for number in where.get(gram, ()))
  return max(shared.values(), default=0) / max(len(own), 1)
