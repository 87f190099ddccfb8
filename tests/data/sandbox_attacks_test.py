"""Attacks on the sandbox, each of them really run.

Every attack prints what it achieved, or is found out from outside. They run
two at a time, and between them programs that have to come out well: as whoever
runs the tests, and where that is root also as an ordinary user whose Python
lies in a home.
"""

import concurrent.futures
import dataclasses
import functools
import os
import pathlib
import shutil
import socket
import tempfile
import uuid

import pytest

from speccascade_jax.data import sandbox
from tests.data import sandboxed

_FILE = pathlib.Path(sandbox.__file__)
_SECRET = f'secret{uuid.uuid4().hex}'
_GOOD = "open('a', 'w').write('b'); print(os.listdir(), open('a').read())"
_OUTSIDE = (
  *(str(pathlib.Path.home()), str(pathlib.Path(__file__).parents[2])),
  *(str(_FILE.parent), os.path.dirname(sandboxed.PYTHON)),
  *('/home', '/home/me', '/home/me/python', '/home/me/package'),
  *('/', '/tmp', '/var/tmp', '/dev', '/dev/shm', '/proc', '/sys', '/etc'),
  *('/usr', '/lib', '..', '/.work'),
)


@dataclasses.dataclass(frozen=True)
class _World:
  """What of the outside there is to reach."""

  descriptor: int
  port: int
  abstract: str
  file: str


_SOCKETS = """
import socket
def connect(family, kind, address):
  with socket.socket(family, kind) as s:
    s.settimeout(0.3)
    s.connect(address)
    s.send(b'x')
    return s.getsockname()
I, U = socket.AF_INET, socket.AF_UNIX
T, D = socket.SOCK_STREAM, socket.SOCK_DGRAM
attempt('local', lambda: connect(I, T, ('127.0.0.1', THE_PORT)))
attempt('abstract', lambda: connect(U, T, '\\0' + THE_NAME))
attempt('far', lambda: connect(I, T, ('1.1.1.1', 53)),
        lambda: connect(I, D, ('8.8.8.8', 53)),
        lambda: socket.getaddrinfo('example.org', 80))
attempt('raw', lambda: socket.socket(I, socket.SOCK_RAW, 1))
# Of the kernel itself, and those to the host of a virtual machine.
for family in set(range(64)) - {U, I, socket.AF_INET6}:
  attempt(family, *(
    lambda kind=kind: socket.socket(family, kind) for kind in range(1, 6)))
print('tried')
"""


