"""The names of AirIO that T5X mentions; nothing is an instance of them."""


class DatasetProviderBase:
  """What a seqio task is not."""


class Task(DatasetProviderBase):
  """Likewise."""


class Mixture(DatasetProviderBase):
  """Likewise."""


class AirIODatasetIterator:
  """Likewise."""
