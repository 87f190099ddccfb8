"""Where and with what a measurement was made."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

_PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'sacrebleu', 'rouge-score')


def circumstances() -> dict[str, Any]:
  """Time, versions, commit and host of this process, for `sweep.json`."""
  return {
    'created': datetime.datetime.now(datetime.UTC).isoformat('T', 'seconds'),
    'versions': versions(),
    'commit': commit(),
    'host': platform.node(),
  }


def device() -> str:
  """The hardware that is timed: kind and number of devices."""
  devices = jax.devices()
  if devices[0].platform != 'cpu':
    return f'{len(devices)} x {devices[0].device_kind}'
  # XLA calls every CPU "cpu" and uses all the cores that it may.
  return f'{len(os.sched_getaffinity(0))} x {_cpu_name()}'


def device_memory() -> int | None:
  """Bytes that one device has; None where it does not say.

  All the cores that `device` counts are one device, which has what the machine
  has.
  """
  found = jax.devices()[0]
  if found.platform == 'cpu':
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return (found.memory_stats() or {}).get('bytes_limit')


def versions() -> dict[str, str]:
  """Versions of Python and of the packages a figure depends on."""
  found = {'python': platform.python_version()}
  for package in _PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue  # An extra that is not installed was not used either.
  return found


def commit(folder: pathlib.Path | None = None) -> str | None:
  """The commit of a checkout, with '-dirty' if files of it have changed.

  Args:
    folder: root of the checkout; by default that of this package.

  Returns:
    None without a checkout: in an installed package, or without git.
  """
  describe = ['git', 'describe', '--always', '--dirty', '--abbrev=40']
  folder = folder or pathlib.Path(__file__).resolve().parents[2]
  if not (folder / '.git').exists():
    # A repository further up has nothing to do with the package.
    return None
  try:
    result = subprocess.run(
      [*describe, '--exclude=*'],
      cwd=folder,
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return result.stdout.strip()


def _cpu_name() -> str:
  try:
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith('model name'):
        return line.split(':', 1)[1].strip()
  except OSError:
    pass
  return platform.machine() or 'cpu'
