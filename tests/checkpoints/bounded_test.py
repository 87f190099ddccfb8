"""Folders of some kilobytes that claim gigabytes: refused, and no crash.

What tensorstore takes is taken in C++, where Python counts nothing and a lack
of memory ends the process. So they are loaded in a process of their own.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import orbax.checkpoint as ocp
import pytest

from tests.checkpoints import mutation_test
from tests.checkpoints import t5x_test

# Prints what became of every folder, and by how many MB the peak rose.
_LOAD = """
import json, resource, sys
from speccascade_jax.checkpoints import errors, load

def peak():
  with open('/proc/self/status') as lines:
    return next(int(l.split()[1]) for l in lines if l.startswith('VmHWM')) >> 10

def mapped():
  with open('/proc/self/statm') as line:
    return int(line.read().split()[0]) * resource.getpagesize()

valid, *others = sys.argv[1:]
load.load(valid)  # What loading any of them takes is taken here.
# What is not refused shall not take the machine down with it.
resource.setrlimit(resource.RLIMIT_AS, (mapped() + 2**30,) * 2)
for folder in others:
  before = peak()
  try:
    load.load(folder)
    message = ''
  except errors.CheckpointError as error:
    message = str(error)
  print(json.dumps([folder, message, peak() - before]), flush=True)
"""


def _claim(folder, sizes, fill=True, chunks=False):
  """Other lengths in the place of some, in the metadata of all arrays.

  zarr's third version always has a fill value; in the second there may be one.
  """
  for path in [*folder.rglob('.zarray'), *folder.rglob('zarr.json')]:
    content = json.loads(path.read_text())
    content['shape'] = [sizes.get(n, n) for n in content['shape']]
    if chunks:
      content['chunks'][-1] = 2**28
    if fill and path.name == '.zarray':
      content['fill_value'] = 0.0
    path.write_text(json.dumps(content))
  return folder


def _write_orbax(folder, params, **options):
  """With a file for every array, so that its metadata are at hand."""
  tree = {'target': t5x_test.nested(params)}
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, **options)
  ocp.Checkpointer(handler).save(folder, ocp.args.PyTreeSave(tree))
  return folder


def _folders(tmp_path, params):
  """What is claimed -> a folder that does, of a gigabyte and more."""
  t5x, orbax = t5x_test.write, _write_orbax
  # A wide model of 400,000 tokens, and one that no memory holds.
  wide, endless = {8: 400_000, 4: 1000}, {8: 2 * 10**9}
  return {
    't5x': _claim(t5x(tmp_path / 'a', params), wide),
    't5x, endless': _claim(t5x(tmp_path / 'b', params), endless),
    't5x, not filled': _claim(t5x(tmp_path / 'c', params), endless, fill=False),
    't5x, chunks': _claim(t5x(tmp_path / 'd', params), {}, chunks=True),
    'orbax': _claim(orbax(tmp_path / 'e', params), wide),
    'orbax, zarr3': _claim(
      orbax(tmp_path / 'f', params, use_zarr3=True), endless
    ),
  }


@pytest.mark.skipif(
  not pathlib.Path('/proc/self/status').is_file(),
  reason='a process is told its memory under Linux only',
)
def test_claims_of_gigabytes_are_refused_within_little_memory(tmp_path):
  params = mutation_test.flat_params(mutation_test._T5)
  folders = _folders(tmp_path, params)
  valid = t5x_test.write(tmp_path / 'valid', params)
  run = subprocess.run(
    [sys.executable, '-c', _LOAD, str(valid), *map(str, folders.values())],
    check=True,
    capture_output=True,
    text=True,
    timeout=120,
  )
  found = [json.loads(line) for line in run.stdout.splitlines()]
  assert [folder for folder, *_ in found] == [str(f) for f in folders.values()]
  for name, (folder, message, taken_mb) in zip(folders, found, strict=True):
    assert folder in message and 'too few for arrays' in message, name
    assert taken_mb < 50, name
