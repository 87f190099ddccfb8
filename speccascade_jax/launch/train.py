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

import jax
import optax

from speccascade_jax.checkpoints import native
from speccascade_jax.launch import gin_names
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import inputs
from speccascade_jax.launch import resumed
from speccascade_jax.launch import training_inputs
from speccascade_jax.models import families
from speccascade_jax.training import distillation
from speccascade_jax.training import forward
from speccascade_jax.training import optimizer as optimizer_lib
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
  generated: training_inputs.Generated | None = None,
  score_examples: int = 0,
  data_dir: str | None = None,
  vocabulary: str | None = None,
  seed: int = 0,
) -> None:
  """Trains `model`; see `gin/runs/train.gin` for what the arguments mean."""
  folder, config_text = pathlib.Path(run_dir), gin_setup.operative_config()
  resumed.check(folder, config_text)
  training_inputs.check_objective(objective, teacher, generated)
  inputs.set_data_dir(data_dir)
  data = training_inputs.Data(
    task, lengths, batch_tokens, loop.microbatches, seed, vocabulary
  )
  # Before the models, which take longer than to find that there is no data.
  data.check()
  forwards, frozen = [forward.teacher_forced(model)], None
  if teacher is not None:
    teacher_config, frozen = training_inputs.load_teacher(teacher, model)
    forwards.append(forward.teacher_forced(teacher_config))
  if initial is None:
    params = families.init(model, jax.random.key(seed))
  else:
    params = training_inputs.load_initial(initial, model)
  score = None
  if score_examples:
    score = training_inputs.scorer(
      model, task, score_examples, lengths, vocabulary
    )
  batches: trainer.Batches = data.train
  if generated is not None and teacher is not None:
    batches = data.mixed(generated, run_dir, teacher, teacher_config, frozen)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / resumed.CONFIG_FILE).write_text(config_text, encoding='utf-8')
  state = trainer.train(
    run_dir,
    params,
    objective(*forwards),
    optimizer,
    schedule,
    batches,
    data.validation(),
    loop,
    frozen=frozen,
    score=score,
    writer=training_inputs.tensorboard(folder),
  )
  export = export_dir or str(folder / 'export')
  config = dataclasses.replace(model, dropout_rate=0.0, dtype='float32')
  native.save(export, config, state.eval_params, export_dtype)
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
