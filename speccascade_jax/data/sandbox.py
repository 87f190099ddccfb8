"""Runs one Python program that nobody has read, and nothing it does remains.

The program runs in a process of its own, in Linux namespaces that take no
privileges to enter where the system lets users do so. What holds, and is tried
out once before the first program (`check`):

- It sees a file system of Python with its standard library, the system's
  libraries and two devices, none of it writable, and an empty directory in
  memory that goes with it. No home, no `/tmp`, no `/proc`, no package, no file
  of this project.
- It has no network, not even to this machine, unless the caller says so.
- It inherits no environment, no open file and no keys, and sees no other
  process.
- CPU time, address space and files are limited for each process, and the
  number of processes: together at most `processes` times `memory_bytes`, and
  `file_bytes` of files. Threads count as processes. Calls that get memory
  which is not counted there are refused (`sandbox_filter`).
- When it ends, or its time or output is over, whatever it has started ends
  with it, detached or not; so too when the caller is killed.
- It has the rights of no user but the one who runs it, and none where root
  does: then it is `nobody`.

What does not hold: this is no boundary against somebody with an exploit of the
kernel; a program may use its CPU time to slow down others; and what the kernel
itself keeps for it is beside its address space: some 30 MiB for the 64 files,
pipes and sockets that a process may have open, some 15 MiB of locks on files
for every second of its CPU time, and, where it may use the network, sockets of
TCP without a bound. Programs may import the standard library, and no package
beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import glob
import json
import os
import pathlib
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from speccascade_jax.data import sandbox_filter

_LAUNCHER = pathlib.Path(__file__).with_name('sandbox_launcher.py')
_TRIAL = _LAUNCHER.with_name('sandbox_trial.py')
# What an interpreter needs beside what is its own.
_SYSTEM = (
  *('/lib', '/lib32', '/lib64', '/usr/lib', '/usr/lib32', '/usr/lib64'),
  *('/etc/ld.so.cache', '/nix/store', '/usr/share/zoneinfo'),
)
_DEVICES = ('/dev/null', '/dev/urandom')
_STARTING_S = 60.0  # A busy machine takes a while to start two processes.
_CHUNK = 65536


class SandboxError(OSError):
  """Programs cannot be run safely here; the text says what to do."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a program may use.

  Attributes:
    cpu_s: CPU time of each process, whole seconds.
    wall_s: time by the clock, for a program that waits; more than `cpu_s`, so
      that verdicts do not depend on what else the machine does.
    memory_bytes: address space of each process.
    file_bytes: of all files together, in memory.
    processes: at once, threads included.
    output_bytes: standard output and errors together.
  """

  cpu_s: int = 5
  wall_s: float = 20.0
  memory_bytes: int = 512 * 2**20
  file_bytes: int = 16 * 2**20
  processes: int = 4
  output_bytes: int = 2**20


@dataclasses.dataclass(frozen=True)
class Result:
  """How a program ended.

  Attributes:
    exit_code: its own; -N if signal N killed it; None if it was stopped.
    output: standard output and errors, as they came.
    stopped: 'time' or 'output', whichever was over; '' if it ended itself.
  """

  exit_code: int | None
  output: bytes
  stopped: str = ''


def run(
  source: str,
  *,
  stdin: str = '',
  limits: Limits = Limits(),
  network: bool = False,
) -> Result:
  """Runs a program to its end, or to that of its time.

  Args:
    source: text of the program, a module that is run as `__main__`.
    stdin: what it reads.
    limits: see `Limits`.
    network: let it use the network of this machine.

  Raises:
    SandboxError: if a sandbox cannot be had here.
  """
  check(network=network)
  return _run(source, stdin, limits, network)


@functools.cache
def check(*, network: bool = False) -> None:
  """Tries once whether what this module promises holds on this system.

  Raises:
    SandboxError: if it does not; the text says what is missing.
  """
  limits, world = Limits(), _world(network)
  name = f'speccascade_jax {secrets.token_hex(8)}'
  with socket.socket(socket.AF_UNIX) as server:
    server.bind('\0' + name)
    server.listen()
    told = {
      **{name: world[name] for name in ('shown', 'hidden', 'devices')},
      'calls': sandbox_filter.refused(os.uname().machine),
      'families': sandbox_filter.families(network),
      'processes': limits.processes,
      'memory_bytes': limits.memory_bytes,
      'caller': __file__,
      'abstract': name,
      'network': network,
    }
    trial = _TRIAL.read_text(encoding='utf-8')
    found = _run(trial, json.dumps(told), limits, network)
  text = found.output.decode(errors='replace').strip()
  if text != 'tried':
    raise SandboxError(
      f'The sandbox for programs does not hold on this system: {text!r} (exit '
      f'code {found.exit_code}). Score programs on another machine.'
    )


def _run(source: str, stdin: str, limits: Limits, network: bool) -> Result:
  world = _world(network)
  request = {
    **world,
    'source': source,
    'stdin': stdin,
    'limits': dataclasses.asdict(limits),
    'network': network,
  }
  reader, writer = os.pipe()
  try:
    process = subprocess.Popen(
      [world['python'], '-I', '-S', str(_LAUNCHER), str(writer)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      env={},
      cwd='/',
      pass_fds=[writer],
      start_new_session=True,
    )
  finally:
    os.close(writer)
  try:
    return _watch(process, json.dumps(request).encode(), reader, limits)
  finally:
    # Launcher and init are of one group; the namespace goes with init.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
      assert stream is not None
      stream.close()
    os.close(reader)


def _world(network: bool) -> dict[str, Any]:
  """What there is inside: the interpreter, what it reads, what it may call.

  Raises:
    SandboxError: if there can be no sandbox on this system.
  """
  if sys.platform != 'linux':
    raise SandboxError(
      'Programs are run in a sandbox of Linux namespaces, which '
      f'{sys.platform} does not have: score them on Linux, or in a container.'
    )
  try:
    machine = os.uname().machine
    calls = sandbox_filter.instructions(machine, network=network)
  except ValueError as error:
    raise SandboxError(
      f'Programs cannot be run in a sandbox here: {error}. Score them on '
      'another machine.'
    ) from error
  # That of the virtual environment is often only a link to it.
  python = os.path.realpath(getattr(sys, '_base_executable', ''))
  prefixes = map(os.path.realpath, (sys.base_prefix, sys.base_exec_prefix))
  libraries = [
    os.path.join(prefix, name)
    for prefix in prefixes
    for name in ('lib', sys.platlibdir)
  ]
  shown = _outermost([*_SYSTEM, python, *libraries])
  return {
    'python': python,
    'shown': shown,
    'hidden': _packages(shown),
    'devices': _DEVICES,
    'filter': calls.hex(),
  }


def _outermost(paths: Sequence[str]) -> list[str]:
  """Those that exist, with what they are links to, and none inside another."""
  known = {*paths, *map(os.path.realpath, paths)}
  found: list[str] = []
  for path in sorted(filter(os.path.exists, known), key=len):
    if not any(path.startswith(f'{outer}/') for outer in found):
      found.append(path)
  return found


def _packages(folders: Sequence[str]) -> list[str]:
  """Where in these folders packages are installed, whichever Python's."""
  found = {
    os.path.realpath(path)
    for folder in folders
    for path in glob.glob(f'{glob.escape(folder)}/python*/*-packages')
  }
  inside = tuple(f'{folder}/' for folder in folders)
  return sorted(path for path in found if path.startswith(inside))


