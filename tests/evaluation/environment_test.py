import json
import os
import subprocess

import jax

from speccascade_jax.evaluation import environment


def _git(folder, *arguments):
  identity = ['-c', 'user.name=a', '-c', 'user.email=a@b.c']
  result = subprocess.run(
    ['git', *identity, *arguments],
    cwd=folder,
    check=True,
    capture_output=True,
    text=True,
  )
  return result.stdout.strip()


def test_commit_is_that_of_the_checkout_and_says_when_it_was_changed(tmp_path):
  _git(tmp_path, 'init', '-q')
  (tmp_path / 'file').write_text('a')
  _git(tmp_path, 'add', 'file')
  _git(tmp_path, 'commit', '-q', '-m', 'a')
  # A tag must not take the place of the hash.
  _git(tmp_path, 'tag', '-a', 'v1', '-m', 'v1')
  head = _git(tmp_path, 'rev-parse', 'HEAD')
  assert environment.commit(tmp_path) == head
  (tmp_path / 'file').write_text('b')
  assert environment.commit(tmp_path) == f'{head}-dirty'


def test_a_folder_inside_of_another_repository_has_no_commit(tmp_path):
  _git(tmp_path, 'init', '-q')
  (tmp_path / 'inside').mkdir()
  assert environment.commit(tmp_path / 'inside') is None


def test_circumstances_are_json_and_name_what_computes():
  found = json.loads(json.dumps(environment.circumstances()))
  assert found['versions']['jax'] == jax.__version__
  assert found['created'].endswith('+00:00')
  assert found['host'] == os.uname().nodename


def test_device_tells_how_many_and_which():
  count, _, kind = environment.device().partition(' x ')
  assert int(count) >= 1
  assert kind
