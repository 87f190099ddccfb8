"""What the tests of the sandbox share: who runs programs, and what is left.

Programs of the tests begin with `PRELUDE`, by which their processes are found.
"""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import time
import uuid

import pytest

from speccascade_jax.data import sandbox

LIMITS = sandbox.Limits(
  cpu_s=1,
  wall_s=2.0,
  memory_bytes=256 * 2**20,
  file_bytes=2**20,
  processes=4,
  output_bytes=20_000,
)
ORDINARY = 12345  # A user that is not in the system's list.
PYTHON = os.path.realpath(getattr(sys, '_base_executable', sys.executable))

# What the processes of this test run are called, to find those that are left.
MARK = f'sb{uuid.uuid4().hex[:10]}'
PRELUDE = f"""
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(15, b'{MARK}', 0, 0, 0)  # PR_SET_NAME
def attempt(name, *does):
  for do in does:
    try:
      found = do()
    except BaseException:
      continue
    print(name, 'worked:', found)
"""


def _may_become_others():
  become = ('unshare', '-m', 'setpriv', f'--reuid={ORDINARY}', 'true')
  tools = all(map(shutil.which, ('unshare', 'setpriv')))
  return tools and not subprocess.run(become, capture_output=True).returncode


AS_ROOT = pytest.mark.skipif(
  os.geteuid() != 0 or not _may_become_others(),
  reason='only root, with all its rights, can become somebody else',
)


@functools.cache
def needed(*, network=False):
  """Skips where the system has no sandbox, fails where ours does not hold."""
  try:
    sandbox.check(network=network)
  except sandbox.SandboxError as error:
    if 'does not hold' in str(error):
      raise
    pytest.skip(str(error))


def program(text, **values):
  """A program: the prelude, and a text with names replaced by values."""
  text = textwrap.dedent(text)
  for name, value in values.items():
    text = text.replace(name, repr(value))
  return PRELUDE + text


def left():
  """Processes of this test run's programs."""
  found = []
  for comm in pathlib.Path('/proc').glob('[0-9]*/comm'):
    try:
      if comm.read_text().strip() == MARK:
        found.append(comm.parent.name)
    except OSError:
      pass
  return found


def gone(seconds=5.0):
  """That none is left, after the kernel has had time to bury them."""
  until = time.monotonic() + seconds
  while left() and time.monotonic() < until:
    time.sleep(0.02)
  return not left()


def copied(folder):
  """A package of the sandbox alone, which anybody may read.

  It is imported without the libraries of the package, by a Python that starts
  at once.
  """
  pathlib.Path(folder).chmod(0o755)
  package = pathlib.Path(folder) / 'speccascade_jax'
  (package / 'data').mkdir(parents=True)
  for part in (package, package / 'data'):
    (part / '__init__.py').touch()
  for file in pathlib.Path(sandbox.__file__).parent.glob('sandbox*.py'):
    shutil.copy(file, package / 'data')
  return package.parent


def started(package, code, *, prefix=(), python=sys.executable, **settings):
  """The process of an interpreter that has such a package alone, when over."""
  head = f'import sys; sys.path.insert(0, {str(package)!r})\n'
  return subprocess.run(
    [*prefix, python, '-I', '-S', '-c', head + textwrap.dedent(code)],
    capture_output=True,
    text=True,
    **settings,
  )


@dataclasses.dataclass(frozen=True)
class Home:
  """A user with a Python and the sandbox below a home of its own.

  Attributes:
    prefix: of a command that is run there.
    python: the interpreter.
    package: see `copied`.
  """

  prefix: tuple[str, ...]
  python: str
  package: str


def home(package, *, user, mode='700'):
  """For root: a home that is there for one command alone.

  Args:
    package: see `copied`.
    user: whose home it is, and who runs the command.
    mode: of the home.
  """
  base = os.path.realpath(sys.base_prefix)
  script = """
    set -e
    mount -t tmpfs -o mode=755 tmpfs /mnt
    mkdir -p /mnt/me/python /mnt/me/package
    mount --bind "$1" /mnt/me/python
    mount --bind "$2" /mnt/me/package
    echo secret > /mnt/me/text
    chown "$3" /mnt/me /mnt/me/text
    chmod "$4" /mnt/me
    mount --move /mnt /home  # Not before: Python may lie there.
    shift 4
    exec "$@"
  """
  become = f'setpriv --reuid={user} --regid={user} --clear-groups --'
  prefix = ('unshare', '-m', 'sh', '-c', script, 'sh', base, str(package))
  return Home(
    (*prefix, str(ORDINARY), mode, *(become.split() if user else ())),
    os.path.join('/home/me/python', os.path.relpath(PYTHON, base)),
    '/home/me/package',
  )


_RUN = """
import concurrent.futures, json
from speccascade_jax.data import sandbox
request = json.load(sys.stdin)
limits = sandbox.Limits(**request['limits'])
with concurrent.futures.ThreadPoolExecutor(2) as pool:
  for found in pool.map(
    lambda source: sandbox.run(source, limits=limits), request['sources']
  ):
    text = found.output.decode('latin-1')
    print(json.dumps([found.exit_code, text, found.stopped]))
"""


def run_in(where, sources, **settings):
  """Results of programs that are run in such a home, two at a time."""
  done = started(
    where.package,
    _RUN,
    prefix=where.prefix,
    python=where.python,
    input=json.dumps(
      {'sources': sources, 'limits': dataclasses.asdict(LIMITS)}
    ),
    **settings,
  )
  assert done.returncode == 0, done.stderr
  return [
    sandbox.Result(code, output.encode('latin-1'), stopped)
    for code, output, stopped in map(json.loads, done.stdout.splitlines())
  ]