def _watch(
  process: subprocess.Popen[bytes], request: bytes, status: int, limits: Limits
) -> Result:
  """Collects output until the program ends or may go on no longer."""
  assert process.stdin is not None and process.stdout is not None
  try:
    process.stdin.write(request)
    process.stdin.close()
  except BrokenPipeError:
    pass  # Its output tells why.
  output, told = bytearray(), bytearray()
  deadline = time.monotonic() + _STARTING_S
  started = False
  with selectors.DefaultSelector() as selector:
    selector.register(process.stdout, selectors.EVENT_READ, output)
    selector.register(status, selectors.EVENT_READ, told)
    while selector.get_map():
      left = deadline - time.monotonic()
      ready = selector.select(max(left, 0))
      for key, _ in ready:
        chunk = os.read(key.fd, _CHUNK)
        key.data.extend(chunk)
        if not chunk:
          selector.unregister(key.fileobj)
      if not started and b'started\n' in told:
        started, deadline = True, time.monotonic() + limits.wall_s
      if len(output) > limits.output_bytes:
        return Result(None, bytes(output[: limits.output_bytes]), 'output')
      if left <= 0:
        break
  lines = told.decode(errors='replace').splitlines()
  for line in lines:
    if line.startswith('refused '):
      raise SandboxError(_advice(line.removeprefix('refused ')))
  if not started:
    tail = output.decode(errors='replace').strip()[-300:]
    raise SandboxError(
      'The sandbox for programs does not start: '
      + (tail or f'nothing has happened for {_STARTING_S:.0f} s.')
    )
  if lines[-1].startswith('exit '):
    return Result(int(lines[-1].split()[1]), bytes(output))
  return Result(None, bytes(output), 'time')


def _advice(reason: str) -> str:
  """What to do about a step that the system refuses."""
  if reason.startswith('network namespaces'):
    return (
      f'Programs cannot be kept from the network here ({reason}). Score them '
      'on a system with network namespaces (sysctl user.max_net_namespaces '
      "above 0), or let them use the network: run_programs='with_network'."
    )
  if reason.startswith('starting '):
    return (
      f'Programs cannot be started in the sandbox ({reason}). Whoever starts '
      'one, or nobody where that is root, has to be able to read the files of '
      'this Python.'
    )
  if reason.startswith('seccomp filters'):
    return (
      f'Programs cannot be run in a sandbox here ({reason}). It needs a kernel '
      'with CONFIG_SECCOMP_FILTER: score them on another machine.'
    )
  return (
    f'Programs cannot be run in a sandbox here ({reason}). It needs user '
    'namespaces: sysctl user.max_user_namespaces above 0; on Debian '
    'kernel.unprivileged_userns_clone=1; on Ubuntu '
    'kernel.apparmor_restrict_unprivileged_userns=0; in a container docker run '
    '--privileged, or --security-opt seccomp=unconfined and systempaths='
    'unconfined. Or score programs on another machine.'
  )
