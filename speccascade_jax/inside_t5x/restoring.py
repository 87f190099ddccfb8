"""Two checkpoints into the one train state that infer.py and eval.py restore.

T5X restores a train state from one checkpoint. Several paths in its
`RestoreCheckpointConfig` are checkpoints to be taken in turn, and an
`assignment_map` renames within one; neither brings a second one in. What can be
exchanged is the `checkpoint_manager_cls`, and the one here reads both models
with `speccascade_jax.checkpoints`: steps of T5X, scanned or not, native or
Orbax, and all other formats that the package reads.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
import re
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from t5x import partitioning
from t5x import train_state as train_state_lib

from speccascade_jax import base
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import hub
from speccascade_jax.checkpoints import load
from speccascade_jax.checkpoints import translate
from speccascade_jax.inside_t5x import model
from speccascade_jax.models.t5 import config as t5_config

# How T5X names a step's folder, and Orbax without a prefix.
_T5X_STEP = re.compile(r'checkpoint_(\d+)')
_STEP = re.compile(r'(?:checkpoint_)?(\d+)')


def config_of(
  path: str | Sequence[str], dtype: str = 'float32'
) -> t5_config.T5Config:
  """The shape of the T5 in a checkpoint, without its weights.

  Args:
    path: a checkpoint of any format, or T5X's folder of steps. Of several
      paths, as eval.py takes them, the first: their models are of one shape.
    dtype: of activations, 'float32' or 'bfloat16'.

  Raises:
    CheckpointError: if it is no checkpoint, or not that of a T5.
  """
  first = path if isinstance(path, (str, os.PathLike)) else path[0]
  config = load.config_of(_checkpoint(first))
  if not isinstance(config, t5_config.T5Config):
    raise errors.CheckpointError(
      f'{first} holds a {type(config).__name__}; a SpeculativeCascade inside '
      'T5X is made of two T5s.'
    )
  return dataclasses.replace(config, dtype=dtype)


class PairCheckpointManager:
  """What T5X's `RestoreCheckpointConfig.checkpoint_manager_cls` may be.

  The verifier is at the path that T5X is given, the drafter at
  `drafter_path`. It restores for inference, and saves nothing.
  """

  def __init__(
    self,
    directory: Any,
    train_state: train_state_lib.TrainState,
    partitioner: partitioning.BasePartitioner,
    drafter_path: str,
    dataset_iterator: Any = None,
    save_dtype: Any = None,
    restore_dtype: Any = None,
    keep: int | None = None,
    period: int | None = None,
  ):
    """T5X gives all but `drafter_path`, which a config binds.

    Args:
      directory: not read: `restore` is given the path.
      train_state: of a `SpeculativeCascade`, with shapes in place of arrays.
      partitioner: says on which devices a parameter lies.
      drafter_path: a checkpoint of any format, or T5X's folder of steps.
      dataset_iterator: not read, and so are all that concern saving.
      save_dtype: likewise.
      restore_dtype: of the parameters in memory; as stored without.
      keep: likewise not read.
      period: likewise.

    Raises:
      ValueError: if the train state is not that of a pair, for inference.
    """
    del directory, dataset_iterator, save_dtype, keep, period
    if not isinstance(train_state, train_state_lib.InferenceState):
      raise ValueError(
        'PairCheckpointManager restores for infer.py and eval.py alone, got a '
        f'{type(train_state).__name__}. Train the two models one by one.'
      )
    if set(train_state.params) != set(model.ROLES):
      raise ValueError(
        'PairCheckpointManager goes with a SpeculativeCascade; the parameters '
        f'of this model are {sorted(train_state.params)}.'
      )
    self._train_state = train_state
    self._drafter_path = drafter_path
    self._dtype = (
      None if restore_dtype is None else str(jnp.dtype(restore_dtype))
    )
    self._mesh = partitioner.mesh
    self._axes = traverse_util.flatten_dict(
      partitioner.get_mesh_axes(train_state).params, sep='/'
    )

  def restore(
    self,
    path: str,
    fallback_state: Any = None,
    state_transformation_fns: Sequence[Any] = (),
  ) -> train_state_lib.TrainState:
    """The train state with the verifier at `path`, and the drafter.

    Args:
      path: a checkpoint of any format, or T5X's folder of steps.
      fallback_state: must be None; what a config asks for with
        `fallback_to_scratch`.
      state_transformation_fns: must be empty; an `assignment_map` is one.

    Raises:
      CheckpointError: if a checkpoint cannot be read, or holds a model of
        another shape than the config says.
      ValueError: if the restoring is to be transformed.
    """
    if state_transformation_fns or fallback_state is not None:
      raise ValueError(
        'PairCheckpointManager takes checkpoints as they are: remove '
        'assignment_map, state_transformation_fns and fallback_to_scratch from '
        'the RestoreCheckpointConfig.'
      )
    paths = {model.VERIFIER: path, model.DRAFTER: self._drafter_path}
    return self._train_state.restore_state(
      {
        'target': {role: self._load(role, paths[role]) for role in paths},
        'state': {'step': np.int32(_step_of(_checkpoint(path)))},
      }
    )

  def restore_from_tf_checkpoint(self, path: str, strict: bool = True) -> Any:
    """Refuses what T5X finds to be a checkpoint of TensorFlow."""
    del strict
    raise errors.CheckpointError(
      f'{path} is a checkpoint of TensorFlow. Convert it with '
      't5x.scripts.convert_tf_checkpoint first.'
    )

  def _load(self, role: str, path: str) -> base.Params:
    local = _checkpoint(path)
    self._check_shapes(role, local)

    def place(name: str, value: np.ndarray) -> base.Array:
      sharding = jax.sharding.NamedSharding(
        self._mesh, self._axes[f'{role}/{name}']
      )
      return jax.make_array_from_callback(
        value.shape, sharding, lambda index: value[index]
      )

    return load.load(local, self._dtype, place).params

  def _check_shapes(self, role: str, local: hub.AnyPath) -> None:
    """Said before anything is read, and in terms of the config."""
    found = translate.shapes(load.config_of(local))
    expected = {
      name: tuple(value.shape)
      for name, value in traverse_util.flatten_dict(
        self._train_state.params[role], sep='/'
      ).items()
    }
    wrong = [
      f'{name} is {found.get(name, "missing")} instead of '
      f'{expected.get(name, "missing")}'
      for name in sorted(set(found) | set(expected))
      if found.get(name) != expected.get(name)
    ]
    if wrong:
      raise errors.CheckpointError(
        f'{local} holds another model than SpeculativeCascade.{role}: '
        f'{errors.first(wrong)}.'
      )


def _checkpoint(path: str) -> hub.AnyPath:
  """A checkpoint, or the latest of a folder of T5X's steps."""
  local = hub.local(path)
  if not local.is_dir():
    return local
  steps = (
    child for child in local.iterdir() if _T5X_STEP.fullmatch(child.name)
  )
  return max(steps, key=_step_of, default=local)


def _step_of(path: hub.AnyPath) -> int:
  """The step that a checkpoint's name says; 0 where it says none."""
  match = _STEP.fullmatch(path.name)
  return int(match[1]) if match else 0
