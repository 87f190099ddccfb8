"""Sources over prepared data: real files, or what to do without them."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import seqio
import tensorflow as tf

from speccascade_jax.data import prepared
from tests.data import tiny_sets

WMT14 = 'wmt14_translate/de-en'


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sets')
  tiny_sets.write(folder)
  return folder


@pytest.fixture(autouse=True)
def no_override(monkeypatch):
  monkeypatch.delenv('TFDS_DATA_DIR', raising=False)
  yield
  seqio.set_tfds_data_dir_override(None)


@pytest.fixture
def wmt14(sets, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(sets))
  return prepared.TfdsSource(WMT14, ('train', 'validation'))


@pytest.fixture
def mbpp(sets, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(sets))
  return source_of_mbpp()


def source_of_mbpp():
  return prepared.JsonLinesSource(
    'mbpp',
    'https://example.org/mbpp.jsonl',
    {'prompt': range(1, 11), 'test': range(11, 511)},
    number='task_id',
    features={
      'text': tf.TensorSpec([], tf.string),
      'test_list': tf.TensorSpec([None], tf.string),
    },
  )


def english(dataset):
  return [row['en'].decode() for row in dataset.as_numpy_iterator()]


def test_examples_are_those_of_the_files(wmt14):
  found = english(wmt14.get_dataset('train', shuffle=False))
  assert sorted(found) == [f'This is sentence {i} of train.' for i in range(9)]
  assert english(wmt14.get_dataset('train', shuffle=False)) == found
  assert wmt14.num_input_examples('train') == 9
  assert wmt14.splits == ('train', 'validation')
  assert [pathlib.Path(f).exists() for f in wmt14.list_shards('train')] == [
    True
  ]


def test_a_row_is_found_without_the_others(wmt14):
  rows = list(wmt14.get_dataset('train', shuffle=False).as_numpy_iterator())
  assert [wmt14.row('train', i) for i in range(9)] == rows


def test_the_newest_version_counts(wmt14, sets, tmp_path):
  newer = tmp_path / WMT14 / '1.2.0'
  shutil.copytree(sets / WMT14 / '1.0.0', newer)
  info = json.loads((newer / 'dataset_info.json').read_text())
  info['version'] = '1.2.0'
  (newer / 'dataset_info.json').write_text(json.dumps(info))
  # One that is begun and not done.
  (tmp_path / WMT14 / '1.3.0').mkdir()
  seqio.set_tfds_data_dir_override(str(tmp_path))
  assert '/1.2.0/' in wmt14.list_shards('train')[0]


def test_where_it_is_looked_for(sets, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  assert prepared.data_dir() == str(tmp_path / 'home' / 'tensorflow_datasets')
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'environment'))
  assert prepared.data_dir() == str(tmp_path / 'environment')
  seqio.set_tfds_data_dir_override(str(sets))
  assert prepared.data_dir() == str(sets)


@pytest.mark.parametrize('method', ['get_dataset', 'num_input_examples'])
def test_what_is_missing_names_the_command(tmp_path, monkeypatch, method):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  source = prepared.TfdsSource('xsum', ('train',), first='a file goes there')
  with pytest.raises(FileNotFoundError) as error:
    getattr(source, method)('train')
  assert str(error.value) == (
    f'The data set xsum is not in {tmp_path}: prepare it (a file goes there, '
    f'then `tfds build xsum --data_dir={tmp_path}`, which needs apache-beam, '
    'or `python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('xsum', data_dir='{tmp_path}').download_and_prepare()\"`), "
    'or say where it is with data_dir or TFDS_DATA_DIR.'
  )
  assert not list(tmp_path.iterdir())


def test_the_file_of_its_authors(mbpp):
  rows = list(mbpp.get_dataset('prompt', shuffle=False).as_numpy_iterator())
  assert len(rows) == mbpp.num_input_examples('prompt') == 10
  assert rows[3]['text'] == b'Write a function that adds 3 in prompt.'
  assert rows[3]['test_list'].tolist() == [
    b'assert add_3(1) == 4',
    b'assert add_3(0) == 3',
  ]
  row = mbpp.row('prompt', 3)
  assert row['text'] == rows[3]['text']
  assert row['test_list'].tolist() == rows[3]['test_list'].tolist()
  assert mbpp.num_input_examples('test') == 4


def test_a_missing_file_names_the_command(tmp_path):
  seqio.set_tfds_data_dir_override(str(tmp_path))
  path = tmp_path / 'mbpp' / 'mbpp.jsonl'
  with pytest.raises(FileNotFoundError) as error:
    source_of_mbpp().get_dataset('test')
  assert (
    f'`curl -L --create-dirs -o {path} https://example.org/mbpp.jsonl`'
    in str(error.value)
  )


@pytest.mark.parametrize(
  ('line', 'said'),
  [
    ('{"text": ', 'line 2, is not JSON'),
    ('{"task_id": 12, "text": "t"}', "line 2, has no 'test_list'"),
    ('[1]', r"line 2, is '\[1\]', not an object"),
    # Blank lines count.
    ('\n \n[1]', 'line 4, is'),
    ('{"task_id": 12, "text": 3, "test_list": []}', "'text': 3, no text"),
    (
      '{"task_id": 12, "text": "t", "test_list": "assert f()"}',
      r"line 2, has 'test_list': 'assert f\(\)', no list of texts",
    ),
    (
      '{"task_id": 12, "text": "t", "test_list": ["a", null]}',
      r"'test_list': \['a', None\], no list of texts",
    ),
    (
      '{"task_id": "12", "text": "t", "test_list": []}',
      "line 2, has 'task_id': '12', which is no whole number",
    ),
  ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
  good = json.dumps({'task_id': 11, 'text': 't', 'test_list': []})
  (tmp_path / 'mbpp').mkdir()
  (tmp_path / 'mbpp' / 'mbpp.jsonl').write_text(f'{good}\n{line}\n')
  seqio.set_tfds_data_dir_override(str(tmp_path))
  with pytest.raises(ValueError, match=said):
    source_of_mbpp().get_dataset('test')


def test_a_file_that_is_no_text_is_named(tmp_path):
  (tmp_path / 'mbpp').mkdir()
  (tmp_path / 'mbpp' / 'mbpp.jsonl').write_bytes(b'\xff')
  seqio.set_tfds_data_dir_override(str(tmp_path))
  with pytest.raises(ValueError, match=r'mbpp\.jsonl is no text in UTF-8'):
    source_of_mbpp().get_dataset('test')


def test_registering_reads_no_data_and_asks_no_host(tmp_path):
  code = """
import sys
import seqio

def hook(event, args):
  if event == 'socket.getaddrinfo' or (
    event == 'open' and str(args[0]).startswith(('gs:', sys.argv[1]))
  ):
    print(event, args)

sys.addaudithook(hook)
from speccascade_jax import data
print(len([n for n in seqio.TaskRegistry.names() if 'gemma' in n]))
"""
  done = subprocess.run(
    [sys.executable, '-c', code, str(tmp_path)],
    capture_output=True,
    text=True,
    env={**os.environ, 'TFDS_DATA_DIR': str(tmp_path)},
  )
  assert done.stdout == '16\n', done.stderr[-500:]
