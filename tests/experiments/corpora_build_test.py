"""The build as a whole, and the checker of what it wrote."""

import lzma
import pathlib
import random
import re

import pytest

from experiments.corpora import build
from experiments.corpora import check
from experiments.corpora import split
from tests.experiments import index_files


def _synthetic_index(folder, seed):
  """120 packages in an order of chance; their texts are the same each time."""
  packages, english, german = [], [], []
  for i in range(120):
    word = f'q{chr(97 + i % 26)}{chr(97 + i // 26)}'
    name = f'{word}tool'
    packages.append(
      f'Package: {name}\nDescription-md5: {i:x}\n'
      f'Homepage: https://{word}.example.org/\n'
    )
    english.append(
      f'Package: {name}\nDescription-md5: {i:x}\n'
      f'Description-en: tool {word} for writing letters\n'
      f' The tool {word} writes letters to {word}\n friends.\n .\n'
      f' Do use {word} often.\n .\n This package has the program itself.\n'
    )
    german.append(
      f'Package: {name}\nDescription-md5: {i:x}\n'
      f'Description-de: Werkzeug {word} zum Schreiben von Briefen\n'
      f' Das Werkzeug {word} schreibt Briefe an\n {word}-Freunde.\n .\n'
      f' Benutzen Sie {word} oft.\n .\n Dieses Paket hat das Programm.\n'
    )
  shuffle = random.Random(seed).shuffle
  for stanzas in (packages, english, german):
    shuffle(stanzas)
  names = ('Packages', 'Translation-en', 'Translation-de')
  texts = ('\n'.join(stanzas) for stanzas in (packages, english, german))
  return index_files.write(folder, dict(zip(names, texts, strict=True)))


def _built(tmp_path, seed):
  """The folder of a build, and what the build said of it."""
  index = _synthetic_index(tmp_path / f'index{seed}', seed)
  limits = split.Limits({'test': 20, 'validation': 15}, 30)
  found, own, log = build.corpora(index, limits=limits)
  folder = tmp_path / f'corpora{seed}'
  for corpus, parts in found.items():
    build.write(folder, corpus, parts, own)
  return folder, log


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  return _built(tmp_path_factory.mktemp('built'), 0)


def test_a_rebuild_is_byte_identical(built, tmp_path):
  folder, log = built
  again, log_again = _built(tmp_path, 1)
  files = sorted(path.name for path in folder.iterdir())
  assert len(files) == 12  # Two corpora, three splits, pairs and meta.
  assert files == sorted(path.name for path in again.iterdir())
  assert (tmp_path / 'index1/Packages').read_text() != (
    folder.parent / 'index0/Packages'
  ).read_text()
  for name in files:
    assert (folder / name).read_bytes() == (again / name).read_bytes(), name
  assert log == log_again
  assert '120 English descriptions, 120 of them in de' in log


def test_build_writes_splits_without_leaks(built):
  corpora = check.read(built[0])
  assert set(corpora) == {'debian_en_de', 'debian_synopsis'}
  translations = corpora['debian_en_de']
  assert [len(translations[name]) for name in split.SPLITS] == [
    # Three of each package's four pairs are its own.
    85 * 3 + 1,
    30,
    30,
  ]
  assert {line.overlap for line in translations['train']} == {''}
  assert all(0 <= float(x.overlap) <= 1 for x in translations['test'])
  assert check.leaks(corpora) == []
  table = check.table(corpora)
  assert '256 / 30 / 30' in table
  assert re.search(r'families \| 85 / \d+ / \d+ \|', table)


@pytest.mark.parametrize(
  'field', ['source', 'target', 'source_package', 'family']
)
def test_check_would_catch_a_leak(built, field):
  corpora = check.read(built[0])
  text = getattr(corpora['debian_en_de']['train'][0], field)
  test = corpora['debian_en_de']['test']
  test[0] = test[0]._replace(**{field: text.upper()})
  (leak,) = check.leaks(corpora)
  assert field in leak and repr(text.casefold()) in leak
  assert 'is in train and in test' in leak


def test_check_refuses_files_that_do_not_belong_together(built, tmp_path):
  for path in built[0].iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  meta = tmp_path / 'debian_en_de.test.meta.tsv.xz'
  lines = lzma.decompress(meta.read_bytes()).splitlines(keepends=True)
  meta.write_bytes(lzma.compress(b''.join(lines[:-1])))
  with pytest.raises(ValueError, match='30 pairs, but 29 lines'):
    check.read(tmp_path)
  with pytest.raises(FileNotFoundError, match='No corpora'):
    check.read(pathlib.Path(tmp_path / 'nowhere'))


def test_comparison_of_a_build_with_itself(built):
  corpora = check.read(built[0])
  table = check.comparison(corpora, corpora)
  number = sum(len(part) for part in corpora['debian_en_de'].values())
  assert f'| pairs here / there | {number} / {number} |' in table
  assert f'| ... in the same split | {number} |' in table
  assert '| their test pairs that are train pairs here | 0 | 0 |' in table
