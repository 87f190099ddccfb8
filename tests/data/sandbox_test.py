"""Attacks on the sandbox, each of them really run.

Every attack prints what it achieved, or is found out from outside. They run
two at a time, and between them programs that have to come out well.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid

import pytest

from speccascade_jax.data import sandbox

_FILE = pathlib.Path(sandbox.__file__)
_LIMITS = sandbox.Limits(
  cpu_s=1,
  wall_s=2.0,
  memory_bytes=256 * 2**20,
  file_bytes=2**20,
  processes=4,
  output_bytes=20_000,
)
# What the processes of this test run are called, to find those that are left.
_MARK = f'sb{uuid.uuid4().hex[:10]}'
_SECRET = f'secret{uuid.uuid4().hex}'

_PRELUDE = f"""
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(15, b'{_MARK}', 0, 0, 0)  # PR_SET_NAME
def attempt(name, *does):
  for do in does:
    try:
      found = do()
    except BaseException:
      continue
    print(name, 'worked:', found)
"""


@dataclasses.dataclass(frozen=True)
class _World:
  """What of the outside there is to reach."""

  descriptor: int
  port: int
  abstract: str
  file: str


def _python(text, **values):
  text = textwrap.dedent(text)
  for name, value in values.items():
    text = text.replace(name, repr(value))
  return _PRELUDE + text


def _attacks(world):
  """Programs by name, and what has to become of them."""
  outside = [
    str(pathlib.Path.home()),
    str(pathlib.Path(__file__).parents[2]),
    *(str(_FILE.parent), os.path.dirname(world.file), os.path.dirname(_PYTHON)),
    *('/', '/tmp', '/var/tmp', '/dev', '/dev/shm', '/proc', '/sys', '/etc'),
    *('/usr', '/lib', '..', '/.work'),
  ]
  return {
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
    'memory of a file system, or shared': (
      """
      libc = ctypes.CDLL(None, use_errno=True)
      print(libc.shmget(0, 2**20, 0o1666), libc.unshare(0x10000000))
      """,
      lambda r: r.output == b'-1 -1\n',
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
      _with(
        """
        for n, folder in enumerate(OUTSIDE):
          path = os.path.join(folder, MARK)
          if os.path.abspath(path) == '/.work/' + MARK: continue
          attempt(path, lambda: open(path, 'w'), lambda: os.makedirs(path),
                  lambda: os.symlink('/', path), lambda: os.mknod(path))
          os.symlink(path, f'link{n}')
          attempt(path, lambda: open(f'link{n}', 'w'))
        attempt('file', lambda: open(FILE, 'a'), lambda: os.remove(FILE),
                lambda: open(FILE).read())
        print('tried')
        """,
        OUTSIDE=outside,
        MARK=_MARK,
        FILE=world.file,
      ),
      lambda r: r.output == b'tried\n',
    ),
    'changing what is there': (
      """
      own = os.__file__
      attempt('own', lambda: os.remove(own), lambda: open(own, 'a'),
              lambda: os.chmod(own, 0o777), lambda: os.utime(own),
              lambda: os.rename(own, own + 'x'), lambda: os.link(own, 'x'),
              lambda: open('/.program.py', 'a'), lambda: os.chmod('/', 0o777))
      libc = ctypes.CDLL(None, use_errno=True)
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
      _with(
        """
        for folder in OUTSIDE:
          if folder in ('/', '/dev', '/etc', '/usr', '/lib', '..', '/.work'):
            continue
          attempt(folder, lambda: os.listdir(folder) and FILE)
        print(os.listdir('.'), sorted(os.listdir('/dev')), os.listdir('/etc'))
        """,
        OUTSIDE=[folder for folder in outside if folder not in _PYTHON],
        FILE=world.file,
      ),
      lambda r: r.output == b"[] ['null', 'urandom', 'zero'] ['ld.so.cache']\n",
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
      _with(_SOCKETS, PORT=world.port, ABSTRACT=world.abstract),
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
      """.replace('OUTER', str(os.getpid())),
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
      for name in 'CPU AS FSIZE NPROC NOFILE'.split():
        kind = getattr(resource, 'RLIMIT_' + name)
        attempt(name, lambda: resource.setrlimit(kind, (-1, -1)))
      print('tried')
      """,
      lambda r: r.output == b'tried\n',
    ),
    'a crash': ('ctypes.string_at(0)', lambda r: r.exit_code == -11),
    'no program': ('def f(:', lambda r: r.exit_code == 1),
  }


