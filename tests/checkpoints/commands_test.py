"""`speccascade generate` on every format, by the config that ships for it."""

import pathlib
import shutil

import pytest

from speccascade_jax import __main__ as commands
from speccascade_jax import zoo
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import load
from speccascade_jax.checkpoints import native
from tests.checkpoints import gguf_models_test
from tests.checkpoints import huggingface_test
from tests.checkpoints import load_test
from tests.checkpoints import t5x_test

_CONFIGS = pathlib.Path(__file__).parents[2] / 'configs/checkpoints'
_SPIECE = zoo.paths('debian')[2]


def _t5x(folder, name):
  return t5x_test.write(folder, t5x_test.tensors_of(name))


def _t5x_orbax(folder, name):
  return t5x_test.write_orbax(folder, t5x_test.tensors_of(name))


def _gemma_orbax(style):
  def write(folder, name):
    tensors = t5x_test.gemma_tensors(name, True)
    return t5x_test.write_gemma(folder, tensors, style)

  return write


def _sharded(folder, name):
  shutil.copytree(huggingface_test.GOLDENS / name, folder)
  shutil.copy(_SPIECE, folder / 'spiece.model')
  return folder


def _gguf(folder, name):
  folder.mkdir()
  return gguf_models_test.write(folder / 'model.gguf', name)


# Config -> writers of that format, with a model that has it.
_WRITERS = {
  'huggingface': [(_sharded, 'hf_t5_v1_1'), (_sharded, 'hf_gemma_3')],
  't5x': [(_t5x, 'hf_t5_v1_1'), (_t5x_orbax, 'hf_t5_v1_1')],
  'gemma_orbax': [
    (_gemma_orbax('nested'), 'hf_gemma_2'),
    (_gemma_orbax('flat'), 'hf_gemma_3'),
  ],
  'gguf': [(_gguf, 'hf_t5_v1_1'), (_gguf, 'hf_gemma_3')],
  'native': [
    (load_test._native, 'hf_t5_v1_1'),
    (load_test._native, 'hf_gemma_3'),
  ],
}


def test_there_is_a_writer_for_every_config():
  assert {path.stem for path in _CONFIGS.glob('*.gin')} == set(_WRITERS)


@pytest.mark.parametrize(
  ('config', 'write', 'name'),
  [(config, *case) for config, cases in _WRITERS.items() for case in cases],
)
def test_generate_decodes_what_the_original_does(
  config, write, name, tmp_path, capsys
):
  path = write(tmp_path / 'model', name)
  text = _text(config, path, capsys)
  assert text.strip()
  assert text == _text('native', _original(tmp_path, name, path), capsys)


def _original(folder, name, path):
  """Transformers' own weights, in a model of the shape that `path` tells.

  Orbax and GGUF do not say all that the tiny folder's config does: its window
  and its scale are no published ones.
  """
  _, params = huggingface.load(huggingface_test.GOLDENS / name)
  native.save(folder / 'original', load.config_of(path), params)
  return folder / 'original'


def _text(config, path, capsys):
  """What the command writes with a model for drafter and verifier."""
  file = _CONFIGS / f'{config}.gin'
  arguments = [
    f'--gin_file={file}',
    f'--gin.DRAFTER="{path}"',
    f'--gin.VERIFIER="{path}"',
    '--gin.generate.max_length=5',
  ]
  if '%VOCABULARY' in file.read_text():
    arguments.append(f'--gin.VOCABULARY="{_SPIECE}"')
  assert commands.main(['generate', *arguments, 'It is a text editor.']) == 0
  written = capsys.readouterr()
  assert len(written.out.splitlines()) == 1
  assert 'Traceback' not in written.err
  return written.out
