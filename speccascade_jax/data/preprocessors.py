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


@seqio.map_over_dataset
def continuation(
  example: Mapping[str, tf.Tensor], *, words: int
) -> dict[str, tf.Tensor]:
  """Makes a text an example of its own continuation.

  Args:
    example: {'source': text}.
    words: how many of the text, between spaces, are given.

  Returns:
    {'inputs': the first words, 'targets': the rest, with the space before it,
    'source': text}, scalars of type string. A shorter text has no rest.
  """
  text = example['source']
  pattern = rf'^((?:\S+\s+){{{words - 1}}}\S+)(?s:.*)$'
  long = tf.strings.regex_full_match(text, pattern)
  first = tf.strings.regex_replace(text, pattern, r'\1')
  inputs = tf.where(long, first, text)
  rest = tf.strings.substr(text, tf.strings.length(inputs), -1)
  return {'inputs': inputs, 'targets': rest, 'source': text}
