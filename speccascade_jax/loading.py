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
from speccascade_jax.checkpoints import hub
from speccascade_jax.checkpoints import load as checkpoints
from speccascade_jax.checkpoints import native
from speccascade_jax.checkpoints import translate
from speccascade_jax.models import families
from speccascade_jax.models import int8
from speccascade_jax.models import products

Path = str | os.PathLike[str]


def load_pair(
  name: str | None = None,
  *,
  drafter: Path | None = None,
  verifier: Path | None = None,
  vocabulary: Path | None = None,
  dtype: str | None = None,
  drafter_weights: str | None = None,
  verifier_weights: str | None = None,
) -> pairs.Pair:
  """Loads a pair that ships with the package, or one's own.

  Args:
    name: of a shipped pair, see `zoo.names()`; or give the paths.
    drafter: a checkpoint of any format, see `checkpoints.load`; None for a
      verifier that decodes alone.
    verifier: likewise; the two may be of different formats.
    vocabulary: SentencePiece model file or tokenizer.json that both were
      trained with, or a folder or checkpoint that has one, on this machine, in
      a bucket or on the hub; by default the one that lies with the checkpoints.
    dtype: of parameters and activations; by default float32 on a CPU and
      bfloat16 elsewhere.
    drafter_weights: 'int8' keeps the drafter's matrices in one byte a weight,
      see `models.int8`: a fourth of the memory of float32, half of bfloat16,
      and a slightly different model. By default they are of `dtype`.
    verifier_weights: likewise; the texts of exact methods are then those of
      the quantised verifier.

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
  int8.check('drafter_weights', drafter_weights)
  int8.check('verifier_weights', verifier_weights)
  if drafter is None and drafter_weights is not None:
    raise ValueError(
      f'drafter_weights is {drafter_weights!r}, but no drafter is given.'
    )
  dtype = dtype or default_dtype()
  paths = [verifier] if drafter is None else [drafter, verifier]
  weights = [drafter_weights, verifier_weights][-len(paths) :]
  wanted = [(os.fspath(p), kept) for p, kept in zip(paths, weights)]
  # The same for both is loaded once.
  loaded = {key: _load(*key, dtype) for key in dict.fromkeys(wanted)}
  found = {path: checkpoint for (path, _), checkpoint in loaded.items()}
  words = _vocabulary(vocabulary, found)
  _check_kinds(found)
  size = min(checkpoint.config.vocab_size for checkpoint in found.values())
  words = words.cut(size, ' and '.join(found))
  models = {
    key: _model(checkpoint, size, dtype, words.end_ids)
    for key, checkpoint in loaded.items()
  }
  of_verifier = found[os.fspath(verifier)]
  decoder_only = families.family_of(of_verifier.config).decoder_only
  return pairs.Pair(
    None if drafter is None else models[wanted[0]],
    models[wanted[-1]],
    words,
    '-'.join(
      [
        _digest(paths, found, vocabulary),
        dtype,
        *(['drafter_int8'] if drafter_weights else []),
        *(['verifier_int8'] if verifier_weights else []),
      ]
    ),
    prefixes,
    vocabularies.Framing.of(words, decoder_only).bos_first,
  )


def default_dtype() -> str:
  """What parameters and activations are in memory unless one says so."""
  return 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'


def _load(path: str, weights: str | None, dtype: str) -> checkpoints.Checkpoint:
  """A checkpoint, its matrices quantised one by one if that is wanted."""
  if weights is None:
    return checkpoints.load(path, dtype)
  scales = {}

  def place(name, value):
    if not int8.applies_to(name):
      return translate.put(name, value)
    value, scales[int8.scale_name(name)] = int8.quantise(name, value)
    return value

  found = checkpoints.load(path, dtype, place)
  params = int8.with_scales(found.params, scales)
  return dataclasses.replace(found, params=params)


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
    return checkpoints.read_vocabulary(path)
  # The verifier's, which is loaded last, first.
  own = [(n, c.vocabulary) for n, c in reversed(found.items()) if c.vocabulary]
  if not own:
    raise FileNotFoundError(
      f'No vocabulary in {" or ".join(found)}: give vocabulary= '
      '(--vocabulary=), a SentencePiece model file or a tokenizer.json, or put '
      'one there.'
    )
  if len(own) == 2:
    (second, b), (first, a) = own
    vocabularies.check_same(a, b, (first, second))
  # Of two that agree, the one that goes on for longer; but a text ends where
  # the verifier ends it, which may have been tuned to converse.
  longest = max((words for _, words in own), key=lambda words: words.size)
  return longest.marked(own[0][1].marks)


def _model(
  checkpoint: checkpoints.Checkpoint,
  size: int,
  dtype: str,
  end_ids: tuple[int, ...],
) -> pairs.Model:
  config, params = cut_vocabulary(
    dataclasses.replace(checkpoint.config, dtype=dtype), checkpoint.params, size
  )
  if params is not checkpoint.params:
    # What was cut is not kept beside what was cut from it; the rest is shared.
    checkpoint.params['token_embedder'].clear()
    checkpoint.params['decoder'].pop('logits_dense', None)
  return pairs.Model(
    families.step_model(config, end_ids), products.lay_out(params), config
  )


def cut_vocabulary(
  config: families.Config, params: base.Params, size: int
) -> tuple[families.Config, base.Params]:
  """The same model over its first `size` tokens.

  Two models score the same tokens only where their embeddings have as many
  rows. T5X pads them to a multiple of 128, a Gemma 3 that sees images to
  262,208, others do not. What is cut off is padding, which no vocabulary has a
  piece for, or what `Vocabulary.cut` lets go.
  """
  if size == config.vocab_size:
    return config, params
  # Scales of quantised weights are cut as what they belong to.
  embedder = params['token_embedder']
  cut = {name: leaf[:size] for name, leaf in embedder.items()}
  params = {**params, 'token_embedder': cut}
  if 'logits_dense' in params['decoder']:
    head = params['decoder']['logits_dense']
    cut = {name: leaf[..., :size] for name, leaf in head.items()}
    params['decoder'] = {**params['decoder'], 'logits_dense': cut}
  return dataclasses.replace(config, vocab_size=size), params


def _digest(paths, found, vocabulary) -> str:
  """Of configs, weights and vocabulary as files."""
  formats = {checkpoint.format for checkpoint in found.values()}
  local = None if vocabulary is None else hub.local(vocabulary)
  if isinstance(local, pathlib.Path) and formats == {'native'}:
    names = (native.CONFIG_FILE, native.WEIGHTS_FILE)
    files = [hub.local(path) / name for path in paths for name in names]
    if local.is_file():
      return native.digest_files([*files, local])
  parts = [found[os.fspath(path)].digest for path in paths]
  if local is not None:
    parts.append(checkpoints.digest(local))
  return hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]