_PYTHON = os.path.realpath(getattr(sys, '_base_executable', sys.executable))
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
attempt('local', lambda: connect(I, T, ('127.0.0.1', PORT)))
attempt('abstract', lambda: connect(U, T, '\\0' + ABSTRACT))
attempt('far', lambda: connect(I, T, ('1.1.1.1', 53)),
        lambda: connect(I, D, ('8.8.8.8', 53)),
        lambda: socket.getaddrinfo('example.org', 80))
attempt('raw', lambda: socket.socket(I, socket.SOCK_RAW, 1),
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
print('tried')
"""


def _with(text, **values):
  text = textwrap.dedent(text)
  for name, value in values.items():
    text = text.replace(name, repr(value))
  return text


def _left():
  """Processes of this test run's programs."""
  found = []
  for comm in pathlib.Path('/proc').glob('[0-9]*/comm'):
    try:
      if comm.read_text().strip() == _MARK:
        found.append(comm.parent.name)
    except OSError:
      pass
  return found


def _gone(seconds=5.0):
  """That none is left, after the kernel has had time to bury them."""
  until = time.monotonic() + seconds
  while _left() and time.monotonic() < until:
    time.sleep(0.02)
  return not _left()


def _needs_a_sandbox():
  try:
    sandbox.check()
  except sandbox.SandboxError as error:
    pytest.skip(str(error))


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """Something to steal: a variable, an open file, a socket, a text."""
  _needs_a_sandbox()
  file = tmp_path_factory.mktemp('outside') / 'text'
  file.write_text(_SECRET)
  descriptor = os.open(file, os.O_RDONLY)
  os.set_inheritable(descriptor, True)
  abstract = f'{_MARK}socket'
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


_GOOD = "open('a', 'w').write('b'); print(os.listdir(), open('a').read())"
_NAMES = tuple(_attacks(_World(0, 0, '', '/x/y')))


@pytest.fixture(scope='module')
def results(world):
  """Of all attacks by name, and of a good program behind every one."""
  sources = []
  for source, _ in _attacks(world).values():
    sources += [_python(source), _python(_GOOD)]
  folders = set(os.listdir(tempfile.gettempdir()))
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    found = list(pool.map(lambda s: sandbox.run(s, limits=_LIMITS), sources))
  new = set(os.listdir(tempfile.gettempdir())) - folders
  assert not [name for name in new if _MARK in name]
  return dict(zip(_NAMES, zip(found[::2], found[1::2]), strict=True))


@pytest.mark.parametrize('name', _NAMES)
def test_an_attack_comes_to_nothing_and_the_next_program_runs(
  name, results, world
):
  attack, good = results[name]
  as_expected = _attacks(world)[name][1]
  assert as_expected(attack), attack
  assert good == sandbox.Result(0, b"['a'] b\n")


def test_nothing_is_left_of_any_of_them(results, world):
  assert _gone()
  assert pathlib.Path(world.file).read_text() == _SECRET
  folders = [pathlib.Path.home(), pathlib.Path('/tmp'), pathlib.Path('/')]
  folders += [_FILE.parent, pathlib.Path(__file__).parents[2]]
  assert not [f for f in folders if (f / _MARK).exists()]


def _watched(source, **settings):
  """A result, and most processes that there were at a time meanwhile."""
  most, done = 0, threading.Event()

  def watch():
    nonlocal most
    while not done.is_set():
      most = max(most, len(_left()))
      time.sleep(0.01)

  watcher = threading.Thread(target=watch)
  watcher.start()
  try:
    result = sandbox.run(source, limits=_LIMITS, **settings)
  finally:
    done.set()
    watcher.join()
  return result, most


def test_what_detaches_itself_ends_with_the_program(world):
  """Double fork, a session of its own, no signal taken: a daemon's way."""
  source = _python("""
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
  assert _gone()


def test_a_fork_bomb_stays_within_its_number(world):
  """Each as eager as the first, and all of them gone in the end."""
  source = _python("""
    while True:
      try: os.fork()
      except OSError: time.sleep(0.01)
  """)
  result, most = _watched(source)
  assert result.stopped == 'time'
  assert most == _LIMITS.processes
  assert _gone()


def test_cpu_time_is_over_whatever_the_program_does(world):
  """Takes no signal, catches everything, closes what is listened to."""
  source = _python("""
    import signal
    for number in range(1, 65):
      try: signal.signal(number, signal.SIG_IGN)
      except (OSError, ValueError): pass
    os.close(1), os.close(2)
    while True:
      try: raise SystemExit
      except BaseException: pass
  """)
  limits = dataclasses.replace(_LIMITS, wall_s=60.0)
  result = sandbox.run(source, limits=limits)
  assert result == sandbox.Result(-9, b'')


def test_a_network_where_the_caller_says_so(world):
  source = _python(_with(_SOCKETS, PORT=world.port, ABSTRACT=world.abstract))
  output = sandbox.run(source, limits=_LIMITS, network=True).output
  assert b'local worked' in output and b'abstract worked' in output
  assert b'raw worked' not in output


def test_a_killed_caller_takes_its_program_along(world):
  code = (
    'import sys; sys.path.insert(0, sys.argv[1]); import sandbox; '
    'sandbox.run(sys.argv[2])'
  )
  source = _python('time.sleep(99)')
  process = subprocess.Popen(
    [sys.executable, '-S', '-c', code, str(_FILE.parent), source]
  )
  until = time.monotonic() + 20
  while not _left() and time.monotonic() < until:
    time.sleep(0.02)
  assert _left()
  os.kill(process.pid, signal.SIGKILL)
  process.wait()
  assert _gone()


def test_reads_what_it_is_given_and_tells_how_it_ended(world):
  source = 'import sys; print(sys.stdin.read().upper()); sys.exit(3)'
  result = sandbox.run(source, stdin='größe', limits=_LIMITS)
  assert result == sandbox.Result(3, 'GRÖSSE\n'.encode())


def _elsewhere(*prefix, code='import sandbox; sandbox.check()', **settings):
  """What is said by an interpreter that is started in another situation."""
  program = f'import sys; sys.path.insert(0, {str(_FILE.parent)!r}); {code}'
  found = subprocess.run(
    [*prefix, sys.executable, '-S', '-c', program],
    capture_output=True,
    text=True,
    **settings,
  )
  return (found.stderr.strip() or found.stdout).splitlines()[-1]


_AS_ROOT = pytest.mark.skipif(
  os.geteuid() != 0 or not shutil.which('unshare'),
  reason='only root can take namespaces away',
)


_ORDINARY = ('unshare', '-U', '--map-user=1000', '--map-group=1000')


@_AS_ROOT
@pytest.mark.parametrize(
  ('kind', 'user', 'said'),
  [('user', (), 'user.max_user_name'), ('net', _ORDINARY, "'with_network'")],
)
def test_refused_where_namespaces_are_not_to_be_had(kind, user, said, world):
  """In a namespace that allows no further one of a kind."""
  none = f'echo 0 > /proc/sys/user/max_{kind}_namespaces; exec "$@"'
  prefix = ['unshare', '-Ur', 'sh', '-c', none, 'sh', *user]
  message = _elsewhere(*prefix)
  assert message.startswith('sandbox.SandboxError: Programs cannot')
  assert said in message


@_AS_ROOT
def test_refused_where_processes_cannot_be_counted(world):
  """Root under another name: exempt from the limit, which the trial finds."""
  assert 'the number of processes is not limited' in _elsewhere(*_ORDINARY)


def test_refused_where_there_is_no_linux(world):
  code = "sys.platform = 'darwin'; import sandbox; sandbox.run('')"
  assert 'which darwin does not have' in _elsewhere(code=code)


@_AS_ROOT
def test_an_ordinary_user_has_the_same_sandbox(world):
  """With the system's Python, which such a user can read."""
  python = '/usr/bin/python3'
  newer = 'import sys; sys.exit(sys.version_info < (3, 11))'
  if (
    not os.path.exists(python)
    or subprocess.run([python, '-c', newer]).returncode
  ):
    pytest.skip('the system has no Python 3.11')
  code = textwrap.dedent("""
    import sys; sys.path.insert(0, '.'); import sandbox
    source = sys.stdin.read()
    limits = sandbox.Limits(cpu_s=1, wall_s=1.0)
    print(sandbox.run(source, limits=limits).output.decode())
    bomb = 'import os\\nwhile True:\\n  try: os.fork()\\n  except OSError: pass'
    result = sandbox.run(bomb, limits=limits)
    print(result.stopped or result.exit_code)
  """)
  source = "import os; print(os.getuid(), os.path.exists('/tmp'), os.listdir())"
  with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    for file in (_FILE, _FILE.with_name('sandbox_launcher.py')):
      shutil.copy(file, folder)
    found = subprocess.run(
      [python, '-c', code],
      **dict(input=source, cwd=folder, user=12345, group=12345),
      **dict(extra_groups=[], capture_output=True, text=True),
    )
  assert found.stderr == ''
  lines = found.stdout.split('\n')
  assert lines[0] == '12345 False []'
  assert lines[2] in ('time', '-9')
