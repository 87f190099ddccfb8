"""T5X where it is; what needs it is skipped, and says so, where it is not."""

from __future__ import annotations

import importlib.util
import pathlib
import sys

import pytest

STAND_INS = pathlib.Path(__file__).parent / 'stand_ins'
# What T5X mentions and no test calls; as T5X, they come from git alone.
_SPARED = ('airio', 'jestimator')


def require() -> None:
  """Skips a test, or a whole file of tests, where T5X cannot be imported."""
  if any(importlib.util.find_spec(name) is None for name in _SPARED):
    # At the end: whatever of them is installed goes before.
    sys.path.append(str(STAND_INS))
  pytest.importorskip(
    't5x.infer',
    reason='T5X cannot be imported; see "Inside T5X" in the README',
    exc_type=ImportError,
  )
  # What only its programs import.
  pytest.importorskip('fiddle', reason="T5X's infer.py and eval.py need fiddle")
