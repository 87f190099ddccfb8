"""Preprocessors that seqio does not have."""

from __future__ import annotations

from collections.abc import Mapping

import seqio
import tensorflow as tf


@seqio.map_over_dataset
def text_to_text(
  example: Mapping[str, tf.Tensor], *, prefix: str
) -> dict[str, tf.Tensor]:
  """Makes a pair an example in T5's manner: the prefix names the task.

  Args:
    example: {'source': text, 'target': text}.
    prefix: what goes before the source, its space at the end included.

  Returns:
    {'inputs': prefix + source, 'targets': target, 'source': source}, scalars
    of type string. `source` stays as it is for those who read it.
  """
  return {
    'inputs': tf.strings.join([prefix, example['source']]),
    'targets': example['target'],
    'source': example['source'],
  }
