"""A seqio task of six sentences, for T5X's programs to run on."""

from __future__ import annotations

import functools

import seqio
import tensorflow as tf

from speccascade_jax.data import debian
from speccascade_jax.data import metrics
from speccascade_jax.data import preprocessors
from speccascade_jax.data import vocabulary

PREFIX = debian.PREFIXES['debian_en_de']
PAIRS = (
  ('It is a small text editor.', 'Es ist ein kleiner Texteditor.'),
  ('library for reading images', 'Bibliothek zum Lesen von Bildern'),
  ('This package contains the documentation.', 'Dieses Paket enthält sie.'),
  ('a game', 'ein Spiel'),
  ('It can read and write many file formats.', 'Es liest viele Formate.'),
  ('Python bindings for the KDE libraries', 'Python-Anbindungen für KDE'),
)
LENGTHS = {'inputs': 24, 'targets': 16}


def _dataset(split, shuffle_files=False, seed=None):
  del split, shuffle_files, seed
  sources, targets = zip(*PAIRS, strict=True)
  return tf.data.Dataset.from_tensor_slices(
    {'source': list(sources), 'target': list(targets)}
  )


seqio.TaskRegistry.add(
  'six_sentences',
  source=seqio.FunctionDataSource(_dataset, splits=['test']),
  preprocessors=[
    functools.partial(preprocessors.text_to_text, prefix=PREFIX),
    seqio.preprocessors.tokenize,
    seqio.preprocessors.append_eos_after_trim,
  ],
  output_features={
    name: seqio.Feature(vocabulary.debian(), add_eos=True)
    for name in ('inputs', 'targets')
  },
  metric_fns=[metrics.bleu],
)
