"""Checkpoints at gs://, by the libraries' own drivers against a stand-in.

tensorstore speaks to a server on this machine that answers as Google's does,
and etils to a file system that fsspec takes for Google's.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import pathlib
import shutil
import threading
import urllib.parse

from etils.epath import backend
from flax import traverse_util
from fsspec.implementations import local
import numpy as np
import pytest

from speccascade_jax import loading
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax import zoo
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import load
from speccascade_jax.checkpoints import native
from speccascade_jax.checkpoints import tensorstore_source
from tests.checkpoints import mutation_test
from tests.checkpoints import t5x_test
from tests.checkpoints import vocabularies_test

_BUCKET = 'a-bucket'
_SPIECE = zoo.paths('debian')[2]


class _Requests(http.server.BaseHTTPRequestHandler):
  """What is asked of storage.googleapis.com to read objects and list them."""

  root: pathlib.Path
  wbufsize = -1  # Header and body in one packet.

  def do_GET(self):
    url = urllib.parse.urlsplit(self.path)
    _, _, name = url.path.partition(f'/storage/v1/b/{_BUCKET}/o')
    query = urllib.parse.parse_qs(url.query)
    if name:
      self._object(self.root / urllib.parse.unquote(name[1:]))
    else:
      self._list(query['startOffset'][0], query['endOffset'][0])

  def _object(self, file):
    if not file.is_file():
      self._answer(404, b'')
      return
    data, size, status = file.read_bytes(), file.stat().st_size, 200
    headers = {'x-goog-generation': '1'}
    if 'Range' in self.headers:
      first, last = self.headers['Range'].removeprefix('bytes=').split('-')
      begin = int(first) if first else size - int(last)
      end = min(size, int(last) + 1) if first and last else size
      data, status = data[begin:end], 206
      headers['Content-Range'] = f'bytes {begin}-{end - 1}/{size}'
    self._answer(status, data, headers)

  def _list(self, first, end):
    files = (p for p in self.root.rglob('*') if p.is_file())
    names = sorted(p.relative_to(self.root).as_posix() for p in files)
    found = [{'name': n, 'generation': '1'} for n in names if first <= n < end]
    self._answer(200, json.dumps({'items': found}).encode())

  def _answer(self, status, data, headers=None):
    self.send_response(status)
    for name, value in (
      {'Content-Length': len(data)} | (headers or {})
    ).items():
      self.send_header(name, str(value))
    self.end_headers()
    self.wfile.write(data)

  def log_message(self, *_):
    pass


class _Files(local.LocalFileSystem):
  """A folder in the place of a bucket; notes what is opened."""

  protocol = ('gs', 'gcs')
  root: pathlib.Path
  opened: list[str]

  @classmethod
  def _strip_protocol(cls, path):
    path = os.fspath(path).removeprefix(f'gs://{_BUCKET}')
    path = path.removeprefix(str(cls.root)).strip('/')
    return str(cls.root / path)

  def _open(self, path, mode='rb', **options):
    self.opened.append(path)
    return super()._open(path, mode, **options)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """The folder that is gs://a-bucket."""
  root = tmp_path / 'bucket'
  root.mkdir()
  handler = type('Handler', (_Requests,), {'root': root})
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  serve = functools.partial(server.serve_forever, poll_interval=0.01)
  threading.Thread(target=serve, daemon=True).start()
  monkeypatch.setenv(
    'TENSORSTORE_GCS_HTTP_URL', f'http://127.0.0.1:{server.server_port}'
  )
  monkeypatch.setenv('NO_GCE_CHECK', 'true')  # Who asks, it would look up.
  files = type('Files', (_Files,), {'root': root, 'opened': []})
  monkeypatch.setattr(backend.fsspec_backend, 'fs', lambda _: files())
  # With TensorFlow there, etils would take its file system instead.
  monkeypatch.setattr('etils.epath.gpath._is_tf_installed', lambda: False)
  yield root, files.opened
  server.shutdown()
  server.server_close()


def _write_files(folder, tensors):
  """Orbax with a file for every chunk, optimizer state included."""
  state = {'step': np.int32(3), 'mu': {'x': np.ones((2, 2), np.float32)}}
  tree = {'target': t5x_test.nested(tensors), 'state': state}
  t5x_test.ocp.PyTreeCheckpointer(use_ocdbt=False).save(folder, tree)
  return folder


