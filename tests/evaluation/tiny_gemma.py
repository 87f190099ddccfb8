"""A Gemma pair that is small enough to compile in seconds; random weights.

It reads a vocabulary of Gemma's own kind, see `chat_vocabulary`.
"""

from __future__ import annotations

from collections.abc import Iterable
import pathlib

import jax
import numpy as np

from speccascade_jax import vocabulary as vocabularies
from speccascade_jax.checkpoints import native
from speccascade_jax.data import corpora
from speccascade_jax.models import families
from speccascade_jax.models.gemma import config as gemma_config
from tests.data import chat_vocabulary


def save(folder: pathlib.Path, known: Iterable[str] = ()) -> dict[str, str]:
  """Writes both models below `folder`; the arguments of `load_pair`.

  Args:
    folder: of the vocabulary as well.
    known: texts whose tokens the models take to be likely, behind anything.
  """
  texts = [pair.source for pair in corpora.read('debian_en_de', 'test')[:300]]
  path = chat_vocabulary.train(folder, texts)
  words = vocabularies.Vocabulary(path)
  (end,) = words.encode('<end_of_turn>')
  found = {'vocabulary': str(path)}
  for seed, role in enumerate(('drafter', 'verifier')):
    config = gemma_config.GemmaConfig(
      vocab_size=words.size,
      emb_dim=16,
      num_layers=1 + seed,
      num_heads=2,
      num_kv_heads=1,
      head_dim=8,
      mlp_dim=32,
      attention_pattern=('local', 'global'),
      sliding_window=8,
      attn_logit_softcap=50.0,
      final_logit_softcap=30.0,
      use_post_norms=True,
    )
    params = families.init(config, jax.random.key(seed))
    embedding = np.array(params['token_embedder']['embedding'])
    # What every token brings along, the end of a turn more than the others (one
    # token in ten) and the end of a text not at all.
    embedding[:, 0] = 2.0
    embedding[end, 0] = 4.5 - 1.2 * seed
    embedding[words.eos_id, 0] = 0.0
    for token in {token for text in known for token in words.encode(text)}:
      embedding[token, 0] = 4.0
    params['token_embedder']['embedding'] = embedding
    native.save(folder / role, config, params)
    found[role] = str(folder / role)
  return found
