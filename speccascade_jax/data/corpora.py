"""The text pairs that ship with the package.

A corpus is three splits of two columns, `CORPUS.SPLIT.tsv.xz` (source, target),
each with a file of the same lines, `CORPUS.SPLIT.meta.tsv.xz`, that says where
a pair is from. README.md beside them has statistics, LICENSE their terms.
Only the standard library is needed here.
"""

from __future__ import annotations

import functools
import importlib.resources
import lzma
import pathlib
from typing import NamedTuple

CORPORA = ('debian_en_de', 'debian_synopsis')
SPLITS = ('train', 'validation', 'test')


class Pair(NamedTuple):
  """One line of a corpus."""

  source: str
  target: str


class Origin(NamedTuple):
  """Where a pair is from."""

  package: str  # Binary package, the key of its debian/copyright.
  source_package: str
  family: str  # Source packages that are kept in one split.
  kind: str  # sentence, synopsis, item or paragraph.
  # Share of the source's 4-grams that one train source has; None in train.
  overlap: float | None


def directory() -> pathlib.Path:
  """The folder of the corpora that ship with the package."""
  # By path, since TensorFlow and sentencepiece read files, not resources.
  return pathlib.Path(str(importlib.resources.files(__package__))) / 'corpora'


def path(
  corpus: str,
  split: str,
  *,
  meta: bool = False,
  folder: pathlib.Path | None = None,
) -> pathlib.Path:
  """The file of a split.

  Args:
    corpus: one of `CORPORA`.
    split: one of `SPLITS`.
    meta: the file of origins instead of that of pairs.
    folder: another build of the corpora; by default those of the package.

  Raises:
    ValueError: if there is no such corpus or split.
    FileNotFoundError: if its file is missing.
  """
  if corpus not in CORPORA:
    raise ValueError(f'No corpus {corpus!r}; there are {", ".join(CORPORA)}.')
  if split not in SPLITS:
    raise ValueError(
      f'{corpus} has no split {split!r}, only {", ".join(SPLITS)}.'
    )
  suffix = 'meta.tsv.xz' if meta else 'tsv.xz'
  found = (folder or directory()) / f'{corpus}.{split}.{suffix}'
  if not found.is_file():
    raise FileNotFoundError(
      f'{found} is missing. The corpora are part of the package: install it '
      'again, or build them with experiments/corpora.'
    )
  return found


@functools.cache
def read(
  corpus: str, split: str, *, folder: pathlib.Path | None = None
) -> tuple[Pair, ...]:
  """The pairs of a split, in the order of the file; read once.

  Args:
    corpus: one of `CORPORA`.
    split: one of `SPLITS`.
    folder: as in `path`.

  Raises:
    ValueError: if there is no such corpus or split, or its file is damaged.
    FileNotFoundError: if its file is missing.
  """
  file = path(corpus, split, folder=folder)
  return tuple(Pair(*fields) for fields in _rows(file, 2))


def read_origins(
  corpus: str, split: str, *, folder: pathlib.Path | None = None
) -> tuple[Origin, ...]:
  """Where the pairs of `read` are from, line by line; raises as `read`."""
  file = path(corpus, split, meta=True, folder=folder)
  return tuple(
    Origin(package, source_package, family, kind, float(o) if o else None)
    for package, source_package, family, kind, o in _rows(file, 5)
  )


def _rows(file: pathlib.Path, columns: int) -> list[list[str]]:
  try:
    text = lzma.decompress(file.read_bytes()).decode('utf-8')
  except (lzma.LZMAError, UnicodeDecodeError) as error:
    raise ValueError(
      f'{file} is truncated or damaged ({error}); install the package again.'
    ) from error
  # Not splitlines: it also ends lines at U+2028 and its like.
  rows = [line.split('\t') for line in text.removesuffix('\n').split('\n')]
  for number, fields in enumerate(rows, start=1):
    if len(fields) != columns:
      raise ValueError(
        f'{file}, line {number} has {len(fields)} columns, not {columns}.'
      )
  return rows
