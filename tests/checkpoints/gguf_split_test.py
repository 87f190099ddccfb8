"""Models that gguf-split has cut into several files."""

from __future__ import annotations

import shutil

import gguf
import jax
import numpy as np
import pytest

from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import gguf_file
from speccascade_jax.checkpoints import gguf_models
from speccascade_jax.checkpoints import load
from tests.checkpoints import gguf_models_test


@pytest.fixture(scope='module')
def originals(tmp_path_factory):
  """A Gemma in one file, and in three."""
  folder = tmp_path_factory.mktemp('split')
  whole = gguf_models_test.write(folder / 'whole.gguf', 'hf_gemma_3')
  names = gguf_file.File(whole).shapes
  gguf_models_test.write(
    folder / 'm.gguf', 'hf_gemma_3', split_max_tensors=-(-len(names) // 3)
  )
  return whole, [folder / f'm-0000{i}-of-00003.gguf' for i in (1, 2, 3)]


@pytest.fixture
def parts(originals, tmp_path):
  return [shutil.copy(path, tmp_path / path.name) for path in originals[1]]


def test_every_part_opens_the_whole_model(originals, parts):
  whole = gguf_models.load(originals[0])
  metadata, digest = gguf_file.File(parts[0]).metadata, load.digest(parts[0])
  for part in parts:
    assert load.format_of(part) == 'gguf'
    found = load.load(part)
    assert found.config == whole[0] == gguf_models.read_config(part)
    jax.tree.map(np.testing.assert_array_equal, found.params, whole[1])
    assert found.vocabulary.encode('a text') == whole[2].encode('a text')
    assert gguf_file.File(part).metadata == metadata
    assert found.digest == digest
  # None of them has all of it.
  assert all(len(gguf_file._Part(part).tensors) < 20 for part in parts)


@pytest.mark.parametrize('changed', [0, 1, 2])
def test_the_digest_is_that_of_all_parts(changed, parts):
  before = load.digest(parts[0])
  data = bytearray(parts[changed].read_bytes())
  data[-1] ^= 1
  parts[changed].write_bytes(bytes(data))
  assert load.digest(parts[0]) != before


def _fails(path, *messages):
  with pytest.raises(errors.CheckpointError) as error:
    load.load(path)
  for message in map(str, messages):
    assert message in str(error.value), str(error.value)


@pytest.mark.parametrize('gone', [0, 1, 2])
def test_a_part_that_is_missing_is_named(gone, parts):
  parts[gone].unlink()
  given = parts[(gone + 1) % 3]
  number = parts.index(given) + 1
  _fails(given, given, f'part {number} of 3', f'{parts[gone]} is missing')


def _foreign(name, path, **options):
  """A part of another model, in the place of one of this."""
  folder = path.parent / 'other'
  folder.mkdir()
  gguf_models_test.write(folder / 'm.gguf', name, **options)
  return sorted(folder.iterdir())


def test_a_part_of_another_model_is_named(parts):
  others = _foreign('hf_gemma_1', parts[0], split_max_tensors=5)
  # The third of five, and then one of as many but with fewer tensors.
  shutil.copy(others[2], parts[2])
  _fails(parts[0], f'{parts[2]} is not part 3 of the same model')


def test_a_whole_model_in_the_place_of_a_part_is_named(originals, parts):
  shutil.copy(originals[0], parts[1])
  _fails(parts[0], f'{parts[1]} is not part 2 of', 'part 1 of 1')


def test_a_part_twice_is_named(parts):
  shutil.copy(parts[1], parts[2])
  _fails(parts[0], f'{parts[2]} is not part 3 of', 'part 2 of 3')


def _renumbered(path, **split):
  """A file without tensors, with other metadata on which part it is."""
  writer = gguf.GGUFWriter(str(path), 'gemma3')
  writer.add_uint16('split.no', split['no'])
  writer.add_uint16('split.count', split['count'])
  writer.add_int32('split.tensors.count', split['tensors'])
  for name in split.get('names', ()):
    writer.add_tensor(name, np.zeros(2, np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def test_tensors_that_are_there_twice_or_missing_are_told(tmp_path, parts):
  total = gguf_file.File(parts[0]).metadata['split.tensors.count']
  place = {'no': 2, 'count': 3, 'tensors': total}
  _renumbered(parts[2], **place)
  _fails(parts[0], f'not the {total} that their metadata say')
  first = next(iter(gguf_file._Part(parts[0]).tensors))
  _renumbered(parts[2], **place, names=[first])
  _fails(parts[0], f'{parts[2]} has {first}, which {parts[0]} has, too')


def test_a_part_under_another_name_says_how_it_has_to_be_called(parts):
  path = parts[0].with_name('mine.gguf')
  parts[0].rename(path)
  _fails(path, 'is part 1 of 3', 'does not end in -00001-of-00003.gguf')
  # Or by the number of another.
  parts[1].rename(parts[0])
  _fails(parts[0], 'is part 2 of 3', 'does not end in -00002-of-00003.gguf')


@pytest.mark.parametrize('add', ['add_string', 'add_float32'])
def test_numbers_that_are_none_are_told(add, tmp_path):
  path = tmp_path / 'x.gguf'
  writer = gguf.GGUFWriter(str(path), 'gemma3')
  getattr(writer, add)('split.count', '3' if add == 'add_string' else 3.5)
  writer.add_tensor('a', np.zeros(2, np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  _fails(path, path, 'says that it is part 0 of')


def test_a_whole_model_may_be_called_like_a_part(originals, tmp_path):
  path = shutil.copy(originals[0], tmp_path / 'm-00001-of-00003.gguf')
  assert load.load(path).digest == load.digest(path)
