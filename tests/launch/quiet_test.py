"""Start-up messages stay off the terminal; errors do not."""

import subprocess
import sys

import pytest

from speccascade_jax.launch import quiet


def test_only_what_is_written_inside_is_dropped(capfd):
  print('before', file=sys.stderr)
  with quiet.native_stderr_closed():
    subprocess.run(['sh', '-c', 'echo inside >&2'], check=True)
  print('after', file=sys.stderr)
  assert capfd.readouterr().err == 'before\nafter\n'


def test_an_error_comes_through_and_ends_the_silence(capfd):
  with pytest.raises(ImportError), quiet.native_stderr_closed():
    import a_library_nobody_has  # noqa: F401
  print('after', file=sys.stderr)
  assert capfd.readouterr().err == 'after\n'


def test_what_a_user_has_set_stands(monkeypatch):
  monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '0')
  monkeypatch.delenv('NO_GCE_CHECK', raising=False)
  quiet.set_environment()
  assert quiet.os.environ['TF_CPP_MIN_LOG_LEVEL'] == '0'
  assert quiet.os.environ['NO_GCE_CHECK'] == 'true'


def test_loading_a_task_says_nothing():
  code = (
    'from speccascade_jax.launch import inputs\n'
    "print(len(inputs.load_task('debian_en_de', 'test', 2, 0)[0]))\n"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout == '2\n'
  assert done.stderr == ''


def test_an_interrupted_command_leaves_at_once():
  """Taking Python down beneath threads that compile would crash."""
  code = (
    'import atexit, sys\n'
    'from speccascade_jax import __main__ as commands\n'
    'from speccascade_jax.launch import report\n'
    'def interrupt(argv):\n'
    '  raise KeyboardInterrupt\n'
    'report.main = interrupt\n'
    "atexit.register(print, 'taken down')\n"
    "sys.exit(commands.main(['report']))\n"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert (done.returncode, done.stdout) == (130, '')
  assert done.stderr == '\nspeccascade report: interrupted\n'
