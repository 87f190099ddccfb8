"""What `speccascade train` starts from: a checkpoint, a teacher, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import os

import jax

from speccascade_jax import base
from speccascade_jax import loading
from speccascade_jax.checkpoints import hub
from speccascade_jax.checkpoints import load as checkpoints
from speccascade_jax.checkpoints import native
from speccascade_jax.checkpoints import translate
from speccascade_jax.models import families
from speccascade_jax.training import parts


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A model that another one learns from.

  Attributes:
    config: its shape, computing in the student's type.
    params: its parameters.
    digest: changes with its files' content.
  """

  config: families.Config
  params: base.Params
  digest: str


class Start:
  """The parameters that a run starts from, checked before any is read."""

  def __init__(
    self,
    model: families.Config,
    initial: str | None = None,
    teacher: str | None = None,
    from_teacher: Mapping[str, str] | None = None,
    frozen: Sequence[str] = (),
  ):
    """Compares shapes; see `gin/runs/train.gin` for the arguments.

    Raises:
      CheckpointError: if `initial` or `teacher` is no checkpoint.
      ValueError: if they do not fit `model`, or a part is not there.
    """
    self._model, self._initial, self._teacher = model, initial, teacher
    shapes = translate.shapes(model)
    self._frozen = parts.paths(_names(frozen), shapes, 'train.frozen')
    if self._frozen == set(shapes):
      raise ValueError(
        f'train.frozen is {frozen!r}: that is the whole model, so that nothing '
        'is left to train.'
      )
    if initial is not None:
      config = _cut(initial, checkpoints.config_of(initial), model)
      _check_same_shape(initial, config, model)
    if teacher is None and from_teacher:
      raise ValueError(
        f'train.from_teacher is {dict(from_teacher)!r}, but there is no '
        'train.teacher to take it from.'
      )
    self._copied: dict[str, str] = {}
    if teacher is not None:
      config = _cut(teacher, checkpoints.config_of(teacher), model)
      _check_same_kind(teacher, config, model)
      self._copied = parts.copies(
        from_teacher or {}, shapes, translate.shapes(config)
      )

  def load_teacher(self) -> Teacher | None:
    """The teacher, in float32; None if there is none."""
    if self._teacher is None:
      return None
    found = checkpoints.load(self._teacher, dtype='float32')
    config, params = loading.cut_vocabulary(
      dataclasses.replace(found.config, dtype=self._model.dtype),
      found.params,
      self._model.vocab_size,
    )
    digest = found.digest
    if found.format == 'native':
      # Of every byte, and what older runs have recorded.
      digest = native.digest(os.fspath(hub.local(self._teacher)))
    return Teacher(config, params, digest)

  def load(
    self, seed: int, teacher: Teacher | None
  ) -> tuple[base.Params, base.Params]:
    """The parameters to train, and those that stay as they are.

    Args:
      seed: of fresh ones.
      teacher: what `load_teacher` gave; parts that stay the teacher's are its
        own arrays.
    """
    if self._initial is None:
      key = jax.random.key(seed)
      params = parts.init_except(self._model, key, self._copied)
    else:
      found = checkpoints.load(self._initial, dtype='float32')
      _, params = loading.cut_vocabulary(
        found.config, found.params, self._model.vocab_size
      )
    if teacher is not None:
      params = parts.borrow(params, self._copied, teacher.params)
    return parts.split(params, self._frozen)

  def shapes(self) -> tuple[base.Params, base.Params, base.Params]:
    """What is trained, what stays, and what stays and is the teacher's own.

    Of the whole model, as shapes; the last takes no memory beside the teacher.
    """
    trained, kept = parts.split(
      jax.eval_shape(
        functools.partial(families.init, self._model), jax.random.key(0)
      ),
      self._frozen,
    )
    return trained, *parts.split(kept, self._copied)


def _names(frozen: str | Sequence[str]) -> tuple[str, ...]:
  return (frozen,) if isinstance(frozen, str) else tuple(frozen)


def _check_same_shape(
  path: str, config: families.Config, model: families.Config
) -> None:
  found, wanted = (
    dataclasses.replace(c, dropout_rate=0.0, dtype='float32')
    for c in (config, model)
  )
  if found != wanted:
    raise ValueError(
      f'{path} holds a model of {found}; this run trains {wanted}.'
    )


def _cut(
  path: str, config: families.Config, model: families.Config
) -> families.Config:
  """A checkpoint's shape without the rows that the model does not have.

  `training_inputs.framing` refuses to lose any that a text needs: they are
  padding, as in a Gemma 3 of 4B (262,208 rows) beside one of 270M (262,144).
  """
  if config.vocab_size < model.vocab_size:
    raise ValueError(
      f'{path} scores {config.vocab_size} tokens, the model that this run '
      f'trains {model.vocab_size}; they need one vocabulary. It can have fewer '
      f'rows than the checkpoint, not more: set vocab_size to '
      f'{config.vocab_size}.'
    )
  return dataclasses.replace(config, vocab_size=model.vocab_size)


def _check_same_kind(
  path: str, config: families.Config, model: families.Config
) -> None:
  kinds = [families.family_of(c) for c in (config, model)]
  if kinds[0].decoder_only != kinds[1].decoder_only:
    names = [families.name_of(c) for c in (config, model)]
    raise ValueError(
      f'The teacher in {path} is a {names[0]}, the student a {names[1]}: one '
      'has an encoder, the other has none.'
    )
