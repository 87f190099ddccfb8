"""Compiled programs outlive the process, in JAX's persistent cache.

The commands turn it on; a program that imports this package does not get it
unasked. What a user says through JAX's own settings stands:
`JAX_COMPILATION_CACHE_DIR=DIR` keeps programs elsewhere, and
`JAX_ENABLE_COMPILATION_CACHE=0` keeps none.
"""

from __future__ import annotations

import os
import pathlib
import warnings

import jax

# Some thousand programs. By default JAX sets no limit, nor forgets programs of
# a version that is no longer there. Its own jax_compilation_cache_max_size
# needs `filelock`, locks at every look-up, and writes nothing more once a
# process that was killed has left a program without its time of access.
_MOST_BYTES = 2**30


def keep() -> None:
  """Uses the user's cache folder, or none if it cannot be written."""
  if jax.config.jax_compilation_cache_dir is not None:
    return  # The user's choice; empty means no cache.
  if not jax.config.jax_enable_compilation_cache:
    return
  try:
    folder = _folder()
    # Whoever could write here could have their code run.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _trim(folder)
    writable = os.access(folder, os.W_OK)
  except (OSError, RuntimeError):  # The latter is Path.home() without a home.
    return
  if not writable:
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    # The many programs of milliseconds make up a third of the start.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  # A full disk, or what a killed process has left half written: the program is
  # compiled as if there were no cache, and that is all there is to it.
  warnings.filterwarnings(
    'ignore', message='Error (reading|writing) persistent compilation cache'
  )


def _folder() -> pathlib.Path:
  """Where programs for this machine are kept.

  JAX's keys tell the versions of JAX and XLA, their flags and the processor's
  instruction set apart (`--xla_cpu_max_isa` changes them), but not how many
  cores a program was cut up for.
  """
  root = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  if hasattr(os, 'sched_getaffinity'):  # Linux alone has it.
    cores = len(os.sched_getaffinity(0))
  else:
    cores = os.cpu_count() or 1
  return pathlib.Path(root) / 'speccascade_jax' / f'compiled_{cores}_cores'


def _trim(folder: pathlib.Path) -> None:
  """Halves a folder that has grown past the limit; the oldest files go."""
  files = [(path, path.stat()) for path in folder.iterdir() if path.is_file()]
  left = sum(stat.st_size for _, stat in files)
  if left <= _MOST_BYTES:
    return
  for path, stat in sorted(files, key=lambda file: file[1].st_mtime):
    if left <= _MOST_BYTES // 2:
      break
    path.unlink(missing_ok=True)  # Another process may have been first.
    left -= stat.st_size
