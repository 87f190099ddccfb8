"""A seqio source over a shipped corpus that many hosts can share."""

from __future__ import annotations

import pathlib

import numpy as np
import seqio
import tensorflow as tf

from speccascade_jax.data import corpora

# At most so many hosts read without overlap; seqio shards the examples of a
# finished pipeline for more. A TPU v3-512 has 64 hosts.
NUM_SHARDS = 64


class CorpusDataSource(seqio.FileDataSource):
  """The pairs of a corpus as {'source': text, 'target': text}.

  Each split is one file, since xz packs that a third smaller than 64 files;
  shard i of n is every n-th line from line i. Interleaved line by line, which
  is what `block_length` says, all shards together are the file in its order,
  and the shards of one host are its lines in their order:

    line    0  1  2  3  4  5  6 ...
    host    0  1  0  1  0  1  0 ...       two hosts

  Whatever reads a shard decompresses the file, once in a process (0.3 s for
  the largest).
  """

  def __init__(
    self,
    corpus: str,
    *,
    folder: pathlib.Path | None = None,
    num_shards: int = NUM_SHARDS,
  ):
    """A source of all splits of `corpus`.

    Args:
      corpus: one of `corpora.CORPORA`.
      folder: another build of the corpora; by default those of the package.
      num_shards: how many shards `list_shards` offers.

    Raises:
      ValueError: if there is no such corpus.
      FileNotFoundError: if a split's file is missing.
    """
    self._corpus = corpus
    self._folder = folder
    self._num_shards = num_shards
    super().__init__(
      read_file_fn=self._read_shard,
      split_to_filepattern={
        split: str(corpora.path(corpus, split, folder=folder))
        for split in corpora.SPLITS
      },
      cycle_length=num_shards,
      block_length=1,
    )

  def list_shards(self, split: str) -> list[str]:
    """Names of the form 'test/3-of-64', which only this source reads."""
    count = self._num_shards
    return [f'{split}/{i}-of-{count}' for i in range(count)]

  def num_input_examples(self, split: str) -> int:
    """Pairs in the split."""
    return len(self._pairs(split))

  def get_dataset(self, split: str = 'train', *args, **kwargs):
    """As in `seqio.FileDataSource`; a damaged file raises here."""
    # In the pipeline the same error would arrive wrapped in TensorFlow's.
    self._pairs(split)
    return super().get_dataset(split, *args, **kwargs)

  def _pairs(self, split: str) -> tuple[corpora.Pair, ...]:
    return corpora.read(self._corpus, split, folder=self._folder)

  def _read_shard(self, shard: tf.Tensor) -> tf.data.Dataset:
    def rows(name: bytes) -> np.ndarray:
      split, part = name.decode().split('/')
      index = int(part.split('-')[0])
      pairs = self._pairs(split)[index :: self._num_shards]
      # Without a pair NumPy would make it [0].
      return np.array(pairs, dtype=object).reshape(-1, 2)

    text = tf.numpy_function(rows, [shard], tf.string)
    text.set_shape([None, 2])
    return tf.data.Dataset.from_tensor_slices(
      {'source': text[:, 0], 'target': text[:, 1]}
    )
