"""Pre- and postprocessors that seqio does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import json
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from speccascade_jax.data import few_shot


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


def few_shot_prompt(
  dataset: tf.data.Dataset,
  *,
  read: Callable[[Mapping[str, Any]], few_shot.Example],
  drawn: Callable[[], Sequence[few_shot.Example]],
  layout: few_shot.Layout,
  shots: int,
) -> tf.data.Dataset:
  """Puts exemplars before the question of each example that has an answer.

  Args:
    dataset: of examples, which may be nested in dictionaries.
    read: makes an example's NumPy arrays what a prompt shows.
    drawn: the exemplars, one more than are shown, as `few_shot.draw` returns
      them; called once, when a split is read.
    layout: how they are written.
    shots: how many are shown.

  Returns:
    A dataset of {'inputs': prompt, 'targets': what would complete it, 'answer':
    the JSON of what the metrics compare with}, scalars of type string;
    `target_of` reads the last.

  Raises:
    ValueError: if there are too few exemplars for one of the examples.
  """
  exemplars = drawn()
  spec = dataset.element_spec
  if len(exemplars) <= shots:
    # None is in reserve for an example that is an exemplar itself. In the
    # pipeline the error would arrive wrapped, in the midst of an evaluation.
    for row in dataset.as_numpy_iterator():
      few_shot.shown(exemplars, read(row).question, shots)

  def texts(*arrays: np.ndarray) -> tuple[bytes, ...]:
    example = read(tf.nest.pack_sequence_as(spec, arrays))
    others = few_shot.shown(exemplars, example.question, shots)
    if example.answer is None:
      return b'', b'', b''  # Left out: no metric could tell.
    made = (
      layout.prompt(others, example.question),
      layout.completion(example),
      json.dumps(example.target),
    )
    return tuple(text.encode() for text in made)

  def with_prompt(row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    made = tf.numpy_function(texts, tf.nest.flatten(row), [tf.string] * 3)
    for tensor in made:
      tensor.set_shape([])
    return dict(zip(('inputs', 'targets', 'answer'), made))

  dataset = dataset.map(with_prompt, num_parallel_calls=tf.data.AUTOTUNE)
  return dataset.filter(lambda row: row['answer'] != '')


def target_of(
  output: str,
  *,
  example: Mapping[str, Any] | None = None,
  is_target: bool = False,
  **unused: Any,
) -> Any:
  """seqio's `postprocess_fn` of tasks whose targets are more than a text.

  Returns:
    What 'answer' of `example` says in JSON, for a target; a prediction as it
    is: the metrics look for the answer in it.
  """
  if not is_target:
    return output
  assert example is not None  # seqio gives it with every target.
  return json.loads(example['answer'])


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
