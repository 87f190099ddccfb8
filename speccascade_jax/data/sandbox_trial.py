"""Tries out what the sandbox promises; a program of its own, in the sandbox.

It reads what `sandbox.check` tells it from the standard input. Each attempt
has to fail, and what it writes is what did not; at the end 'tried'.
"""

from collections.abc import Iterator
import ctypes
import errno
import json
import mmap
import os
import socket
import sys
import time

_ENVIRONMENT = {'PYTHONHASHSEED', 'LC_CTYPE'}


def main() -> None:
  """Tries everything."""
  request = json.load(sys.stdin)
  for found in (
    *_limits(request),
    *_files(request),
    *_calls(request['calls']),
    *_sockets(request),
  ):
    print(found)
  if os.environ.keys() - _ENVIRONMENT:
    print('the environment is inherited')
  print('tried')


def _limits(request: dict) -> Iterator[str]:
  try:
    for _ in range(request['processes']):
      if not os.fork():
        time.sleep(60)
        os._exit(0)
    yield 'the number of processes is not limited'
  except OSError:
    pass
  try:
    bytearray(request['memory_bytes'])
    yield 'memory is not limited'
  except MemoryError:
    pass
  try:
    mmap.mmap(-1, mmap.PAGESIZE).close()
    yield 'shared memory can be had'
  except OSError:
    pass


def _files(request: dict) -> Iterator[str]:
  expected = {*request['shown'], *request['devices'], os.getcwd(), __file__}
  for path in _unexpected('/', expected):
    yield f'{path} can be seen'
  for path in request['hidden']:
    if os.path.isdir(path) and os.listdir(path):
      yield f'{path} can be seen'
  if os.path.exists(request['caller']):
    yield f'{request["caller"]} can be seen'
  # Asked, not tried: what is not read-only could be a user's own Python.
  for path in ('/', *request['shown'], *request['hidden']):
    if not os.statvfs(path).f_flag & os.ST_RDONLY:
      yield f'{path} can be written to'


def _unexpected(folder: str, expected: set[str]) -> Iterator[str]:
  """What there is beside what is expected and the way to it."""
  for name in os.listdir(folder):
    path = os.path.join(folder, name)
    if path in expected:
      continue
    if any(other.startswith(f'{path}/') for other in expected):
      yield from _unexpected(path, expected)
    else:
      yield path


def _calls(calls: dict[str, int]) -> Iterator[str]:
  libc = ctypes.CDLL(None, use_errno=True)
  for name, number in calls.items():
    done = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(0),) * 6)
    if done != -1 or ctypes.get_errno() != errno.ENOSYS:
      yield f'{name} is not refused'


def _sockets(request: dict) -> Iterator[str]:
  for family in set(range(64)) - set(request['families']):
    try:
      socket.socket(family, socket.SOCK_STREAM).close()
      yield f'sockets of family {family} can be had'
    except OSError:
      pass
  try:
    # Such names belong to a network namespace.
    with socket.socket(socket.AF_UNIX) as local:
      local.connect('\0' + request['abstract'])
    if not request['network']:
      yield 'this machine can be reached'
  except OSError:
    pass


if __name__ == '__main__':
  main()