# Programs by name, and what has to become of them.
_ATTACKS = {
  'fork bomb': (
    """
      while True:
        try:
          os.fork()
        except OSError:
          pass
      """,
    # All of them are out of CPU time, or the whole out of time.
    lambda r: r.stopped == 'time' or r.exit_code == -9,
  ),
  'as many processes as there may be': (
    """
      forks = 0
      try:
        while True:
          if not os.fork():
            time.sleep(9)
          forks += 1
      except OSError:
        print(forks)
      """,
    lambda r: r.output == b'3\n',
  ),
  'threads, which are processes': (
    """
      import threading
      threads = 0
      try:
        while True:
          threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
          threads += 1
      except RuntimeError:
        print(threads, flush=True)
        os._exit(0)
      """,
    lambda r: r.output == b'3\n',
  ),
  'endless output': (
    "while True: print('x' * 1000)",
    lambda r: r.stopped == 'output' and len(r.output) == 20_000,
  ),
  'endless output by a child': (
    """
      if not os.fork():
        while True: os.write(2, b'x' * 1000)
      time.sleep(9)
      """,
    lambda r: r.stopped == 'output',
  ),
  'memory': (
    """
      held = []
      try:
        while True:
          held.append(b'x' * 2**24)
      except MemoryError:
        print(len(held))
      """,
    lambda r: r.exit_code == 0 and 2 < int(r.output) < 16,
  ),
  'memory beside the address space': (
    """
      def must(code):
        if code in (-1, None, 2**64 - 1): raise OSError
        return code
      attempt('shared memory', lambda: must(libc.shmget(0, 2**20, 0o1666)))
      attempt('messages', lambda: must(libc.msgget(0, 0o1666)),
              lambda: must(libc.mq_open(b'/x', 0o102, 0o600, None)))
      attempt('semaphores', lambda: must(libc.semget(0, 32000, 0o666)))
      attempt('a file without a name', lambda: os.memfd_create('x'))
      attempt('a ring', lambda: must(libc.syscall(425, 8, bytes(256))))
      attempt('a queue', lambda: must(libc.inotify_init1(0)))
      print('tried')
      """,
    lambda r: r.output == b'tried\n',
  ),
  'memory of which a page is kept': (
    """
      import mmap
      attempt('shared', lambda: mmap.mmap(-1, 2**20))
      attempt('zeros', lambda: os.open('/dev/zero', os.O_RDWR))
      reader, writer = os.pipe()
      page = ctypes.create_string_buffer(4096)
      lent = (ctypes.c_size_t * 2)(ctypes.addressof(page), 4096)
      attempt('lent to a pipe', lambda: 1 / (
        libc.vmsplice(writer, lent, ctypes.c_ulong(1), 0) + 1))
      attempt('huge pages', lambda: 1 / (libc.prctl(41, 0, 0, 0, 0) + 1),
              lambda: 1 / (libc.prctl(42, 0, 0, 0, 0) - 1))  # THP_DISABLE
      print('tried')
      """,
    lambda r: r.output == b'tried\n',
  ),
  'memory of open files': (
    """
      import fcntl, socket
      held, sent = [], 0
      def fill(send):
        global sent
        try:
          while True: sent += send(bytes(4096))
        except BlockingIOError: pass
      try:
        while True:
          held += socket.socketpair()
          for one in held[-2:]:
            attempt('sockets', lambda: one.setsockopt(1, 7, 2**24))
            one.setblocking(False)
            fill(one.send)
          if len(held) % 4: continue
          reader, writer = os.pipe()
          attempt('pipes', lambda: fcntl.fcntl(writer, 1031, 2**20))
          os.set_blocking(writer, False)
          fill(lambda data: os.write(writer, data))
      except OSError:
        print(sent)
      """,
    lambda r: 2**20 < int(r.output) < 2**24,
  ),
  'namespaces, in which more is allowed': (
    """
      for flag in (0x00020000, 0x10000000, 0x20000000, 0x40000000, 0):
        if libc.unshare(flag) != -1: print(hex(flag))
      attempt('clone3', lambda: 1 / (libc.syscall(435, bytes(64), 64) + 1))
      print('tried')
      """,
    lambda r: r.output == b'tried\n',
  ),
  'a huge file': (
    """
      try:
        with open('huge', 'wb', buffering=0) as file:
          while True: file.write(bytes(2**16))
      except OSError:
        print(os.path.getsize('huge'))
      """,
    lambda r: r.output == b'1048576\n',
  ),
  'many files': (
    """
      n = 0
      try:
        while True:
          with open(str(n), 'wb', buffering=0) as file:
            if file.write(bytes(2**16)) < 2**16: raise OSError
          n += 1
      except OSError:
        print(n)
      """,
    lambda r: r.exit_code == 0 and int(r.output) <= 16,
  ),
  'names without end': (
    """
      n = 0
      try:
        while True:
          open(str(n), 'w').close()
          n += 1
      except OSError:
        print(n)
      """,
    lambda r: r.exit_code == 0 and int(r.output) <= 1000,
  ),
  'writing outside': (
    """
        for n, folder in enumerate(OUTSIDE):
          path = os.path.join(folder, MARK)
          if os.path.abspath(path) == '/.work/' + MARK: continue
          attempt(path, lambda: open(path, 'w'), lambda: os.makedirs(path),
                  lambda: os.symlink('/', path), lambda: os.mknod(path))
          os.symlink(path, f'link{n}')
          attempt(path, lambda: open(f'link{n}', 'w'))
        attempt('file', lambda: open(THE_FILE, 'a'),
                lambda: os.remove(THE_FILE),
                lambda: open(THE_FILE).read())
        print('tried')
        """,
    lambda r: r.output == b'tried\n',
  ),
  'changing what is there': (
    """
      own = os.__file__
      attempt('own', lambda: os.remove(own), lambda: open(own, 'a'),
              lambda: os.chmod(own, 0o777), lambda: os.utime(own),
              lambda: os.rename(own, own + 'x'), lambda: os.link(own, 'x'),
              lambda: open('/.program.py', 'a'), lambda: os.chmod('/', 0o777))
      none = ctypes.c_void_p(None)
      for flags in (0x20, 0x1020, 0x1000):  # REMOUNT, of a bind, another bind
        for path in (b'/', b'/lib', b'/.work', b'/dev'):
          if libc.mount(path, path, none, ctypes.c_ulong(flags), none) == 0:
            print('mounted', path)
      for path in (b'/', b'/.work', b'/lib', b'/dev/null'):
        if libc.umount2(path, 2) == 0: print('unmounted', path)
      attempt('root', lambda: os.chroot('/dev'), lambda: os.setuid(0),
              lambda: os.setgid(0), lambda: os.nice(-5))
      print('tried')
      """,
    lambda r: r.output == b'tried\n',
  ),
  'looking around': (
    # Folders on the way to Python hold what leads to it, and libraries.
    """
    libraries = {'lib', 'lib32', 'lib64', 'share'}
    way = sys.executable
    for folder in OUTSIDE:
      if folder in ('..', '/.work', '/dev', '/etc', '/lib', '/usr'): continue
      if not way.startswith(folder):
        attempt(folder, lambda: os.listdir(folder))
    while way != '/':
      way, name = os.path.split(way)
      others = {*os.listdir(way)} - libraries - {name}
      if others and way != '/': print(way, others)
    print(os.listdir('.'), sorted(os.listdir('/dev')), os.listdir('/etc'))
    """,
    lambda r: r.output == b"[] ['null', 'urandom'] ['ld.so.cache']\n",
  ),
  'reading the environment': (
    """
      print(dict(os.environ))
      for who in ('self', 1, 2, os.getppid()):
        attempt(who, lambda: open(f'/proc/{who}/environ').read())
      """,
    lambda r: _SECRET.encode() not in r.output and b'worked' not in r.output,
  ),
  'reading open files of the parent': (
    """
      for number in range(3, 1024):
        attempt(number, lambda: os.read(number, 100), lambda: os.fstat(number))
      print('tried')
      """,
    lambda r: r.output == b'tried\n',
  ),
  'opening sockets': (
    _SOCKETS,
    lambda r: r.output == b'tried\n',
  ),
  'sockets of TCP, which outlive their descriptor where they are mapped': (
    """
      import socket
      for family in (socket.AF_INET, socket.AF_INET6):
        attempt(family, lambda: socket.socket(family, socket.SOCK_STREAM))
      print('tried')
      """,
    lambda r: r.output == b'tried\n',
  ),
  'killing others': (
    """
      import signal
      for who in (1, os.getppid(), OUTER):
        attempt(who, lambda: os.kill(who, signal.SIGTERM) if who > 2 else 1/0)
        try: os.kill(who, signal.SIGKILL)
        except OSError: pass
      try: os.kill(-1, signal.SIGKILL)
      except OSError: pass
      attempt('ptrace', lambda: ctypes.CDLL(None).ptrace(16, 1, 0, 0) and 1/0)
      print('still here')
      """,
    lambda r: r.exit_code == 0 and r.output == b'still here\n',
  ),
  'an endless loop': (
    'while True: pass',
    lambda r: r.stopped == 'time' or r.exit_code == -9,
  ),
  'sleep': ('time.sleep(99)', lambda r: r.stopped == 'time'),
  'raised limits': (
    """
      import resource
      for name in 'CPU AS FSIZE NPROC NOFILE MSGQUEUE MEMLOCK'.split():
        kind = getattr(resource, 'RLIMIT_' + name)
        attempt(name, lambda: resource.setrlimit(kind, (-1, -1)))
      print('tried')
      """,
    lambda r: r.output == b'tried\n',
  ),
  'a crash': ('ctypes.string_at(0)', lambda r: r.exit_code == -11),
  'no program': ('def f(:', lambda r: r.exit_code == 1),
}


