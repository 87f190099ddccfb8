"""The filter of system calls, by an interpreter of its instructions."""

import pathlib
import re
import struct

import pytest

from speccascade_jax.data import sandbox_filter

_ARCHITECTURES = {'x86_64': 0xC000003E, 'aarch64': 0xC00000B7}
_HEADERS = {
  'x86_64': '/usr/include/x86_64-linux-gnu/asm/unistd_64.h',
  'aarch64': '/usr/include/asm-generic/unistd.h',
}
# Numbers by machine of calls that are refused with some arguments.
_SOME = {
  'x86_64': dict(clone=56, mmap=9, socket=41, setsockopt=54, fcntl=72),
  'aarch64': dict(clone=220, mmap=222, socket=198, setsockopt=208, fcntl=25),
}


def _answer(machine, number, *arguments, architecture=None, network=False):
  """What a kernel would do with the filter: 'allow', or an error's number."""
  arguments = (*arguments, *(6 - len(arguments)) * (0,))
  data = struct.pack(
    '=iIQ6Q',
    number,
    _ARCHITECTURES[machine] if architecture is None else architecture,
    0,
    *arguments,
  )
  filter_ = sandbox_filter.instructions(machine, network=network)
  code = list(struct.iter_unpack('=HBBI', filter_))
  at, word = 0, None
  while True:
    kind, yes, no, value = code[at]
    at += 1
    if kind == 0x20:  # BPF_LD | BPF_W | BPF_ABS
      (word,) = struct.unpack_from('=I', data, value)
    elif kind == 0x06:  # BPF_RET | BPF_K
      if value == 0x7FFF0000:  # SECCOMP_RET_ALLOW
        return 'allow'
      assert value & 0xFFFF0000 == 0x00050000  # SECCOMP_RET_ERRNO
      return value & 0xFFFF
    else:  # BPF_JMP | BPF_K, and BPF_JEQ, BPF_JGE or BPF_JSET
      compare = {
        0x15: word == value,
        0x35: word >= value,
        0x45: bool(word & value),
      }
      at += yes if compare[kind] else no


@pytest.fixture(params=_ARCHITECTURES)
def machine(request):
  return request.param


def test_named_calls_are_refused_and_all_others_are_not(machine):
  refused = set(sandbox_filter.refused(machine).values())
  assert len(refused) > 15
  for number in range(500):
    # Arguments that no rule is about; AF_UNIX is 1.
    found = _answer(machine, number, 1)
    assert found == (38 if number in refused else 'allow'), number


def test_nothing_of_another_architecture(machine):
  for other in (0x40000003, 0xC00000F3, 0):  # i386, RISC-V, none
    assert _answer(machine, 1, architecture=other) == 38
  for number in (0x40000000 + 1, 0x40000000 + 272, -1):  # x32
    assert _answer(machine, number) == 38


@pytest.mark.parametrize(
  ('call', 'arguments', 'refused'),
  [
    ('clone', (0x01200011,), False),  # fork
    ('clone', (0x003D0F00,), False),  # a thread
    ('clone', (0x10000011,), True),  # CLONE_NEWUSER
    ('clone', (0x40000011,), True),  # CLONE_NEWNET
    ('mmap', (0, 4096, 3, 0x22), False),  # private, of nothing
    ('mmap', (0, 4096, 3, 0x01, 5), False),  # shared, of a file
    ('mmap', (0, 4096, 3, 0x21), True),
    ('mmap', (0, 4096, 3, 0x23), True),  # MAP_SHARED_VALIDATE
    ('socket', (1, 1), False),
    ('socket', (2, 1), True),
    ('socket', (10, 2), True),
    ('socket', (0, 1), True),
    ('socket', (16, 3), True),  # AF_NETLINK
    ('socket', (38, 5), True),  # AF_ALG
    ('socket', (40, 1), True),  # AF_VSOCK
    ('socket', (2**32 + 40, 1), True),  # The kernel reads the lower half.
    ('setsockopt', (3, 1, 2), False),  # SO_REUSEADDR
    ('setsockopt', (3, 1, 7), True),  # SO_SNDBUF
    ('setsockopt', (3, 1, 8), True),  # SO_RCVBUF
    ('setsockopt', (3, 6, 7), False),  # of TCP
    ('fcntl', (3, 2, 1), False),
    ('fcntl', (3, 1031, 2**20), True),
  ],
)
def test_some_are_refused_by_their_arguments(machine, call, arguments, refused):
  found = _answer(machine, _SOME[machine][call], *arguments)
  assert found == (38 if refused else 'allow')


@pytest.mark.parametrize(
  ('family', 'refused'), [(1, False), (2, False), (10, False), (40, True)]
)
def test_with_a_network_its_sockets_are_to_be_had(machine, family, refused):
  found = _answer(machine, _SOME[machine]['socket'], family, 1, network=True)
  assert found == (38 if refused else 'allow')


@pytest.mark.parametrize('some', [False, True])
def test_numbers_are_those_of_the_kernel_s_headers(machine, some):
  path = pathlib.Path(_HEADERS[machine])
  if not path.exists():
    pytest.skip(f'{path} is not installed')
  found = re.findall(r'#define __NR(?:3264)?_(\w+)\s+(\d+)\s', path.read_text())
  numbers = {name: int(number) for name, number in found}
  known = sandbox_filter._machine(machine)[2 if some else 1]
  assert known == {name: numbers.get(name) for name in known}


def test_an_unknown_machine_is_named():
  with pytest.raises(ValueError, match='calls of sparc are not known'):
    sandbox_filter.instructions('sparc', network=False)
