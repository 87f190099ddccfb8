"""A small T5 inside the shape of a larger one, with the same logits.

A pair of full size and full acceptance: the larger network costs what its shape
costs, and says what the small one says. The residual stream is padded with
zeros, additional heads and hidden units are silent, additional layers add
nothing::

  small   [ x_1 .. x_e ]             RMS norm: scale s
  larger  [ x_1 .. x_e 0 .. 0 ]      RMS norm: scale s * sqrt(e / E)
"""

from __future__ import annotations

import dataclasses
import math

from flax import traverse_util
import numpy as np

from speccascade_jax import base
from speccascade_jax.checkpoints import translate
from speccascade_jax.models.t5 import config as t5_config

# What is as wide as the larger model, and cannot be padded if it differs.
_SAME = (
  *('vocab_size', 'head_dim', 'mlp_activations'),
  *('relative_attention_num_buckets', 'relative_attention_max_distance'),
  'relative_attention_per_layer',
)
_WIDER = (
  *('emb_dim', 'num_heads', 'mlp_dim'),
  *('num_encoder_layers', 'num_decoder_layers'),
)


def embed(
  small: t5_config.T5Config, params: base.Params, larger: t5_config.T5Config
) -> tuple[t5_config.T5Config, base.Params]:
  """The small model's function as a model of the larger shape.

  Args:
    small: the small model's shape.
    params: its parameters.
    larger: the shape to fill.

  Returns:
    `larger` with the epsilon that makes its norms the same, and parameters.
    Logits differ by the rounding of sums in another order, no more.

  Raises:
    ValueError: if the one shape does not fit into the other.
  """
  for name in _SAME:
    if getattr(small, name) != getattr(larger, name):
      raise ValueError(
        f'{name} must be the same in both, got {getattr(small, name)!r} and '
        f'{getattr(larger, name)!r}.'
      )
  for name in _WIDER:
    if getattr(small, name) > getattr(larger, name):
      raise ValueError(
        f'{name} is {getattr(small, name)}, but the larger model has only '
        f'{getattr(larger, name)}.'
      )
  if small.logits_via_embedding or larger.logits_via_embedding:
    raise ValueError(
      'logits_via_embedding must be off: a tied head is scaled by the width.'
    )
  # A mean over E of which E - e are zeros is e / E of the mean over e.
  share = small.emb_dim / larger.emb_dim
  known = traverse_util.flatten_dict(params, sep='/')
  padded = {}
  for name, shape in translate.shapes(larger).items():
    value = np.zeros(shape, np.float32)
    if name in known:
      part = np.asarray(known[name])
      if name.endswith('/scale'):
        part = part * math.sqrt(share)
      value[tuple(map(slice, part.shape))] = part
    padded[name] = value
  config = dataclasses.replace(
    larger, layer_norm_epsilon=small.layer_norm_epsilon * share
  )
  return config, traverse_util.unflatten_dict(padded, sep='/')