def _sources(world):
  """The attacks, and a good program behind every one."""
  values = {
    'OUTSIDE': _OUTSIDE + (os.path.dirname(world.file),),
    'MARK': sandboxed.MARK,
    'THE_FILE': world.file,
    'THE_PORT': world.port,
    'THE_NAME': world.abstract,
    'OUTER': os.getpid(),
  }
  found = []
  for text, _ in _ATTACKS.values():
    found += [sandboxed.program(text, **values), sandboxed.program(_GOOD)]
  return found


@pytest.fixture(scope='module')
def world():
  """Something to steal: a variable, an open file, a socket, a text."""
  sandboxed.needed()
  # Open to everybody, so that it is the sandbox that keeps it.
  folder = pathlib.Path(tempfile.mkdtemp())
  file = folder / 'text'
  file.write_text(_SECRET)
  folder.chmod(0o777)
  file.chmod(0o666)
  descriptor = os.open(file, os.O_RDONLY)
  os.set_inheritable(descriptor, True)
  abstract = f'{sandboxed.MARK}socket'
  with (
    pytest.MonkeyPatch.context() as patch,
    socket.create_server(('127.0.0.1', 0)) as server,
    socket.socket(socket.AF_UNIX) as local,
  ):
    patch.setenv('SECRET', _SECRET)
    local.bind('\0' + abstract)
    local.listen()
    port = server.getsockname()[1]
    yield _World(descriptor, port, abstract, str(file))
  os.close(descriptor)
  shutil.rmtree(folder)


