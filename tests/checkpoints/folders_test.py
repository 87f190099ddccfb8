"""Folders with what is no file, or none that is read: one error says which."""

import os
import shutil

import pytest

from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import load
from tests.checkpoints import huggingface_test


@pytest.fixture
def folder(tmp_path):
  golden = huggingface_test.GOLDENS / 'hf_t5_v1_0'
  return shutil.copytree(golden, tmp_path / 'model')


@pytest.mark.parametrize('name', ['config.json', 'tokenizer.json', 'notes'])
@pytest.mark.parametrize(
  'read', [load.load, load.config_of, load.vocabulary_of]
)
def test_a_pipe_is_told_and_not_waited_for(read, name, folder):
  path = folder / name
  path.unlink(missing_ok=True)
  os.mkfifo(path)
  with pytest.raises(
    errors.CheckpointError, match=f'{path} .* neither a file nor a folder'
  ):
    read(folder)


def test_a_link_to_nothing_is_told_with_its_target(folder):
  # As a hub's cache looks whose blobs were removed.
  path = folder / 'model.safetensors'
  path.unlink()
  path.symlink_to('../blobs/0123')
  with pytest.raises(
    errors.CheckpointError, match=f'{path} .* a link to ../blobs/0123, where no'
  ):
    load.load(folder)


def test_pickles_alone_are_told_why_they_are_not_read(tmp_path):
  (tmp_path / 'pytorch_model-00001-of-00002.bin').write_bytes(b'PK')
  with pytest.raises(
    errors.CheckpointError, match=f'{tmp_path}: .*unpickling.*AutoModelForSeq2'
  ):
    load.load(tmp_path)
