"""The shipped corpora: whole, without leaks, and errors that say what broke."""

import collections
import itertools
import shutil

import pytest

from speccascade_jax.data import corpora

# As issue and README.md have them.
SIZES = {
  'debian_en_de': {'train': 36_904, 'validation': 1_500, 'test': 1_500},
  'debian_synopsis': {'train': 53_284, 'validation': 1_500, 'test': 1_500},
}
FIELDS = ('source', 'target', 'source_package', 'family')


def column(corpus, split, field):
  if field in corpora.Pair._fields:
    rows = corpora.read(corpus, split)
  else:
    rows = corpora.read_origins(corpus, split)
  return [getattr(row, field) for row in rows]


def shared(one, other):
  """Values that both have, whatever their case."""
  return {v.casefold() for v in one} & {v.casefold() for v in other}


@pytest.mark.parametrize('corpus', corpora.CORPORA)
def test_sizes_and_lines_agree_with_the_meta_files(corpus):
  for split, size in SIZES[corpus].items():
    pairs = corpora.read(corpus, split)
    origins = corpora.read_origins(corpus, split)
    assert len(pairs) == len(origins) == size
    assert all(pair.source.strip() and pair.target.strip() for pair in pairs)
    held_out = split != 'train'
    assert all((o.overlap is not None) == held_out for o in origins)
    assert {o.kind for o in origins} <= {
      'sentence',
      'synopsis',
      'item',
      'paragraph',
    }


@pytest.mark.parametrize('field', FIELDS)
@pytest.mark.parametrize('corpus', corpora.CORPORA)
def test_no_leak_between_splits(corpus, field):
  for one, other in itertools.combinations(corpora.SPLITS, 2):
    leaks = shared(column(corpus, one, field), column(corpus, other, field))
    assert not leaks, (one, other, sorted(leaks)[:5])


def test_no_family_held_out_of_one_corpus_is_trained_on_in_the_other():
  # One model may serve both tasks.
  for one, other in itertools.permutations(corpora.CORPORA, 2):
    train = column(one, 'train', 'family')
    for split in ('validation', 'test'):
      assert not shared(train, column(other, split, 'family'))


def test_the_leak_check_sees_another_case():
  assert shared(['A package.'], ['a PACKAGE.', 'b']) == {'a package.'}


def test_sources_are_not_repeated():
  for corpus, split in itertools.product(corpora.CORPORA, corpora.SPLITS):
    counts = collections.Counter(column(corpus, split, 'source'))
    assert counts.most_common(1)[0][1] == 1, (corpus, split)


def test_package_data_is_small_and_has_its_licence():
  files = [file for file in corpora.directory().iterdir() if file.is_file()]
  assert sum(file.stat().st_size for file in files) < 6 * 2**20
  text = (corpora.directory() / 'LICENSE').read_text()
  assert "package's free" in text and 'no warranty' in text


def test_unknown_names_are_told():
  with pytest.raises(ValueError, match="'debian_fr'.*debian_en_de"):
    corpora.path('debian_fr', 'train')
  with pytest.raises(ValueError, match="'dev'.*validation"):
    corpora.path('debian_en_de', 'dev')


@pytest.fixture
def copied(tmp_path):
  for name in ('tsv.xz', 'meta.tsv.xz'):
    file = f'debian_en_de.test.{name}'
    shutil.copy(corpora.directory() / file, tmp_path / file)
  return tmp_path


def test_missing_file(copied):
  with pytest.raises(FileNotFoundError, match='debian_en_de.train.tsv.xz is'):
    corpora.read('debian_en_de', 'train', folder=copied)


def test_truncated_file(copied):
  assert len(corpora.read('debian_en_de', 'test', folder=copied)) == 1_500
  file = copied / 'debian_en_de.test.tsv.xz'
  file.write_bytes(file.read_bytes()[:-1000])
  corpora.read.cache_clear()
  with pytest.raises(ValueError, match=r'test\.tsv\.xz is truncated'):
    corpora.read('debian_en_de', 'test', folder=copied)


def test_damaged_file(copied):
  file = copied / 'debian_en_de.test.tsv.xz'
  data = bytearray(file.read_bytes())
  data[5000] ^= 0xFF
  file.write_bytes(data)
  with pytest.raises(ValueError, match=r'test\.tsv\.xz is truncated or dam'):
    corpora.read('debian_en_de', 'test', folder=copied)


def test_another_number_of_columns(copied):
  # The file of origins in place of that of pairs.
  shutil.copy(
    copied / 'debian_en_de.test.meta.tsv.xz',
    copied / 'debian_en_de.test.tsv.xz',
  )
  with pytest.raises(ValueError, match='line 1 has 5 columns, not 2'):
    corpora.read('debian_en_de', 'test', folder=copied)
