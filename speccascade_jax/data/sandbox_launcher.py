"""Builds the sandbox and starts a program in it; a process of its own.

`sandbox.run` starts this file and speaks with it through pipes: the request
comes on the standard input, and what happens goes, line by line, to the
descriptor that is its argument:

  refused STEP: REASON    the sandbox cannot be built; nothing has run
  started                 the program runs from here on
  exit CODE               it has ended; -N is signal N

Three processes stand in a row, as a PID namespace wants it. The *launcher*
enters the namespaces and builds a file system; its child, the namespace's
first process (*init*), waits for the *program*. When init ends, the kernel
kills whatever is left in the namespace, however it has detached itself.

The standard library alone, and no name of the package: this process knows
nothing that a program might want.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys

_LIBC = ctypes.CDLL(None, use_errno=True)

# <linux/sched.h>, <sys/mount.h>, <linux/prctl.h>
_NEW_NS, _NEW_UTS, _NEW_IPC = 0x00020000, 0x04000000, 0x08000000
_NEW_USER, _NEW_PID, _NEW_NET = 0x10000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_BIND, _MOVE, _REC, _PRIVATE = 0x1000, 0x2000, 0x4000, 0x40000
_SET_PARENT_DEATH_SIGNAL, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES = 1, 22, 38
_SET_THP_DISABLE = 41
_SECCOMP_MODE_FILTER = 2
# Of every architecture: system calls have had common numbers since 424.
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

# Who runs programs when root starts the launcher. Root's own processes are
# exempt from limits on their number.
_NOBODY = 65534
# Where the new root is put together. There on every Linux, and of no use any
# more once the namespaces are entered, so that no directory is left behind.
_ROOT = '/proc'
# Names that no part of the old root has that is shown in the new one.
_WORK = '/.work'
_PROGRAM = '/.program.py'
_STDIN = '/.stdin'
_FILES = 1000  # Names in the working directory, 64 open at once.
_OPEN = 64


class Refused(Exception):
  """The system does not permit one of the steps."""


def main() -> None:
  """Carries out one request; see the module."""
  status = int(sys.argv[1])
  os.set_inheritable(status, False)
  os.umask(0o022)  # Whoever runs the program has to find its way to Python.
  parent = os.getppid()
  request = json.load(sys.stdin)
  try:
    root = os.geteuid() == 0
    _enter_namespaces(root, request)
    source = _build_root(request, _NOBODY if root else os.geteuid())
    # Not before: entering a user namespace takes it back.
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
  except (Refused, OSError) as error:
    _tell(status, f'refused {error}')
    return
  if os.getppid() != parent:
    return  # It died while this was going on.
  init = os.fork()
  if init == 0:
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    _be_init(status, request, source, root)
  os.waitpid(init, 0)


def _be_init(status: int, request: dict, source: int, root: bool) -> None:
  """The first process of the namespace: never returns."""
  program = os.fork()
  if program == 0:
    try:
      _become_program(request, source, root)
    except Refused as error:
      _tell(status, f'refused {error}')
    except BaseException as error:
      _tell(status, f'refused starting {request["python"]}: {error}')
    os._exit(127)
  _tell(status, 'started')
  while True:
    ended, code = os.wait()  # Orphans of the program come here, too.
    if ended == program:
      _tell(status, f'exit {os.waitstatus_to_exitcode(code)}')
      os._exit(0)


def _become_program(request: dict, source: int, root: bool) -> None:
  """Gives up what a program must not have, and becomes it."""
  os.setsid()
  os.dup2(source, 0)
  limits = request['limits']
  if root:
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
  for name, value in {
    'CPU': limits['cpu_s'],
    'AS': limits['memory_bytes'],
    'FSIZE': limits['file_bytes'],
    # Counted per user and user namespace; for an ordinary user the launcher
    # and init count, too.
    'NPROC': limits['processes'] + (0 if root else 2),
    'NOFILE': _OPEN,
    'MSGQUEUE': 0,
    'MEMLOCK': 0,
    'SIGPENDING': _OPEN,
    'CORE': 0,
  }.items():
    resource.setrlimit(getattr(resource, f'RLIMIT_{name}'), (value,) * 2)
  _prctl(_SET_NO_NEW_PRIVILEGES, 1)
  _prctl(_SET_THP_DISABLE, 1)  # One byte of address space may hold 2 MiB.
  _refuse_calls(bytes.fromhex(request['filter']))
  # `-s -P` and an environment that is ours are what -I is, but for the seed:
  # -I would not read it, and the order of sets would differ from run to run.
  python = [request['python'], '-s', '-P', '-S', '-B', '-X', 'utf8', _PROGRAM]
  os.execve(python[0], python, {'PYTHONHASHSEED': '0'})


class _Filter(ctypes.Structure):
  """`struct sock_fprog`."""

  _fields_ = [('length', ctypes.c_ushort), ('instructions', ctypes.c_char_p)]


def _refuse_calls(instructions: bytes) -> None:
  """From here on, and in all that is started; see `sandbox_filter`."""
  found = _Filter(len(instructions) // 8, instructions)
  mode = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
  _call('seccomp filters', 'prctl', _SET_SECCOMP, mode, ctypes.byref(found))


def _enter_namespaces(root: bool, request: dict) -> None:
  """User, mounts, processes, IPC, host name; and network unless wanted."""
  outside = os.getpid()
  ready, go = os.pipe()
  helper = os.fork()
  if helper == 0:
    # Maps have to be written by somebody who is still outside.
    os.close(go)
    code = 1
    if os.read(ready, 1):
      try:
        _write_maps(outside, root, request['shown'])
        code = 0
      finally:
        os._exit(code)
    os._exit(code)
  os.close(ready)
  try:
    spaces = _NEW_USER | _NEW_NS | _NEW_PID | _NEW_IPC | _NEW_UTS
    _call('user namespaces', 'unshare', spaces)
    os.write(go, b'.')
  finally:
    os.close(go)
    _, code = os.waitpid(helper, 0)
  if code:
    raise Refused('user namespaces: their map of users cannot be written')
  if not request['network']:
    _call('network namespaces', 'unshare', _NEW_NET)


def _write_maps(pid: int, root: bool, shown: list[str]) -> None:
  """Who is who in the new user namespace: the same, and nobody else."""
  users, groups = {os.geteuid()}, {os.getegid()}
  if root:
    users.add(_NOBODY)
    groups.add(_NOBODY)
    # Root passes through a folder that is closed to others, as a home may be,
    # only where its owner is known.
    for folder in _folders(shown):
      owner = os.stat(folder)
      users.add(owner.st_uid)
      groups.add(owner.st_gid)
  else:
    # A user's own group may be mapped only where groups cannot be dropped.
    _write(f'/proc/{pid}/setgroups', 'deny')
  for kind, ids in (('uid', users), ('gid', groups)):
    _write(f'/proc/{pid}/{kind}_map', ''.join(f'{i} {i} 1\n' for i in ids))


def _folders(paths: list[str]) -> set[str]:
  """All that these paths lead through."""
  found = set()
  for path in paths:
    while path != '/':
      path = os.path.dirname(path)
      found.add(path)
  return found


def _build_root(request: dict, user: int) -> int:
  """A file system of Python, its libraries, and an empty directory.

  Only the directory can be written to; it is memory. Returns a descriptor of
  what the program will read.
  """
  _mount('', '/', '', _REC | _PRIVATE, '')
  options = f'mode=755,size={2**20 + 4 * len(json.dumps(request))}'
  _mount('tmpfs', _ROOT, 'tmpfs', _NOSUID | _NODEV, options)
  for path in request['shown']:
    _show(path)
  for path in request['hidden']:
    flags = _RDONLY | _NOSUID | _NODEV | _NOEXEC
    _mount('tmpfs', _ROOT + path, 'tmpfs', flags, 'mode=755,size=4k')
  for path in request['devices']:
    _show(path, device=True)
  _write(_ROOT + _PROGRAM, request['source'])
  os.chmod(_ROOT + _PROGRAM, 0o444)
  _write(_ROOT + _STDIN, request['stdin'])
  source = os.open(_ROOT + _STDIN, os.O_RDONLY)
  os.unlink(_ROOT + _STDIN)
  os.mkdir(_ROOT + _WORK)
  _mount(
    'tmpfs',
    _ROOT + _WORK,
    'tmpfs',
    _NOSUID | _NODEV | _NOEXEC,
    f'mode=700,size={request["limits"]["file_bytes"]},nr_inodes={_FILES},'
    f'uid={user},gid={_NOBODY if user == _NOBODY else os.getegid()}',
  )
  _set_attributes(_ROOT, _RDONLY, recursive=False)
  os.chdir(_ROOT)
  _mount('.', '/', '', _MOVE, '')
  os.chroot('.')
  os.chdir(_WORK)
  return source


def _show(path: str, *, device: bool = False) -> None:
  """Lets something of the old root be read at the same place of the new."""
  place = _ROOT + path
  os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
  if os.path.islink(path):  # /lib -> usr/lib
    os.symlink(os.readlink(path), place)
    return
  if os.path.isdir(path):
    os.makedirs(place, exist_ok=True)
  else:
    _write(place, '')
  _mount(path, place, '', _BIND | _REC, '')
  flags = _RDONLY | _NOSUID | (_NOEXEC if device else _NODEV)
  _set_attributes(place, flags, recursive=True)


def _set_attributes(path: str, flags: int, *, recursive: bool) -> None:
  # struct mount_attr: attr_set, attr_clr, propagation, userns_fd; the first
  # four flags are those of mount(2).
  attributes = (ctypes.c_uint64 * 4)(flags, 0, 0, 0)
  _call(
    'read-only mounts (Linux 5.12 or newer)',
    'syscall',
    ctypes.c_long(_SYS_MOUNT_SETATTR),
    ctypes.c_int(_AT_FDCWD),
    path.encode(),
    ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
    attributes,
    ctypes.c_size_t(ctypes.sizeof(attributes)),
  )


def _mount(what: str, where: str, kind: str, flags: int, options: str) -> None:
  texts = [text.encode() or None for text in (what, where, kind)]
  flag = ctypes.c_ulong(flags)
  _call(f'mounting {where}', 'mount', *texts, flag, options.encode() or None)


def _prctl(option: int, value: int) -> None:
  rest = (ctypes.c_ulong(0),) * 3
  _call('prctl', 'prctl', option, ctypes.c_ulong(value), *rest)


def _call(step: str, name: str, *args) -> None:
  """A function of the C library that returns -1 where it fails."""
  if getattr(_LIBC, name)(*args) == -1:
    raise Refused(f'{step}: {os.strerror(ctypes.get_errno())}')


def _write(path: str, text: str) -> None:
  with open(path, 'w', encoding='utf-8', newline='') as file:
    file.write(text)


def _tell(status: int, line: str) -> None:
  os.write(status, (line.replace('\n', ' ') + '\n').encode())


if __name__ == '__main__':
  main()
