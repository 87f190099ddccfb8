"""What all tests share."""

import jax
import pytest


@pytest.fixture(autouse=True, scope='module')
def forget_programs():
  """Compiled programs go when the last test of a file is done.

  Each holds some memory mappings, of which a process may have 65,530: a worker
  that kept the programs of all files would crash while compiling.
  """
  yield
  jax.clear_caches()
