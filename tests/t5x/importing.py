"""T5X where it is; what needs it is skipped, and says so, where it is not."""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
import sys

import pytest

STAND_INS = pathlib.Path(__file__).parent / 'stand_ins'
# What T5X mentions and no test calls; as T5X, they come from git alone.
_SPARED = ('airio', 'jestimator')
# The programs, and what only they import.
_NEEDED = ('t5x.infer', 'fiddle')


def require() -> None:
  """Skips a test, or a whole file of tests, where T5X is not installed.

  So it does where T5X lacks something of its own. Any other failure to import
  is one of the test: T5X is there, and does not go with what is.
  """
  if any(importlib.util.find_spec(name) is None for name in _SPARED):
    # At the end: whatever of them is installed goes before.
    sys.path.append(str(STAND_INS))
  for name in _NEEDED:
    try:
      importlib.import_module(name)
    except ModuleNotFoundError as error:
      missing = str(error.name).split('.')[0]
      if importlib.util.find_spec(missing) is not None:
        raise  # A part of a package that is installed, ours among them.
      pytest.skip(
        f'T5X cannot be imported without {missing}; see "Inside T5X" in the '
        'README',
        allow_module_level=True,
      )
