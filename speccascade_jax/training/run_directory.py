"""What a training run leaves on disk, and how it is taken up again.

  RUN_DIR/
    checkpoints/STEP/    Orbax checkpoints of the whole `TrainState`
    metrics.jsonl        one line a report: {"step": ..., "train/loss": ...}

Checkpoints are written to the end before training goes on, into a temporary
folder that is renamed: a kill leaves the previous one in force.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import os
import pathlib

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from speccascade_jax.training import train_state


class RunDirectory:
  """The checkpoints and the metrics of one run.

  Attributes:
    path: the folder.
    best_metric: name of the validation figure that ranks checkpoints, the
      smaller the better; the best one is kept beside the latest.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    keep: int = 2,
    best_metric: str = 'validation/nll',
  ):
    self.path = pathlib.Path(path).absolute()
    self.path.mkdir(parents=True, exist_ok=True)
    self.best_metric = best_metric
    self._metrics = self.path / 'metrics.jsonl'
    policy = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(keep),
        checkpoint_managers.BestN(
          get_metric_fn=lambda metrics: metrics[best_metric],
          reverse=True,  # Orbax keeps the greatest otherwise.
          n=1,
          keep_checkpoints_without_metrics=False,
        ),
      ]
    )
    self._manager = ocp.CheckpointManager(
      self.path / 'checkpoints',
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        best_fn=lambda metrics: metrics[best_metric],
        best_mode='min',
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,
      ),
    )

  @property
  def latest_step(self) -> int | None:
    """The step of the last whole checkpoint; None in a new run."""
    return self._manager.latest_step()

  @property
  def best_step(self) -> int | None:
    """The step of the checkpoint with the least `best_metric`."""
    return self._manager.best_step()

  def save(
    self,
    state: train_state.TrainState,
    metrics: Mapping[str, float] | None = None,
  ) -> None:
    """Writes a checkpoint, unless there is one of this step already.

    Args:
      state: the whole state.
      metrics: the last validation's figures, which rank the checkpoint.
    """
    step = int(state.step)
    if step == self.latest_step:
      return
    ranked = None
    if metrics is not None and self.best_metric in metrics:
      ranked = {self.best_metric: float(metrics[self.best_metric])}
    self._manager.save(
      step,
      args=ocp.args.StandardSave(_as_dict(state)),
      metrics=ranked,
      force=True,
    )
    self._manager.wait_until_finished()

  def restore(
    self, like: train_state.TrainState, step: int | None = None
  ) -> train_state.TrainState:
    """Reads a checkpoint (the latest one) and forgets metrics behind it.

    Args:
      like: a state of the same shapes, for instance the initial one.
      step: which checkpoint; the latest without.

    Raises:
      ValueError: if it was written by a run of another model or optimizer.
    """
    step = self.latest_step if step is None else step
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _as_dict(like))
    folder = self.path / 'checkpoints' / str(step)
    try:
      restored = self._manager.restore(
        step, args=ocp.args.StandardRestore(abstract)
      )
    except Exception as error:
      raise ValueError(
        f'The checkpoint {folder} cannot be restored: it is damaged, or was '
        'written with another model, optimizer or averaging than this run '
        'has. Take the same configuration, or another run directory. '
        f'({type(error).__name__}: {str(error)[:500]})'
      ) from error
    return train_state.TrainState(**restored)

  def report(self, step: int, metrics: Mapping[str, float]) -> None:
    """Appends one line to metrics.jsonl and flushes it."""
    with self._metrics.open('a') as file:
      file.write(json.dumps({'step': step, **metrics}) + '\n')

  def truncate_metrics(self, step: int) -> None:
    """Drops the lines behind `step`, which a resumed run will write again.

    A last line that a kill cut short is dropped too.
    """
    if not self._metrics.exists():
      return
    kept = []
    for line in self._metrics.read_text().splitlines():
      try:
        row = json.loads(line)
      except json.JSONDecodeError:
        continue
      if row['step'] <= step:
        kept.append(line + '\n')
    temporary = self._metrics.with_suffix('.tmp')
    temporary.write_text(''.join(kept))
    temporary.replace(self._metrics)

  def close(self) -> None:
    """Releases the checkpoint manager."""
    self._manager.close()


def _as_dict(state: train_state.TrainState) -> dict:
  # Named children, so that the layout on disk does not hang on field order.
  return {
    'step': state.step,
    'cooldown_start': state.cooldown_start,
    'params': state.params,
    'opt_state': state.opt_state,
    'average': state.average,
  }
