"""Starting libraries without what they print while they start."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import sys

_ENVIRONMENT = {
  'TF_CPP_MIN_LOG_LEVEL': '3',
  # Also keeps TensorFlow's results independent of the processor.
  'TF_ENABLE_ONEDNN_OPTS': '0',
  # TensorFlow's file system would ask the network whether this is a cloud VM.
  'NO_GCE_CHECK': 'true',
}


def set_environment() -> None:
  """Before TensorFlow is imported; what a user has set stands."""
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)


def import_seqio() -> None:
  """Imports seqio, TensorFlow and the tasks that ship, in silence.

  TensorFlow's native code reports missing GPU libraries straight to the
  terminal, whatever the log level, before its logging is set up. An exception
  is not silenced.
  """
  if 'seqio' in sys.modules:
    return
  set_environment()
  with native_stderr_closed():
    import seqio  # noqa: F401

    from speccascade_jax import data  # noqa: F401


@contextlib.contextmanager
def native_stderr_closed() -> Iterator[None]:
  """Drops what is written to stderr, by native code in particular."""
  sys.stderr.flush()
  kept = os.dup(2)
  nowhere = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(kept, 2)
    os.close(nowhere)
    os.close(kept)
