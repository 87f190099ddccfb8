"""How programs end: by themselves, when a limit is over, with the caller."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from speccascade_jax.data import sandbox
from tests.data import sandboxed


@pytest.fixture(autouse=True)
def needed():
  sandboxed.needed()


def _watched(source):
  """A result, and most processes that there were at a time meanwhile."""
  most, done = 0, threading.Event()

  def watch():
    nonlocal most
    while not done.is_set():
      most = max(most, len(sandboxed.left()))
      time.sleep(0.01)

  watcher = threading.Thread(target=watch)
  watcher.start()
  try:
    result = sandbox.run(source, limits=sandboxed.LIMITS)
  finally:
    done.set()
    watcher.join()
  return result, most


def test_what_detaches_itself_ends_with_the_program():
  """Double fork, a session of its own, no signal taken: a daemon's way."""
  source = sandboxed.program("""
    import signal
    ready, go = os.pipe()
    if not os.fork():
      os.setsid()
      if not os.fork():
        for number in range(1, 65):
          try: signal.signal(number, signal.SIG_IGN)
          except (OSError, ValueError): pass
        os.write(go, b'.')
        time.sleep(99)
      os._exit(0)
    os.read(ready, 1)
    time.sleep(0.3)
    print('detached')
  """)
  result, most = _watched(source)
  assert result == sandbox.Result(0, b'detached\n')
  assert most >= 2  # It was there, and seen from here.
  assert sandboxed.gone()


def test_a_fork_bomb_stays_within_its_number():
  """Each as eager as the first, and all of them gone in the end."""
  source = sandboxed.program("""
    while True:
      try: os.fork()
      except OSError: time.sleep(0.01)
  """)
  result, most = _watched(source)
  assert result.stopped == 'time'
  assert most == sandboxed.LIMITS.processes
  assert sandboxed.gone()


def test_cpu_time_is_over_whatever_the_program_does():
  """Takes no signal, catches everything, closes what is listened to."""
  source = sandboxed.program("""
    import signal
    for number in range(1, 65):
      try: signal.signal(number, signal.SIG_IGN)
      except (OSError, ValueError): pass
    os.close(1), os.close(2)
    while True:
      try: raise SystemExit
      except BaseException: pass
  """)
  limits = dataclasses.replace(sandboxed.LIMITS, wall_s=60.0)
  assert sandbox.run(source, limits=limits) == sandbox.Result(-9, b'')


def test_a_killed_caller_takes_its_program_along(tmp_path):
  code = (
    'import sys; sys.path.insert(0, sys.argv[1])\n'
    'from speccascade_jax.data import sandbox\n'
    'sandbox.run(sys.argv[2])'
  )
  source = sandboxed.program('time.sleep(99)')
  package = str(sandboxed.copied(tmp_path))
  process = subprocess.Popen(
    [sys.executable, '-I', '-S', '-c', code, package, source]
  )
  until = time.monotonic() + 20
  while not sandboxed.left() and time.monotonic() < until:
    time.sleep(0.02)
  assert sandboxed.left()
  os.kill(process.pid, signal.SIGKILL)
  process.wait()
  assert sandboxed.gone()


def test_reads_what_it_is_given_and_tells_how_it_ended():
  source = 'import sys; print(sys.stdin.read().upper()); sys.exit(3)'
  result = sandbox.run(source, stdin='größe', limits=sandboxed.LIMITS)
  assert result == sandbox.Result(3, 'GRÖSSE\n'.encode())


def test_what_libraries_do_with_threads_and_sockets_of_their_own_works():
  """The calls that are refused are not missed."""
  source = """
    import asyncio, ctypes, hashlib, sqlite3, subprocess, sys, tempfile
    import threading, zoneinfo
    async def add(a, b):
      await asyncio.sleep(0)
      return await asyncio.to_thread(lambda: a + b)
    found = [asyncio.run(add(1, 2))]
    thread = threading.Thread(target=found.append, args=('thread',))
    thread.start(), thread.join()
    with tempfile.TemporaryDirectory(dir='.') as folder:
      with sqlite3.connect(folder + '/base') as base:
        base.execute('create table a (b)')
        base.execute('insert into a values (7)')
        found += base.execute('select b from a').fetchone()
    child = [sys.executable, '-S', '-c', 'print("child", end="")']
    found.append(subprocess.run(child, capture_output=True, text=True).stdout)
    print(found, hashlib.sha256(b'').hexdigest()[:4])
  """
  result = sandbox.run(sandboxed.program(source))
  assert result.output == b"[3, 'thread', 7, 'child'] e3b0\n"
