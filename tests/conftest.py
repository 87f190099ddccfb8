"""What all tests share."""

import os
import pathlib

# Most of the time goes into compiling programs that run for milliseconds. This
# leaves out LLVM's optimisations, not XLA's: two thirds of the time. To test
# what users run: XLA_FLAGS= make test
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')
# The commands would keep programs in the user's own cache folder. Keeping them
# for the tests alone does not pay: few are asked for twice, and a cold run took
# 53 s with such a folder and 45 s without (the launch tests).
os.environ.setdefault('JAX_ENABLE_COMPILATION_CACHE', '0')

import jax
import pytest

# Each compiled program holds some memory mappings, of which Linux grants a
# process 65,530: a worker that kept every program would crash while compiling.
_MAPPINGS = pathlib.Path('/proc/self/maps')
_MANY = 40_000
# Counting them takes as long as a quick test: not before this many programs.
_PROGRAMS = 100
_compiled = 0


def _count(event: str, seconds: float, **_):
  del seconds
  global _compiled
  _compiled += event == '/jax/core/compile/backend_compile_duration'


jax.monitoring.register_event_duration_secs_listener(_count)


@pytest.fixture(autouse=True)
def forget_programs():
  """Compiled programs go when there are too many of them."""
  global _compiled
  yield
  if _compiled < _PROGRAMS or not _MAPPINGS.exists():
    return
  _compiled = 0
  if _MAPPINGS.read_bytes().count(b'\n') > _MANY:
    jax.clear_caches()
