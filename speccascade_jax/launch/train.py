"""`speccascade train`: trains a model, or distils a drafter from its verifier.

    speccascade train --gin_file=configs/train_debian_verifier.gin

Started again with the same run directory, it goes on where it was stopped; of
the configuration only what `resumed.FREE` lists may have changed by then.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib

import optax

from speccascade_jax.checkpoints import native
from speccascade_jax.launch import gin_names
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import initial_params
from speccascade_jax.launch import inputs
from speccascade_jax.launch import resumed
from speccascade_jax.launch import training_inputs
from speccascade_jax.models import families
from speccascade_jax.training import distillation
from speccascade_jax.training import forward
from speccascade_jax.training import optimizer as optimizer_lib
from speccascade_jax.training import parts
from speccascade_jax.training import scored_tokens as scored_tokens_lib
from speccascade_jax.training import train_step
from speccascade_jax.training import trainer


def train(
  *,
  run_dir: str,
  task: str,
  model: families.Config,
  objective: Callable[..., train_step.Loss],
  optimizer: optax.GradientTransformation,
  schedule: optimizer_lib.Schedule,
  loop: trainer.Loop,
  lengths: Mapping[str, int],
  batch_tokens: int,
  export_dir: str | None = None,
  export_dtype: str = 'bfloat16',
  initial: str | None = None,
  teacher: str | None = None,
  from_teacher: Mapping[str, str] | None = None,
  frozen: Sequence[str] = (),
  vocabulary: str | None = None,
  generated: training_inputs.Generated | None = None,
  scored_tokens: int | None = None,
  validation_examples: int | None = None,
  score_examples: int = 0,
  data_dir: str | None = None,
  seed: int = 0,
) -> None:
  """Trains `model`; see `gin/runs/train.gin` for what the arguments mean."""
  folder, config_text = pathlib.Path(run_dir), gin_setup.operative_config()
  resumed.check(folder, config_text)
  training_inputs.check_objective(objective, teacher, generated)
  inputs.set_data_dir(data_dir)
  start = initial_params.Start(model, initial, teacher, from_teacher, frozen)
  training_inputs.check_data(task)
  framing = training_inputs.framing(model, vocabulary, initial, teacher)
  # The task's own may not be to be had.
  words = (framing or training_inputs.task_framing(task)).vocabulary
  words.cut(model.vocab_size, task)
  data = training_inputs.Data(
    task, lengths, batch_tokens, loop.microbatches, seed, framing
  )
  validation = data.validation(validation_examples)
  scored = data.scored(model, scored_tokens)
  of_teacher = start.load_teacher()
  configs = [model] + ([] if of_teacher is None else [of_teacher.config])
  loss = objective(*(forward.teacher_forced(c, scored) for c in configs))
  if scored is not None:
    loss = scored_tokens_lib.loss_over(scored, loss)
  trained, kept = start.load(seed, of_teacher)
  score = None
  if score_examples:
    score = training_inputs.scorer(
      model, task, score_examples, lengths, framing, kept
    )
  batches: trainer.Batches = data.train
  if generated is not None and of_teacher is not None:
    batches = data.mixed(generated, run_dir, of_teacher)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / resumed.CONFIG_FILE).write_text(config_text, encoding='utf-8')
  state = trainer.train(
    run_dir,
    trained,
    parts.loss_of_trained(loss),
    optimizer,
    schedule,
    batches,
    validation,
    loop,
    frozen={
      parts.OWN: kept,
      parts.TEACHER: None if of_teacher is None else of_teacher.params,
    },
    score=score,
    writer=training_inputs.tensorboard(folder),
  )
  export = export_dir or str(folder / 'export')
  config = dataclasses.replace(model, dropout_rate=0.0, dtype='float32')
  whole = parts.merge(state.eval_params, kept)
  native.save(export, config, whole, export_dtype)
  words.save(export)
  print(f'The model of step {int(state.step)} is in {export}.')


def register() -> None:
  """Makes known to gin what only this command's configs name."""
  for constructor in (
    optimizer_lib.adafactor,
    optimizer_lib.adamw,
    optimizer_lib.schedule,
    trainer.Loop,
    training_inputs.Generated,
  ):
    gin_names.register(constructor)
  gin_names.register_function(train_step.teacher_forcing)
  gin_names.register_function(distillation.loss, name='distillation')


def main(argv: Sequence[str]) -> None:
  """The command; `argv` are the arguments behind its name."""
  parser = argparse.ArgumentParser(
    'speccascade train', description='Train a model, or distil a drafter.'
  )
  _, flags = gin_setup.parse_args(parser, argv, train)
  register()
  gin_setup.run(train, flags)
