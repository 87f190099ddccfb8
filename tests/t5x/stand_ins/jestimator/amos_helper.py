"""The name that T5X mentions beside `amos`."""


def state_partition_rule(*args, **kwargs):
  """Nothing asks for it."""
  raise NotImplementedError('This is a stand-in for jestimator.amos_helper.')
