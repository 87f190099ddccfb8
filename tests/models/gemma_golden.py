"""Loads the golden arrays: Hugging Face's Gemmas under our names."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib

import numpy as np

from speccascade_jax.checkpoints import hf_configs
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import translate
from speccascade_jax.models.gemma import config as gemma_config
from tests.checkpoints import sources

GOLDENS = pathlib.Path(__file__).parents[1] / 'goldens'
CASES = ['gemma_1', 'gemma_2', 'gemma_3', 'gemma_3_stretched']


@dataclasses.dataclass(frozen=True, eq=False)
class Golden:
  config: gemma_config.GemmaConfig
  hf_config: dict
  weights: dict[str, np.ndarray]  # Hugging Face's.
  params: dict
  tokens: np.ndarray  # [B, T]
  logits: np.ndarray  # [B, T, V], behind every token.


@functools.cache
def load(name: str) -> Golden:
  path = GOLDENS / f'{name}.npz'
  with np.load(path) as arrays:
    arrays = dict(arrays)
  hf_config = json.loads(str(arrays['config']))
  config = hf_configs.read(hf_config, path)
  weights = {
    key.removeprefix('weights/'): value
    for key, value in arrays.items()
    if key.startswith('weights/')
  }
  params = translate.load(
    sources.Arrays(weights),
    huggingface.table_of(config),
    config,
    dtype='float32',
  )
  tokens = arrays['tokens'].astype(np.int32)
  return Golden(config, hf_config, weights, params, tokens, arrays['logits'])
