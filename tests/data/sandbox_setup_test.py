"""Where there is a sandbox and where none, and what is said then."""

import pathlib
import re
import shutil

import pytest

from tests.data import sandboxed

_AS_ORDINARY = ('unshare', '-U', '--map-user=1000', '--map-group=1000')
_CHECK = 'from speccascade_jax.data import sandbox; sandbox.check()'
_LOOK = """
from speccascade_jax.data import sandbox
source = '''
import os, sys
print(os.getuid(), os.listdir('/home'), os.listdir('/home/me'))
print(sorted(os.listdir('/home/me/python')), os.path.exists('/tmp'))
'''
print(sandbox.run(source).output.decode(), end='')
"""


@pytest.fixture(scope='module')
def package(tmp_path_factory):
  sandboxed.needed()
  return sandboxed.copied(tmp_path_factory.mktemp('package'))


def said(package, code=_CHECK, **settings):
  """The last line of what an interpreter says in another situation."""
  done = sandboxed.started(package, code, **settings)
  return (done.stderr.strip() or done.stdout).splitlines()[-1]


@sandboxed.AS_ROOT
@pytest.mark.parametrize(
  ('kind', 'user', 'told'),
  [('user', (), 'user.max_user_name'), ('net', _AS_ORDINARY, "'with_network'")],
)
def test_refused_where_namespaces_are_not_to_be_had(kind, user, told, package):
  """In a namespace that allows no further one of a kind."""
  none = f'echo 0 > /proc/sys/user/max_{kind}_namespaces; exec "$@"'
  message = said(
    package, prefix=['unshare', '-Ur', 'sh', '-c', none, '', *user]
  )
  assert 'SandboxError: Programs cannot' in message
  assert told in message


@sandboxed.AS_ROOT
def test_refused_where_processes_cannot_be_counted(package):
  """Root under another name: exempt from the limit, which the trial finds."""
  message = said(package, prefix=_AS_ORDINARY)
  assert 'the number of processes is not limited' in message


@pytest.mark.parametrize(
  ('line', 'told'),
  [
    ("import sys; sys.platform = 'darwin'", 'which darwin does not have'),
    (
      "import os; os.uname = lambda: type('', (), {'machine': 'sparc'})",
      'the system calls of sparc are not known, but those of x86_64 and',
    ),
  ],
)
def test_refused_on_other_systems(package, line, told):
  assert told in said(package, f'{line}\n{_CHECK}')


# A step of the launcher, what stands in its place, and what the trial finds.
_BROKEN = [
  (
    "_refuse_calls(bytes.fromhex(request['filter']))",
    'pass',
    'shmget is not refused',
  ),
  ("'AS': limits['memory_bytes'],", '', 'memory is not limited'),
  ("in request['hidden']:", 'in ():', '-packages can be seen'),
  (
    "in request['shown']:\n    _show",
    "in (*request['shown'], '/etc/passwd'):\n    _show",
    '/etc/passwd can be seen',
  ),
  (
    '_set_attributes(place, flags, recursive=True)',
    'pass',
    '/lib can be written to',
  ),
  ("if not request['network']:", 'if False:', 'this machine can be reached'),
  ("{'PYTHONHASHSEED': '0'}", "{'A': '0'}", 'the environment is inherited'),
]


def _broken(package, folder, step, instead):
  """A copy of the package with another step in the launcher."""
  broken = pathlib.Path(shutil.copytree(package, folder / 'broken'))
  file = broken / 'speccascade_jax' / 'data' / 'sandbox_launcher.py'
  text = file.read_text()
  assert text.count(step) == 1
  file.write_text(text.replace(step, instead))
  return broken


@pytest.mark.parametrize(('step', 'instead', 'told'), _BROKEN)
def test_the_trial_finds_what_is_not_done(
  step, instead, told, package, tmp_path
):
  message = said(_broken(package, tmp_path, step, instead))
  assert 'does not hold on this system' in message and told in message


def test_refused_where_the_kernel_takes_no_filter(package, tmp_path):
  mode = 'c_ulong(_SECCOMP_MODE_FILTER)'
  message = said(_broken(package, tmp_path, mode, 'c_ulong(99)'))
  assert '(seccomp filters: Invalid argument). It needs a kernel' in message


@sandboxed.AS_ROOT
@pytest.mark.parametrize('user', [0, sandboxed.ORDINARY])
def test_python_below_a_home_that_is_closed_to_others(user, package):
  home = sandboxed.home(package, user=user)
  done = sandboxed.started(
    home.package, _LOOK, prefix=home.prefix, python=home.python
  )
  assert done.stderr == ''
  first, second = done.stdout.splitlines()
  assert first == f"{user or 65534} ['me'] ['python']"
  folders, seen = second.rsplit(' ', 1)
  assert seen == 'False'
  assert set(re.findall(r"'([^']+)'", folders)) <= {'bin', 'lib', 'lib64'}


@sandboxed.AS_ROOT
def test_root_s_files_are_found_whatever_its_umask(package):
  assert said(package, f'{_CHECK}; print("holds")', umask=0o077) == 'holds'


@sandboxed.AS_ROOT
def test_a_python_that_nobody_can_read_is_named(package):
  """Copied by root for itself alone."""
  home = sandboxed.home(package, user=0)
  code = """
    import os, shutil
    python = shutil.copy(sys.executable, '/home/me/own')
    os.chmod(python, 0o700)
    from speccascade_jax.data import sandbox
    sys._base_executable = python
    sandbox.check()
  """
  done = sandboxed.started(
    home.package, code, prefix=home.prefix, python=home.python
  )
  assert 'Programs cannot be started in the sandbox (starting ' in done.stderr
  assert '/home/me/own: [Errno 13] Permission denied' in done.stderr
