"""What a plan looks like on a terminal."""

import pytest

from speccascade_jax import footprint
from speccascade_jax.launch import planning
from speccascade_jax.launch import planning_texts


@pytest.mark.parametrize(
  ('has', 'told'),
  [
    (4 * 10**9, '3.00 GB on one device, 75% of the 4.00 GB that it has'),
    (2 * 10**9, '3.00 GB on one device: OVER the 2.00 GB that it has'),
    (None, '3.00 GB on one device'),
  ],
)
def test_memory_is_compared_with_that_of_one_device(has, told):
  """Which is not what each of the cores has that are counted."""
  plan = planning.Plan([footprint.Part('verifier', 3 * 10**9, 'float32')])
  text = planning_texts.text(plan, devices='2 x CPU', device_memory=has)
  devices, memory, *_ = text.splitlines()
  assert devices.split() == ['devices', '2', 'x', 'CPU']
  assert memory.split(maxsplit=1) == ['memory', told]