def _there(path, root):
  return f'gs://{_BUCKET}/{path.relative_to(root)}'


@pytest.mark.parametrize(
  ('write', 'kind'),
  [
    (t5x_test.write, 't5x'),
    (t5x_test.write_orbax, 'orbax'),
    (_write_files, 'orbax'),
  ],
)
def test_a_step_in_a_bucket_is_the_same_as_here(
  write, kind, bucket, monkeypatch
):
  # Or files of so few bytes would not be counted.
  monkeypatch.setattr(tensorstore_source, '_ALWAYS_BYTES', 0)
  root, opened = bucket
  params = mutation_test.flat_params(mutation_test._T5)
  here = write(root / 'model', params)
  assert load.vocabulary_of(_there(here, root)) is None
  shutil.copy(_SPIECE, here)
  found = load.load(_there(here, root))
  assert found.format == kind and found.vocabulary is not None
  words = vocabularies.Vocabulary(_SPIECE)
  assert found.vocabulary.encode('a text') == words.encode('a text')
  assert found.vocabulary.marks == words.marks
  loaded = traverse_util.flatten_dict(found.params, sep='/')
  assert loaded.keys() == params.keys()
  for name, value in params.items():
    np.testing.assert_array_equal(loaded[name], value)
  # Neither takes optimizer state along, if it has files of its own.
  assert opened and not [path for path in opened if '/state.' in path]
  assert found.digest == load.digest(here)
  if write is _write_files:
    file = min(p for p in (here / 'state.mu.x').iterdir() if p.name[0] != '.')
    file.write_bytes(bytes(10))
    assert found.digest == load.digest(here)
  if kind == 't5x':
    shutil.rmtree(here / 'target.token_embedder.embedding')
    with pytest.raises(errors.CheckpointError, match=f'gs://{_BUCKET}/model'):
      load.config_of(_there(here, root))


@pytest.mark.parametrize('save', [huggingface.save, native.save])
def test_what_is_read_here_only_says_so(save, bucket):
  root, _ = bucket
  here = mutation_test.write_huggingface(mutation_test._T5, save)(root)
  for read in (load.load, load.config_of):
    with pytest.raises(
      errors.CheckpointError, match='not read in a bucket.*cp'
    ):
      read(_there(here, root))


def test_a_gguf_file_in_a_bucket_is_to_be_copied(bucket):
  root, _ = bucket
  (root / 'x.gguf').write_bytes(b'GGUF')
  for read in (load.load, load.vocabulary_of, load.read_vocabulary):
    with pytest.raises(errors.CheckpointError, match="'gguf', which is not"):
      read(f'gs://{_BUCKET}/x.gguf')


@pytest.mark.parametrize('what', ['words', 'words/tokenizer.json'])
def test_a_vocabulary_may_lie_there_by_itself(what, bucket, tmp_path):
  root, _ = bucket
  (root / 'words').mkdir()
  files = {'generation_config.json': {'eos_token_id': [1, 4]}}
  vocabularies_test.write_tokenizer(root / 'words', files)
  model = vocabularies_test.write_native(tmp_path / 'm')
  pair = loading.load_pair(verifier=model, vocabulary=f'gs://{_BUCKET}/{what}')
  assert pair.vocabulary.end_ids == (1, 4)
  assert pair.vocabulary.size == vocabularies_test.SMALL + 1


def test_no_vocabulary_there_is_one_error(bucket):
  root, _ = bucket
  (root / 'words').mkdir()
  for name in ('words', 'nowhere'):
    with pytest.raises(errors.CheckpointError, match=f'No voc.*{name}'):
      load.read_vocabulary(f'gs://{_BUCKET}/{name}')


def test_a_bucket_that_cannot_be_reached_says_so(bucket, monkeypatch):
  def refuse(path):
    raise RuntimeError(f'no credentials for {path}')

  monkeypatch.setattr(backend.fsspec_backend, 'fs', refuse)
  reads = (load.load, load.config_of, load.vocabulary_of, load.read_vocabulary)
  for read in reads:
    with pytest.raises(
      errors.CheckpointError, match='gs://b/x cannot.*no cred'
    ):
      read('gs://b/x')
