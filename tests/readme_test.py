"""What the README tells a user to type is there."""

import pathlib
import re

import jax
import numpy as np
import pytest

from speccascade_jax import __main__ as commands
from speccascade_jax.launch import bindings

_ROOT = pathlib.Path(__file__).parents[1]
_TEXT = (_ROOT / 'README.md').read_text()
_BLOCKS = re.findall(r'(?ms)^```python\n(.*?)^```', _TEXT)


def _block(containing):
  (found,) = (block for block in _BLOCKS if containing in block)
  return found


def test_commands_and_files_exist():
  named = set(re.findall(r'speccascade ([a-z]+)[ `]', _TEXT))
  assert named == set(commands.COMMANDS)
  for target in set(re.findall(r'(?m)^make (\w+)', _TEXT)):
    assert f'\n{target}:' in (_ROOT / 'Makefile').read_text()
  # What lies under runs/ is written by the commands themselves.
  files = re.findall(r'(?:gin_file=|\]\()((?!https|FILE|runs/)[\w/.]+)', _TEXT)
  assert len(files) > 3
  assert [file for file in files if not (_ROOT / file).exists()] == []


def test_every_experiment_is_in_the_table_with_a_command_that_is_there():
  table = _TEXT.split('| experiment | command |')[1].split('\n\n')[0]
  rows = re.findall(r'(?m)^\| (`.*?) \| (.*?) \| (.+?) \| (.+?) \|$', table)
  named = {name for row in rows for name in re.findall(r'`(\w+)`', row[0])}
  folders = {f.name for f in (_ROOT / 'experiments').iterdir() if f.is_dir()}
  assert named == folders - {'corpora'}  # Which made the data that ship.
  for names, command, *_ in rows:
    assert re.match('`(make|speccascade|python|sh) ', command), names
    for file in re.findall(r'(?:gin_file=|python |sh )([\w/.]+)', command):
      assert (_ROOT / file).is_file(), file


@pytest.mark.parametrize('rule', bindings.RULES, ids=lambda r: r.__name__)
def test_every_rule_is_in_the_table(rule):
  assert f'`{rule.__name__}`' in _TEXT


def test_the_rule_of_ones_own_is_a_rule():
  names = {}
  exec(_block('def wary_diff'), names)
  q, p = np.array([0.4, 0.6]), np.array([0.1, 0.9])
  target = names['wary_diff'](q, p, q, p, 0.5)
  np.testing.assert_allclose(target.pi, q)
  target = names['wary_diff'](q, p, q, p, 0.2)
  np.testing.assert_allclose(target.pi, p)
  target = names['wary_diff'](q, p, q, p, 0.5, least=0.7)
  np.testing.assert_allclose(target.pi, p)


def test_the_five_lines_translate(capsys):
  exec(_block('temperature=0.0'), {})
  *_, efficiency = capsys.readouterr().out.split()
  assert 1.0 <= float(efficiency) <= 5.0


def test_the_checkpoint_of_ones_own_is_read_again(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  names = {}
  exec(_block('native.save'), names)
  config, params = names['native'].load('my_verifier')
  assert config == names['config']
  assert jax.tree.structure(params) == jax.tree.structure(names['params'])
