"""Checks the splits of the corpora for leakage, and prints their statistics.

From the repository root:

  python -m experiments.corpora.check build/corpora
  python -m experiments.corpora.check build/corpora \
      --compare speccascade_jax/data/corpora

Ends with status 1 if two splits have a source, target, source package or
family in common, whatever its case.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
import itertools
import lzma
import pathlib
import statistics
import sys
from typing import NamedTuple

from experiments.corpora.split import SPLITS
from experiments.corpora.split import TEST
from experiments.corpora.split import TRAIN
from experiments.corpora.split import WORD

# Held-out sources of this overlap with a train source are near copies.
NEAR_COPY = 0.8


class Line(NamedTuple):
  """A pair with its line of the meta file."""

  source: str
  target: str
  package: str
  source_package: str
  family: str
  kind: str
  overlap: str


Corpus = dict[str, list[Line]]


def read(folder: pathlib.Path) -> dict[str, Corpus]:
  """All corpora of a folder.

  Raises:
    FileNotFoundError: if there is none, or a file of one is missing.
    ValueError: if a pair file and its meta file do not belong together.
  """
  names = {path.name.split('.')[0] for path in folder.glob('*.tsv.xz')}
  if not names:
    raise FileNotFoundError(f'No corpora (*.tsv.xz) in {folder}.')
  return {
    name: {split: _read_split(folder, name, split) for split in SPLITS}
    for name in sorted(names)
  }


def _read_split(folder: pathlib.Path, name: str, split: str) -> list[Line]:
  columns = []
  for suffix in ('tsv', 'meta.tsv'):
    path = folder / f'{name}.{split}.{suffix}.xz'
    text = lzma.decompress(path.read_bytes()).decode()
    columns.append([row.split('\t') for row in text.split('\n')[:-1]])
  pairs, metas = columns
  if len(pairs) != len(metas):
    raise ValueError(
      f'{name}.{split} has {len(pairs)} pairs, but {len(metas)} lines of '
      f'meta data.'
    )
  return [Line(*pair, *meta) for pair, meta in zip(pairs, metas, strict=True)]


def leaks(corpora: dict[str, Corpus]) -> list[str]:
  """What two splits have in common, a line for each; empty if all is well.

  Texts are compared within a corpus, source packages and families across
  corpora too, since the same model may train on all of them.
  """
  found = []
  for name, corpus in corpora.items():
    for field in ('source', 'target'):
      values = {
        split: {getattr(line, field).casefold() for line in lines}
        for split, lines in corpus.items()
      }
      found += _common(values, f'{name}: {field}')
  for field in ('source_package', 'family'):
    values = {
      split: {
        getattr(line, field).casefold()
        for corpus in corpora.values()
        for line in corpus[split]
      }
      for split in SPLITS
    }
    found += _common(values, field)
  return found


def _common(values: dict[str, set[str]], what: str) -> list[str]:
  return [
    f'{what} {text!r} is in {one} and in {other}'
    for one, other in itertools.combinations(values, 2)
    for text in sorted(values[one] & values[other])
  ]


def table(corpora: dict[str, Corpus]) -> str:
  """The statistics of the corpora, as a table in Markdown."""
  rows = [
    ['', *(f'`{name}`' for name in corpora)],
    ['---'] * (len(corpora) + 1),
  ]
  columns = [_column(corpus) for corpus in corpora.values()]
  for title in columns[0]:
    rows.append([title, *(column[title] for column in columns)])
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def _column(corpus: Corpus) -> dict[str, str]:
  train, test = corpus[TRAIN], corpus[TEST]
  kinds = Counter(line.kind for line in train)
  near = sum(float(line.overlap) >= NEAR_COPY for line in test)
  return {
    'pairs, train / validation / test': _each(corpus, len),
    'families': _each(corpus, lambda part: len({x.family for x in part})),
    'source packages': _each(
      corpus, lambda part: len({x.source_package for x in part})
    ),
    'kinds in train': ', '.join(f'{k} {n:,}' for k, n in kinds.most_common()),
    'characters in train, median (p95), source': _lengths(
      [len(line.source) for line in train]
    ),
    'characters in train, median (p95), target': _lengths(
      [len(line.target) for line in train]
    ),
    f'test sources of overlap {NEAR_COPY} or more': _percent(near, len(test)),
    'test words unseen in train, source / target': ' / '.join(
      _unseen(
        [getattr(x, side) for x in train], [getattr(x, side) for x in test]
      )
      for side in ('source', 'target')
    ),
  }


def _each(corpus: Corpus, count) -> str:
  return ' / '.join(f'{count(corpus[split]):,}' for split in SPLITS)


def _lengths(lengths: Sequence[int]) -> str:
  if len(lengths) < 2:
    return ', '.join(map(str, lengths))
  p95 = statistics.quantiles(lengths, n=20, method='inclusive')[-1]
  return f'{statistics.median(lengths):.0f} ({p95:.0f})'


def _percent(part: int, whole: int) -> str:
  return f'{100 * part / max(whole, 1):.1f} %'


def _unseen(train: list[str], test: list[str]) -> str:
  """Share of the running words of test."""
  known = {word for text in train for word in WORD.findall(text.casefold())}
  words = [word for text in test for word in WORD.findall(text.casefold())]
  return _percent(sum(word not in known for word in words), len(words))


def comparison(ours: dict[str, Corpus], theirs: dict[str, Corpus]) -> str:
  """How far two builds agree, as a table in Markdown."""
  rows = [
    ['', *(f'`{name}`' for name in ours)],
    ['---'] * (len(ours) + 1),
  ]
  columns = [
    _agreement(corpus, theirs.get(name, {s: [] for s in SPLITS}))
    for name, corpus in ours.items()
  ]
  for title in columns[0]:
    rows.append([title, *(column[title] for column in columns)])
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def _agreement(ours: Corpus, theirs: Corpus) -> dict[str, str]:
  mine = {(x.source, x.target): (s, x) for s in SPLITS for x in ours[s]}
  other = {(x.source, x.target): (s, x) for s in SPLITS for x in theirs[s]}
  both = mine.keys() & other.keys()
  packages = {x.source_package for _, x in mine.values()}
  result = {
    'pairs here / there': f'{len(mine):,} / {len(other):,}',
    'pairs in both': f'{len(both):,}',
    '... in the same split': (
      f'{sum(mine[p][0] == other[p][0] for p in both):,}'
    ),
    '... of the same kind': (
      f'{sum(mine[p][1].kind == other[p][1].kind for p in both):,}'
    ),
    'sources in both': (
      f'{len({s for s, _ in mine} & {s for s, _ in other}):,}'
    ),
    'source packages in both': (
      f'{len(packages & {x.source_package for _, x in other.values()}):,}'
    ),
  }
  for split in SPLITS:
    known = {(x.source, x.target) for x in theirs[split]}
    result[f'their {split} pairs that are train pairs here'] = (
      f'{sum(mine[p][0] == TRAIN for p in known & mine.keys()):,}'
    )
  return result


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--compare', type=pathlib.Path, help='another build')
  arguments = parser.parse_args()

  corpora = read(arguments.folder)
  print(table(corpora))
  if arguments.compare:
    print('\n' + comparison(corpora, read(arguments.compare)))
  found = leaks(corpora)
  if found:
    print('\n'.join(found), file=sys.stderr)
    sys.exit(1)
  print('\nNo source, target, source package or family is in two splits.')


if __name__ == '__main__':
  main()
