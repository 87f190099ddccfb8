"""What a training run will take, see `planning`."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from speccascade_jax import footprint
from speccascade_jax.checkpoints import load as checkpoints
from speccascade_jax.launch import initial_params
from speccascade_jax.launch import planning
from speccascade_jax.launch import quiet
from speccascade_jax.launch import training_inputs
from speccascade_jax.training import footprint as training_footprint
from speccascade_jax.training import forward
from speccascade_jax.training import parts


def of_training(arguments: Mapping[str, Any]) -> planning.Plan:
  """The plan of `speccascade train`, from its arguments."""
  model, loop = arguments['model'], arguments['loop']
  teacher_path, objective = arguments.get('teacher'), arguments['objective']
  training_inputs.check_objective(
    objective, teacher_path, arguments.get('generated')
  )
  # The initial checkpoint has the model's shape, and may be far away.
  start = initial_params.Start(
    model,
    teacher=teacher_path,
    from_teacher=arguments.get('from_teacher'),
    frozen=arguments.get('frozen', ()),
  )
  trained, own, borrowed = start.shapes()
  forwards, teacher = [forward.teacher_forced(model)], None
  if teacher_path is not None:
    config = checkpoints.config_of(teacher_path)
    config = dataclasses.replace(config, dtype=model.dtype)
    forwards.append(forward.teacher_forced(config))
    teacher = footprint.abstract_params(config, 'float32')
  state = training_footprint.state(
    trained, arguments['optimizer'], averaged=loop.average_decay is not None
  )
  trees = {
    'parameters': state.params,
    'parameters, not trained': own,
    'optimizer state': state.opt_state,
    'moving average': state.average,
    'gradients': training_footprint.gradients(trained, loop.microbatches),
    "teacher's parameters": teacher,
  }
  found = [
    footprint.Part(name, size, footprint.by_dtype(tree))
    for name, tree in trees.items()
    if (size := footprint.size_of(tree))
  ]
  batches = _batches(
    arguments['lengths'], arguments['batch_tokens'], loop.microbatches
  )
  loss = parts.loss_of_trained(objective(*forwards))
  frozen = {parts.OWN: parts.merge(own, borrowed), parts.TEACHER: teacher}
  kept = {
    f'{rows} x ({lengths["inputs"]} + {lengths["targets"]}) tokens': (
      footprint.size_of(
        training_footprint.activations(
          loss,
          trained,
          frozen,
          training_footprint.abstract_batch(rows, lengths),
        )
      )
    )
    for rows, lengths in batches
  }
  widest = max(kept, key=lambda name: kept[name])
  found.append(
    footprint.Part('activations', kept[widest], widest, estimated=True)
  )
  return planning.Plan(
    memory=found,
    largest=f'a batch of {widest}',
    notes=[
      f'{loop.num_steps:,} steps of about {arguments["batch_tokens"]:,} '
      'tokens, padding included.',
      *_scored(arguments.get('scored_tokens')),
    ],
  )


def _scored(scored_tokens: int | None) -> list[str]:
  if scored_tokens is None:
    return []
  return [
    f'Which {scored_tokens:,} tokens are scored is up to the data; the '
    'estimate is for all of them.'
  ]


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
