"""The commands keep compiled programs, unless the user says otherwise."""

import os
import subprocess
import sys

import jax
import pytest

from speccascade_jax.launch import compiled

_PROGRAM = """
import jax, logging
from jax import monitoring
from speccascade_jax.launch import compiled
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name))
compiled.keep()
jax.jit(lambda x: x * x + 1)(3.0)
print(jax.config.jax_compilation_cache_dir)
print(events.count('/jax/compilation_cache/cache_hits'))
"""


def _run(home, **settings):
  """The folder that a process with this home uses, and what it found there."""
  environment = {
    name: value for name, value in os.environ.items() if 'CACHE' not in name
  }
  environment |= {'HOME': str(home)} | settings
  done = subprocess.run(
    [sys.executable, '-c', _PROGRAM],
    capture_output=True,
    text=True,
    check=True,
    env=environment,
  )
  assert done.stderr == ''
  folder, hits = done.stdout.split()
  return folder, int(hits)


@pytest.fixture
def unset(monkeypatch):
  """As in a process where nobody has said anything about the cache."""
  names = (
    'jax_compilation_cache_dir',
    'jax_enable_compilation_cache',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update('jax_compilation_cache_dir', None)
  jax.config.update('jax_enable_compilation_cache', True)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def test_a_second_process_finds_what_the_first_has_compiled(tmp_path):
  folder, hits = _run(tmp_path)
  assert folder.startswith(str(tmp_path / '.cache' / 'speccascade_jax'))
  assert hits == 0
  assert _run(tmp_path) == (folder, hits + len(os.listdir(folder)))


def test_a_program_that_was_left_half_written_is_compiled_again(tmp_path):
  folder, _ = _run(tmp_path)
  for name in os.listdir(folder):
    path = os.path.join(folder, name)
    os.truncate(path, os.path.getsize(path) // 2)
  assert _run(tmp_path) == (folder, 0)  # And it says nothing.


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path, monkeypatch, unset):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  compiled.keep()
  assert jax.config.jax_compilation_cache_dir is None


def test_what_jax_was_told_stands(tmp_path, monkeypatch, unset):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  jax.config.update('jax_compilation_cache_dir', '/elsewhere')
  compiled.keep()
  assert jax.config.jax_compilation_cache_dir == '/elsewhere'
  jax.config.update('jax_compilation_cache_dir', None)
  jax.config.update('jax_enable_compilation_cache', False)
  compiled.keep()
  assert jax.config.jax_compilation_cache_dir is None
  assert not any(tmp_path.iterdir())


def test_the_oldest_programs_go_when_there_are_too_many(
  tmp_path, monkeypatch, unset
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(compiled, '_MOST_BYTES', 350)
  compiled.keep()
  folder = jax.config.jax_compilation_cache_dir
  for age, name in enumerate(('new', 'middle', 'old', 'oldest')):
    path = os.path.join(folder, name)
    with open(path, 'wb') as file:
      file.write(bytes(100))
    os.utime(path, (1000 - age, 1000 - age))
  jax.config.update('jax_compilation_cache_dir', None)
  compiled.keep()
  assert sorted(os.listdir(folder)) == ['new']
