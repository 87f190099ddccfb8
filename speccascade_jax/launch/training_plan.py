"""What a training run will take, see `planning`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speccascade_jax import footprint
from speccascade_jax.checkpoints import native
from speccascade_jax.launch import planning
from speccascade_jax.launch import quiet
from speccascade_jax.launch import training_inputs
from speccascade_jax.training import footprint as training_footprint
from speccascade_jax.training import forward


def of_training(arguments: Mapping[str, Any]) -> planning.Plan:
  """The plan of `speccascade train`, from its arguments."""
  model, loop = arguments['model'], arguments['loop']
  teacher_path, teacher = arguments.get('teacher'), None
  objective = arguments['objective']
  training_inputs.check_objective(
    objective, teacher_path, arguments.get('generated')
  )
  forwards = [forward.teacher_forced(model)]
  if teacher_path is not None:
    teacher = native.read_config(teacher_path)
    forwards.append(forward.teacher_forced(teacher))
  found = training_footprint.shapes(
    model,
    arguments['optimizer'],
    averaged=loop.average_decay is not None,
    microbatches=loop.microbatches,
    teacher=teacher,
  )
  state = found.state
  trees = {
    'parameters': state.params,
    'optimizer state': state.opt_state,
    'moving average': state.average,
    'gradients': found.gradients,
    "teacher's parameters": found.frozen,
  }
  parts = [
    footprint.Part(name, size, footprint.by_dtype(tree))
    for name, tree in trees.items()
    if (size := footprint.size_of(tree))
  ]
  batches = _batches(
    arguments['lengths'], arguments['batch_tokens'], loop.microbatches
  )
  loss = objective(*forwards)
  kept = {
    f'{rows} x ({lengths["inputs"]} + {lengths["targets"]}) tokens': (
      footprint.size_of(
        training_footprint.activations(
          loss,
          state.params,
          found.frozen,
          training_footprint.abstract_batch(rows, lengths),
        )
      )
    )
    for rows, lengths in batches
  }
  widest = max(kept, key=lambda name: kept[name])
  parts.append(
    footprint.Part('activations', kept[widest], widest, estimated=True)
  )
  return planning.Plan(
    memory=parts,
    largest=f'a batch of {widest}',
    notes=[
      f'{loop.num_steps:,} steps of about {arguments["batch_tokens"]:,} '
      'tokens, padding included.'
    ],
  )


def _batches(
  lengths: Mapping[str, int], batch_tokens: int, microbatches: int
) -> list[tuple[int, dict[str, int]]]:
  """Rows and widths of the widest microbatch, and of that of most targets."""
  # The package that it is in brings TensorFlow.
  quiet.import_seqio()
  from speccascade_jax.data import bucketing

  longest = bucketing.Shape(lengths['inputs'], lengths['targets'])
  shapes = bucketing.fitting(bucketing.SHAPES, longest)
  rows = {s: bucketing.rows_of(s, batch_tokens, microbatches) for s in shapes}
  # The logits, [B, T, V], outweigh all layers of a small model.
  most = max(shapes, key=lambda shape: rows[shape] * shape.targets)
  return [
    (rows[shape] // microbatches, shape._asdict())
    for shape in dict.fromkeys((longest, most))
  ]