@pytest.fixture(
  scope='module', params=['here', pytest.param('home', marks=sandboxed.AS_ROOT)]
)
def results(world, request, tmp_path_factory):
  """Of all attacks by name, and of a good program behind every one."""
  sources = _sources(world)
  folders = set(os.listdir(tempfile.gettempdir()))
  if request.param == 'here':
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
      run = functools.partial(sandbox.run, limits=sandboxed.LIMITS)
      found = list(pool.map(run, sources))
  else:
    package = sandboxed.copied(tmp_path_factory.mktemp('package'))
    home = sandboxed.home(package, user=sandboxed.ORDINARY)
    found = sandboxed.run_in(home, sources, pass_fds=[world.descriptor])
  new = set(os.listdir(tempfile.gettempdir())) - folders
  assert not [name for name in new if sandboxed.MARK in name]
  return dict(zip(_ATTACKS, zip(found[::2], found[1::2]), strict=True))


@pytest.mark.parametrize('name', _ATTACKS)
def test_an_attack_comes_to_nothing_and_the_next_program_runs(name, results):
  attack, good = results[name]
  as_expected = _ATTACKS[name][1]
  assert as_expected(attack), attack
  assert good == sandbox.Result(0, b"['a'] b\n")


def test_nothing_is_left_of_any_of_them(results, world):
  assert sandboxed.gone()
  assert pathlib.Path(world.file).read_text() == _SECRET
  folders = [pathlib.Path.home(), pathlib.Path('/tmp'), pathlib.Path('/')]
  folders += [_FILE.parent, *pathlib.Path(__file__).parents[:3]]
  assert not [f for f in folders if (f / sandboxed.MARK).exists()]


def test_a_network_where_the_caller_says_so(world):
  sandboxed.needed(network=True)
  source = sandboxed.program(
    _SOCKETS, THE_PORT=world.port, THE_NAME=world.abstract
  )
  found = sandbox.run(source, limits=sandboxed.LIMITS, network=True).output
  assert b'local worked' in found and b'abstract worked' in found
  assert found.count(b'worked') - found.count(b'far worked') == 2


# In a session keyring of its own, which a program would come into.
_WITH_A_KEY = """
import ctypes, os
from speccascade_jax.data import sandbox, sandbox_filter
call = ctypes.CDLL(None, use_errno=True).syscall
numbers = sandbox_filter.refused(os.uname().machine)
keyctl, add_key = numbers['keyctl'], numbers['add_key']
joined = call(keyctl, 1, b'of the test')
key = call(add_key, b'user', b'mine', b'secret', 6, -3)
if -1 in (joined, key):
  sys.exit('no keyrings')
source = f'''
import ctypes
call = ctypes.CDLL(None).syscall
text = ctypes.create_string_buffer(99)
print(call({keyctl}, 10, -3, b'user', b'mine', 0))  # KEYCTL_SEARCH
print(call({keyctl}, 11, {key}, text, 99), text.value)  # KEYCTL_READ
print(call({add_key}, b'user', b'left', b'x', 1, -3))
'''
print(sandbox.run(source).output.decode().split('\\n'))
print(call(keyctl, 10, -3, b'user', b'left', 0))
"""


def test_keys_of_the_caller_are_not_read_and_none_is_added(world, tmp_path):
  done = sandboxed.started(sandboxed.copied(tmp_path), _WITH_A_KEY)
  if 'no keyrings' in done.stderr:
    pytest.skip('the system has no keyrings')
  assert done.stdout == "['-1', \"-1 b''\", '-1', '']\n-1\n", done.stderr
