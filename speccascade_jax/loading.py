"""From checkpoints of any format to a pair that can decode."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib

import jax

from speccascade_jax import base
from speccascade_jax import pair as pairs
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax import zoo
from speccascade_jax.checkpoints import load as checkpoints
from speccascade_jax.checkpoints import native
from speccascade_jax.models import families

Path = str | os.PathLike[str]


def load_pair(
  name: str | None = None,
  *,
  drafter: Path | None = None,
  verifier: Path | None = None,
  vocabulary: Path | None = None,
  dtype: str | None = None,
) -> pairs.Pair:
  """Loads a pair that ships with the package, or one's own.

  Args:
    name: of a shipped pair, see `zoo.names()`; or give the paths.
    drafter: a checkpoint of any format, see `checkpoints.load`; None for a
      verifier that decodes alone.
    verifier: likewise; the two may be of different formats.
    vocabulary: SentencePiece model file or tokenizer.json that both were
      trained with; by default the one that lies with the checkpoints.
    dtype: of parameters and activations; by default float32 on a CPU and
      bfloat16 elsewhere.

  Raises:
    CheckpointError: if a checkpoint cannot be read.
    FileNotFoundError: if there is no vocabulary.
    ValueError: if the arguments, or the models, do not go together.
  """
  if name is not None and any((drafter, verifier, vocabulary)):
    raise ValueError(
      f'Give the name of a shipped pair ({name!r}) or paths, not both.'
    )
  prefixes: tuple[str, ...] = ()
  if name is not None:
    drafter, verifier, vocabulary = zoo.paths(name)
    prefixes = tuple(zoo.PREFIXES.get(name, {}).values())
  if verifier is None:
    raise ValueError(
      'Give a name, or both of drafter and verifier; got '
      f'drafter={drafter!r}, verifier={verifier!r}.'
    )
  dtype = dtype or default_dtype()
  paths = [verifier] if drafter is None else [drafter, verifier]
  found = {os.fspath(path): checkpoints.load(path, dtype) for path in paths}
  words = _vocabulary(vocabulary, found)
  _check_kinds(found)
  size = min(checkpoint.config.vocab_size for checkpoint in found.values())
  if size < words.size:
    sizes = {name: c.config.vocab_size for name, c in found.items()}
    raise ValueError(
      f'The vocabulary has {words.size} pieces, but not all models score as '
      f'many: {sizes}. They do not belong together.'
    )
  models = {
    name: _model(checkpoint, size, dtype, words.eos_id)
    for name, checkpoint in found.items()
  }
  of_verifier = found[os.fspath(verifier)]
  decoder_only = families.family_of(of_verifier.config).decoder_only
  return pairs.Pair(
    None if drafter is None else models[os.fspath(drafter)],
    models[os.fspath(verifier)],
    words,
    f'{_digest(paths, found, vocabulary)}-{dtype}',
    prefixes,
    bos_first=decoder_only and words.bos_id is not None,
  )


def default_dtype() -> str:
  """What parameters and activations are in memory unless one says so."""
  return 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'


def _check_kinds(found: dict[str, checkpoints.Checkpoint]) -> None:
  kinds = {
    name: families.name_of(checkpoint.config)
    for name, checkpoint in found.items()
  }
  styles = {families.FAMILIES[kind].decoder_only for kind in kinds.values()}
  if len(styles) > 1:
    raise ValueError(
      f'{" and ".join(f"{n} is a {k}" for n, k in kinds.items())}: one has an '
      'encoder, the other has none, so that they do not read the same inputs.'
    )


def _vocabulary(
  path: Path | None, found: dict[str, checkpoints.Checkpoint]
) -> vocabularies.Vocabulary:
  """The vocabulary that is given, or that both checkpoints bring along."""
  if path is not None:
    return vocabularies.Vocabulary(path)
  own = {name: c.vocabulary for name, c in found.items() if c.vocabulary}
  if not own:
    raise FileNotFoundError(
      f'No vocabulary in {" or ".join(found)}: give vocabulary=, a '
      'SentencePiece model file or a tokenizer.json.'
    )
  if len(own) == 2:
    (first, a), (second, b) = own.items()
    vocabularies.check_same(a, b, (first, second))
  # Of two that agree, the one that goes on for longer.
  return max(own.values(), key=lambda words: words.size)


def _model(
  checkpoint: checkpoints.Checkpoint, size: int, dtype: str, eos_id: int
) -> pairs.Model:
  config = dataclasses.replace(checkpoint.config, dtype=dtype)
  params = checkpoint.params
  if config.vocab_size != size:
    config, params = cut_vocabulary(config, params, size)
  return pairs.Model(
    families.step_model(config, eos_id), jax.device_put(params), config
  )


def cut_vocabulary(
  config: families.Config, params: base.Params, size: int
) -> tuple[families.Config, base.Params]:
  """The same model over its first `size` tokens.

  Two models score the same tokens only where their embeddings have as many
  rows. T5X pads them to a multiple of 128, others do not; what is cut off here
  is such padding, which no vocabulary has a piece for.
  """
  embedder = dict(params['token_embedder'])
  embedder['embedding'] = embedder['embedding'][:size]
  params = {**params, 'token_embedder': embedder}
  if 'logits_dense' in params['decoder']:
    kernel = params['decoder']['logits_dense']['kernel'][:, :size]
    head = {'logits_dense': {'kernel': kernel}}
    params['decoder'] = {**params['decoder'], **head}
  return dataclasses.replace(config, vocab_size=size), params


def _digest(paths, found, vocabulary) -> str:
  """Of configs, weights and vocabulary as files."""
  formats = {checkpoint.format for checkpoint in found.values()}
  if vocabulary is not None and formats == {'native'}:
    files = (native.CONFIG_FILE, native.WEIGHTS_FILE)
    models = [pathlib.Path(path) / name for path in paths for name in files]
    return native.digest_files([*models, vocabulary])
  parts = [found[os.fspath(path)].digest for path in paths]
  if vocabulary is not None:
    parts.append(checkpoints.digest(pathlib.Path(vocabulary)))
  return hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]
