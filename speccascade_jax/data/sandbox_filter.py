"""What a program in the sandbox may not ask the kernel for: a seccomp filter.

Namespaces and limits leave gaps that only the calls themselves close. Refused
are, to any user:

- memory that no limit counts: System V's shared memory, messages and
  semaphores, files without a name (`memfd_create`), rings of io_uring, queues
  of inotify, larger buffers of pipes and sockets; and what stays whole while a
  page of it is in use, when only that page counts: anonymous memory that is
  shared, pages lent to a pipe (`vmsplice`), huge pages (which the launcher has
  switched off);
- keys, since the caller's session keyring comes along, could be read, and
  would keep what is added;
- further namespaces, in which more would be allowed;
- sockets of other kinds than those of a network namespace: a virtual machine
  reaches its host by AF_VSOCK, whatever the namespace. Without a network only
  those of AF_UNIX are left: one of TCP that is mapped into memory outlives its
  descriptor, so that a process would keep as many as it likes.

They fail with ENOSYS, as on a kernel that does not have them: libraries know
what to do then (`clone` instead of `clone3`).
"""

from __future__ import annotations

import struct

# Of <asm/unistd_64.h> and <asm-generic/unistd.h>; None where there is no such
# call.
_X86_64 = {
  **dict(shmget=29, msgget=68, semget=64, mq_open=240),
  **dict(memfd_create=319, memfd_secret=447, vmsplice=278, userfaultfd=323),
  **dict(io_uring_setup=425, bpf=321, perf_event_open=298),
  **dict(inotify_init=253, inotify_init1=294, fanotify_init=300),
  **dict(landlock_create_ruleset=444),
  **dict(add_key=248, request_key=249, keyctl=250),
  **dict(unshare=272, setns=308, clone3=435),
}
_AARCH64 = {
  **dict(shmget=194, msgget=186, semget=190, mq_open=180),
  **dict(memfd_create=279, memfd_secret=447, vmsplice=75, userfaultfd=282),
  **dict(io_uring_setup=425, bpf=280, perf_event_open=241),
  **dict(inotify_init1=26, fanotify_init=262),
  **dict(landlock_create_ruleset=444),
  **dict(add_key=217, request_key=218, keyctl=219),
  **dict(unshare=97, setns=268, clone3=435),
}
# Those that are refused with some arguments alone.
_X86_64_SOME = {
  **dict(mmap=9, prctl=157, clone=56, fcntl=72),
  **dict(socket=41, socketpair=53, setsockopt=54),
}
_AARCH64_SOME = {
  **dict(mmap=222, prctl=167, clone=220, fcntl=25),
  **dict(socket=198, socketpair=199, setsockopt=208),
}

# AUDIT_ARCH_*, calls that are always refused, and the others.
_MACHINES = {
  'x86_64': (0xC000003E, _X86_64, _X86_64_SOME),
  'aarch64': (0xC00000B7, _AARCH64, _AARCH64_SOME),
}

_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*, all that `clone` has.
_MAP_SHARED, _MAP_ANONYMOUS, _SET_THP_DISABLE = 0x01, 0x20, 41
_SOL_SOCKET, _SO_SNDBUF, _SO_RCVBUF, _F_SETPIPE_SZ = 1, 7, 8, 1031

# Places in `struct seccomp_data`; of an argument the lower half is read, which
# is what these calls read of it.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
# <linux/bpf_common.h>: load a word, compare it, return.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ENOSYS = 0x7FFF0000, 0x00050000 + 38
_X32 = 0x40000000  # x86-64's second set of calls has numbers from here on.

_Code = list[tuple[int, int, int, int]]


def refused(machine: str) -> dict[str, int]:
  """Numbers of the calls that are refused whatever their arguments.

  Args:
    machine: as `os.uname` names it.

  Raises:
    ValueError: if its system calls are not known here.
  """
  return dict(_machine(machine)[1])


def families(network: bool) -> tuple[int, ...]:
  """Those of the sockets that may be had, with a network or without."""
  return (_AF_UNIX, *((_AF_INET, _AF_INET6) if network else ()))


def instructions(machine: str, *, network: bool) -> bytes:
  """The filter, an array of `struct sock_filter`.

  Args:
    machine: as `os.uname` names it.
    network: whether sockets of a network are let through.

  Raises:
    ValueError: if its system calls are not known here.
  """
  architecture, always, some = _machine(machine)
  code: _Code = [
    # Another set of calls (32 bit) has other numbers: none of it.
    (_LOAD, 0, 0, _ARCHITECTURE),
    (_EQUAL, 1, 0, architecture),
    (_RETURN, 0, 0, _ENOSYS),
    (_LOAD, 0, 0, _NUMBER),
    (_AT_LEAST, 0, 1, _X32),
    (_RETURN, 0, 0, _ENOSYS),
  ]
  for number in always.values():
    code += _unless(number)
  code += _unless(
    some['mmap'],
    (3, _ANY_BIT, _MAP_SHARED, True),
    (3, _ANY_BIT, _MAP_ANONYMOUS, True),
  )
  code += _unless(some['prctl'], (0, _EQUAL, _SET_THP_DISABLE, True))
  code += _unless(some['clone'], (0, _ANY_BIT, _NEW_NAMESPACES, True))
  for name in ('socket', 'socketpair'):
    others = [(0, _EQUAL, family, False) for family in families(network)]
    code += _unless(some[name], *others)
  for option in (_SO_SNDBUF, _SO_RCVBUF):
    code += _unless(
      some['setsockopt'],
      (1, _EQUAL, _SOL_SOCKET, True),
      (2, _EQUAL, option, True),
    )
  code += _unless(some['fcntl'], (1, _EQUAL, _F_SETPIPE_SZ, True))
  code.append((_RETURN, 0, 0, _ALLOW))
  return b''.join(struct.pack('=HBBI', *one) for one in code)


def _machine(machine: str) -> tuple[int, dict[str, int], dict[str, int]]:
  if machine not in _MACHINES:
    raise ValueError(
      f'the system calls of {machine} are not known, but those of '
      f'{" and ".join(_MACHINES)}'
    )
  return _MACHINES[machine]


def _unless(number: int, *conditions: tuple[int, int, int, bool]) -> _Code:
  """Refuses a call if all conditions hold, else goes on behind this.

  Args:
    number: of the call.
    conditions: (argument, comparison, value, whether it has to be true).
  """
  length = 2 * len(conditions) + 1
  code: _Code = [(_LOAD, 0, 0, _NUMBER), (_EQUAL, 0, length, number)]
  for i, (argument, comparison, value, wanted) in enumerate(conditions):
    behind = length - 2 * (i + 1)
    jumps = (0, behind) if wanted else (behind, 0)
    code.append((_LOAD, 0, 0, _ARGUMENTS + 8 * argument))
    code.append((comparison, *jumps, value))
  return [*code, (_RETURN, 0, 0, _ENOSYS)]
