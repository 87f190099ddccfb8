"""What is skipped for want of T5X, and what is not."""

from __future__ import annotations

import sys

import pytest

from tests.t5x import importing


@pytest.fixture
def infer(tmp_path, monkeypatch):
  """Writes T5X's infer.py, in place of the real one."""
  for name in [n for n in sys.modules if n.split('.')[0] == 't5x']:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
  (tmp_path / 't5x').mkdir()
  (tmp_path / 't5x' / '__init__.py').touch()
  (tmp_path / 'fiddle.py').touch()
  yield (tmp_path / 't5x' / 'infer.py').write_text
  for name in ('t5x', 't5x.infer', 'fiddle'):
    sys.modules.pop(name, None)


def test_a_package_that_is_not_installed_is_skipped_by_name(infer):
  infer('import a_package_from_git.part')
  with pytest.raises(pytest.skip.Exception, match='a_package_from_git'):
    importing.require()


@pytest.mark.parametrize(
  'line',
  [
    'import speccascade_jax.no_such_part',
    'from speccascade_jax import no_such_name',
    'from jax import no_such_name',
  ],
)
def test_any_other_import_that_fails_is_no_reason_to_skip(line, infer):
  infer(line)
  with pytest.raises(ImportError, match='no_such'):
    importing.require()


def test_what_can_be_imported_is_not_skipped(infer):
  infer('')
  importing.require()
