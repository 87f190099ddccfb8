"""The registered tasks, through seqio alone."""

import shutil
import subprocess
import sys

import pytest
import seqio

from speccascade_jax import zoo
from speccascade_jax.data import corpora
from speccascade_jax.data import debian
from speccascade_jax.data import source

EN_DE = 'debian_en_de'


def texts(dataset):
  rows = dataset.as_numpy_iterator()
  return [(r['source'].decode(), r['target'].decode()) for r in rows]


def lines(split='test'):
  return [tuple(pair) for pair in corpora.read(EN_DE, split)]


@pytest.fixture(scope='module')
def en_de():
  return source.CorpusDataSource(EN_DE)


def test_source_is_the_file_in_its_order(en_de):
  assert texts(en_de.get_dataset('test', shuffle=False)) == lines()
  assert en_de.num_input_examples('test') == 1500
  assert en_de.splits == corpora.SPLITS


@pytest.mark.parametrize('hosts', [2, 3])
def test_hosts_share_the_source(en_de, hosts):
  assert len(en_de.list_shards('test')) >= hosts
  parts = [
    texts(
      en_de.get_dataset(
        'test', shuffle=False, shard_info=seqio.ShardInfo(i, hosts)
      )
    )
    for i in range(hosts)
  ]
  # Sources are all different, so that equal length means a partition.
  assert sum(map(len, parts)) == 1500
  assert set().union(*parts) == set(lines())
  sizes = [len(part) for part in parts]
  assert max(sizes) - min(sizes) <= 1500 // 64 + 1
  if hosts == 2:
    assert parts == [lines()[0::2], lines()[1::2]]


def test_hosts_share_the_task_and_the_source_is_what_is_sharded():
  task = seqio.get_mixture_or_task(EN_DE)
  parts = [
    task.get_dataset(
      None, 'test', shuffle=False, shard_info=seqio.ShardInfo(i, 2)
    )
    for i in range(2)
  ]
  rows = [[r['source'].decode() for r in p.as_numpy_iterator()] for p in parts]
  assert rows[0] == [s for s, _ in lines()][0::2]
  assert rows[1] == [s for s, _ in lines()][1::2]


def test_too_few_shards_for_the_hosts():
  few = source.CorpusDataSource(EN_DE, num_shards=2)
  with pytest.raises(ValueError, match='too few files'):
    few.get_dataset('test', shard_info=seqio.ShardInfo(0, 3))


def test_shuffle_depends_on_the_seed_and_loses_nothing(en_de):
  one, again, other = (
    texts(en_de.get_dataset('test', shuffle=True, seed=seed))
    for seed in (1, 1, 2)
  )
  assert one == again != other
  assert sorted(one) == sorted(other) == sorted(lines())


def test_missing_and_truncated_files(tmp_path):
  for file in corpora.directory().glob(f'{EN_DE}.*.xz'):
    shutil.copy(file, tmp_path)
  damaged = tmp_path / f'{EN_DE}.validation.tsv.xz'
  damaged.write_bytes(damaged.read_bytes()[:4000])
  made = source.CorpusDataSource(EN_DE, folder=tmp_path)
  assert len(texts(made.get_dataset('test'))) == 1500
  with pytest.raises(ValueError, match='validation.tsv.xz is truncated'):
    made.get_dataset('validation')
  damaged.unlink()
  with pytest.raises(FileNotFoundError, match='validation.tsv.xz is missing'):
    source.CorpusDataSource(EN_DE, folder=tmp_path)


@pytest.mark.parametrize('name', debian.PREFIXES)
def test_an_example_of_each_task(name):
  task = seqio.get_mixture_or_task(name)
  assert tuple(task.splits) == corpora.SPLITS
  row = next(task.get_dataset(None, 'test', shuffle=False).as_numpy_iterator())
  pair = corpora.read(name, 'test')[0]
  vocabulary = task.output_features['inputs'].vocabulary
  prefixed = debian.PREFIXES[name] + pair.source
  assert row['inputs_pretokenized'].decode() == prefixed
  assert row['targets_pretokenized'].decode() == pair.target
  assert row['inputs'].tolist() == vocabulary.encode(prefixed) + [1]
  assert row['targets'].tolist() == vocabulary.encode(pair.target) + [1]


def test_what_is_cut_still_ends():
  task = seqio.get_mixture_or_task('debian_synopsis')
  lengths = {'inputs': 16, 'targets': 4}
  dataset = task.get_dataset(lengths, 'test', shuffle=False).take(20)
  for row in dataset.as_numpy_iterator():
    assert len(row['inputs']) <= 16 and len(row['targets']) <= 4
    assert row['inputs'][-1] == row['targets'][-1] == 1


def test_a_continuation_is_what_follows_the_first_words():
  task = seqio.get_mixture_or_task('debian_continuation')
  dataset = task.get_dataset(None, 'test', shuffle=False)
  sources = [pair.source for pair in corpora.read('debian_synopsis', 'test')]
  counts = []
  for row, whole in zip(dataset.as_numpy_iterator(), sources, strict=True):
    prompt = row['inputs_pretokenized'].decode()
    rest = row['targets_pretokenized'].decode()
    assert prompt + rest == whole
    assert not rest or rest[0] == ' '
    counts.append((len(prompt.split()), bool(rest)))
  # Eight words, and all of a text that has no more.
  assert {count for count, more in counts if more} == {8}
  assert max(count for count, more in counts if not more) <= 8
  assert sum(more for _, more in counts) > 1450


def test_metrics_are_the_tasks():
  names = {
    name: {
      key
      for metric_fn in seqio.get_mixture_or_task(name).metric_fns
      for key in metric_fn(['ein Text'], ['ein Text'])
      if not key.endswith('_signature')
    }
    for name in debian.PREFIXES
  }
  assert names == {
    'debian_en_de': {'bleu', 'chrf'},
    'debian_synopsis': {'rouge1', 'rouge2', 'rougeL'},
  }


def test_seqio_mixes_both_tasks():
  mixture = seqio.get_mixture_or_task('debian')
  lengths = {'inputs': 64, 'targets': 32}
  dataset = mixture.get_dataset(lengths, 'validation', seed=0).take(200)
  firsts = [row['inputs'][0] for row in dataset.as_numpy_iterator()]
  assert set(firsts) == {3, 4}
  assert 60 < firsts.count(3) < 140


def test_the_core_needs_neither_tensorflow_nor_seqio():
  code = (
    'import sys, speccascade_jax\n'
    "print(sorted({'tensorflow', 'seqio'} & set(sys.modules)))"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout == '[]\n'


def test_prefixes_of_the_shipped_pairs_are_those_of_their_tasks():
  assert set(zoo.PREFIXES) == set(zoo.names())
  for prefixes in zoo.PREFIXES.values():
    assert prefixes == debian.PREFIXES
