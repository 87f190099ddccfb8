"""Builds the corpora `debian_en_de` and `debian_synopsis`.

From the repository root, on a Debian machine:

  python -m experiments.corpora.build --output build/corpora

The standard library is all it needs. README.md says what comes of it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections import defaultdict
import hashlib
import lzma
import pathlib

from experiments.corpora import align
from experiments.corpora import families as families_lib
from experiments.corpora import fetch
from experiments.corpora import filters
from experiments.corpora import parse
from experiments.corpora import split as split_lib

# Pairs of a family in a held-out split. Descriptions of one family are more
# alike than its sentences.
MOST_OF_FAMILY = {'translation': 12, 'synopsis': 4}


def corpora(
  index: fetch.Index,
  language: str = 'de',
  limits: split_lib.Limits = split_lib.LIMITS,
) -> tuple[dict[str, split_lib.Splits], dict[str, str], str]:
  """The splits of each corpus, families, and a report of the steps.

  Raises:
    FileNotFoundError: if an index file is missing.
    ValueError: if one is damaged.
  """
  origins = parse.origins(index.packages)
  english = parse.descriptions(index.english, fetch.ENGLISH)
  other = parse.descriptions(index.translation, language)
  families = _families(english, origins)
  log = [
    f'{len(english)} English descriptions, {len(english.keys() & other.keys())}'
    f' of them in {language}; {len(families)} source packages in '
    f'{len(set(families.values()))} families'
  ]

  kept = {}
  for name, pairs, chosen in (
    (
      f'debian_en_{language}',
      align.translations(english, other, origins),
      filters.TRANSLATIONS,
    ),
    (
      'debian_synopsis',
      map(filters.without_urls, align.synopses(english, origins)),
      filters.SYNOPSES,
    ),
  ):
    good, dropped = filters.keep(pairs, chosen)
    kept[name] = split_lib.one_target(good)
    log.append(_step(name, len(good), dropped, len(kept[name])))

  split = split_lib.hold_out(kept.values(), families, limits)
  found = {
    name: split_lib.apply(
      pairs,
      families,
      split,
      MOST_OF_FAMILY[
        'synopsis' if name == 'debian_synopsis' else 'translation'
      ],
      limits,
    )
    for name, pairs in kept.items()
  }
  return found, families, '\n'.join(log)


def _families(
  english: dict[str, parse.Description], origins: dict[str, parse.Origin]
) -> dict[str, str]:
  homepages: dict[str, set[str]] = defaultdict(set)
  texts: dict[str, set[tuple[str, ...]]] = defaultdict(set)
  for description in english.values():
    source = align.source_of(description.package, origins)
    texts[source].update(
      families_lib.fold(sentence)
      for block in parse.blocks(description.body)
      for sentence in align.sentences(block.text)
    )
  for origin in origins.values():
    if origin.source_package in texts:
      homepages[origin.source_package].add(origin.homepage)
  return families_lib.families(homepages, texts)


def _step(name: str, good: int, dropped: Counter[str], sources: int) -> str:
  reasons = ', '.join(f'{why} {n}' for why, n in dropped.most_common())
  return f'{name}: {good} pairs of {sources} sources; dropped: {reasons}'


def write(
  folder: pathlib.Path, corpus: str, parts: split_lib.Splits, families
) -> list[str]:
  """Writes the files of a corpus; returns their names with SHA-256.

  These are of the text, not of the file: another version of liblzma may
  compress it to other bytes.
  """
  folder.mkdir(parents=True, exist_ok=True)
  overlaps = split_lib.overlaps(parts)
  sums = []
  for name, pairs in parts.items():
    shares = [f'{share:.3f}' for share in overlaps.get(name, [])]
    metas = [
      (p.package, p.source_package, families[p.source_package], p.kind, share)
      for p, share in zip(pairs, shares or [''] * len(pairs), strict=True)
    ]
    for suffix, rows in (
      ('tsv', [(pair.source, pair.target) for pair in pairs]),
      ('meta.tsv', metas),
    ):
      text = ''.join('\t'.join(row) + '\n' for row in rows).encode()
      path = folder / f'{corpus}.{name}.{suffix}.xz'
      path.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
      sums.append(f'{hashlib.sha256(text).hexdigest()}  {path.stem}')
  return sums


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument(
    '--index',
    type=pathlib.Path,
    default=pathlib.Path('build/debian_index'),
    help='where the index files are, or are downloaded to',
  )
  parser.add_argument('--language', default='de', help='de, da, it, ...')
  arguments = parser.parse_args()

  index = fetch.fetch(arguments.index, arguments.language)
  found, families, log = corpora(index, arguments.language)
  print(log, flush=True)
  for corpus, parts in found.items():
    for line in write(arguments.output, corpus, parts, families):
      print(line, flush=True)


if __name__ == '__main__':
  main()
