"""The pairs that are compared, the same weights for everyone.

    python -m experiments.benchmarks.compared random build/random

writes a pair as two Hugging Face folders, for any other library to read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import pathlib

import jax
import numpy as np

from experiments.benchmarks import embedded
import speccascade_jax as sc
from speccascade_jax import pair as pairs
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax import zoo
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.data import corpora
from speccascade_jax.launch import model_names
from speccascade_jax.models import families
from speccascade_jax.models import products
from speccascade_jax.models.t5 import config as t5_config

_TINY = t5_config.T5Config(
  vocab_size=96,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=1,
  num_decoder_layers=1,
)
_TINY_PAIR = (
  _TINY,
  dataclasses.replace(_TINY, emb_dim=24, num_heads=3, num_decoder_layers=2),
)
NAMES = ('debian', 'random', 'embedded', 'tiny')

INPUT_LENGTH = 64  # Tokens of an input to random weights, EOS included.
MAX_LENGTH = 128
_EOS_ID = 1


class Numbers:
  """A vocabulary for random weights: the word for a token is its number."""

  unk_id, eos_id, bos_id = 2, _EOS_ID, None

  def __init__(self, size: int):
    self.size = size

  def encode(self, text: str) -> list[int]:
    return [int(word) for word in text.split()]

  def decode(self, ids: Sequence[int]) -> str:
    return ' '.join(map(str, ids))

  def piece(self, token: int) -> str:
    return f'{token} '

  def is_special(self, token: int) -> bool:
    return token <= self.unk_id


@dataclasses.dataclass(frozen=True)
class Compared:
  """A pair, and what it is asked.

  Attributes:
    pair: drafter and verifier, float32.
    prompts: texts for `pair.generate`.
    inputs: the same as token ids, EOS included.
  """

  pair: pairs.Pair
  prompts: list[str]
  inputs: list[list[int]]


def load(name: str, num_prompts: int = 1) -> Compared:
  """A pair of `NAMES`, with that many prompts.

  Args:
    name: 'debian' is the shipped pair, asked for sentences of the test split;
      'random' is T5 v1.1 small drafting for base with random weights;
      'embedded' is the same small one drafting for itself in the shape of
      base; 'tiny' is for tests of the scripts.
    num_prompts: how many inputs.
  """
  if name == 'debian':
    pair = sc.load_pair(name, dtype='float32')
    prefix = zoo.PREFIXES[name]['debian_en_de']
    lines = corpora.read('debian_en_de', 'test')[:num_prompts]
    prompts = [prefix + line.source for line in lines]
  else:
    pair = _random(name)
    size = (num_prompts, INPUT_LENGTH - 1)
    rng = np.random.default_rng(0)
    rows = rng.integers(3, pair.vocabulary.size, size)
    prompts = [' '.join(map(str, row)) for row in rows]
  words = pair.vocabulary
  inputs = [[*words.encode(text), words.eos_id] for text in prompts]
  return Compared(pair, prompts, inputs)


def export(pair: pairs.Pair, folder: pathlib.Path) -> None:
  """Writes `folder/drafter` and `folder/verifier` for `from_pretrained`."""
  for name in ('drafter', 'verifier'):
    export_model(getattr(pair, name), folder / name)


def export_model(model: pairs.Model, folder: pathlib.Path) -> None:
  """Writes a folder for `from_pretrained`, float32."""
  params = jax.tree.map(np.asarray, model.params)
  huggingface.save(folder, model.config, params, 'float32')


def _random(name: str) -> pairs.Pair:
  if name == 'tiny':
    small, large = _TINY_PAIR
  else:
    small, large = map(model_names.config, ('t5_1_1_small', 't5_1_1_base'))
  models = {'drafter': (small, _params(small, 0))}
  if name == 'embedded':
    models['verifier'] = embedded.embed(*models['drafter'], large)
  else:
    models['verifier'] = (large, _params(large, 1))
  made = {
    role: pairs.Model(
      families.step_model(config, (_EOS_ID,)), products.lay_out(params), config
    )
    for role, (config, params) in models.items()
  }
  words = vocabularies.Vocabulary(Numbers(small.vocab_size))
  return pairs.Pair(made['drafter'], made['verifier'], words)


def _params(config: t5_config.T5Config, seed: int):
  params = jax.tree.map(np.array, families.init(config, jax.random.key(seed)))
  # A score of 0 among thousands around it is never the largest: no text ends
  # before the limit, in any library and without an option to any.
  params['decoder']['logits_dense']['kernel'][:, _EOS_ID] = 0.0
  return params


def main() -> None:
  """Exports a pair."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('name', choices=NAMES)
  parser.add_argument('folder', type=pathlib.Path)
  args = parser.parse_args()
  export(load(args.name).pair, args.folder)


if __name__ == '__main__':
  main()
