"""Tasks, corpora, metrics and batches. Importing it registers the tasks.

This package needs TensorFlow and seqio; nothing else here does but `launch`,
which imports it where it is used.
"""

import contextlib

import tensorflow as tf

# TensorFlow only reads text here. Left alone it would take most of the memory
# of a GPU that JAX needs.
with contextlib.suppress(RuntimeError):  # Its devices are set up already.
  tf.config.set_visible_devices([], 'GPU')

from speccascade_jax.data import debian  # noqa: F401
from speccascade_jax.data import gemma_tasks  # noqa: F401
from speccascade_jax.data import t5_tasks  # noqa: F401
