"""What `speccascade train` reads: batches, initial models, held-out scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import inspect
import math
import pathlib

import numpy as np

from speccascade_jax import base
from speccascade_jax import pair as pairs
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax.checkpoints import native
from speccascade_jax.evaluation import evaluator
from speccascade_jax.launch import inputs
from speccascade_jax.models import families
from speccascade_jax.training import distillation
from speccascade_jax.training import train_step
from speccascade_jax.training import trainer


@dataclasses.dataclass(frozen=True)
class Generated:
  """Texts of the teacher's own, mixed into the training data.

  Attributes:
    temperature: of the teacher's sampling; 0 is greedy.
    share: of the batches that come from them, above 0 and up to 1.
    num_examples: how many of the training sources get one; None: all.
    batch_size: rows that the teacher decodes together.
  """

  temperature: float
  share: float
  num_examples: int | None = None
  batch_size: int = 64

  def __post_init__(self):
    if not 0 < self.share <= 1:
      raise ValueError(
        f'Generated.share must be above 0 and up to 1, got {self.share!r}.'
      )
    if self.temperature < 0:
      raise ValueError(
        f'Generated.temperature must be 0 or more, got {self.temperature!r}.'
      )


@dataclasses.dataclass(frozen=True)
class Data:
  """The batches of a task, its train split shuffled by `seed`."""

  task: str
  lengths: Mapping[str, int]
  batch_tokens: int
  microbatches: int
  seed: int
  vocabulary: str | None = None  # Instead of the task's own.

  def check(self) -> None:
    """Refuses data or a vocabulary that are not there, reading neither.

    Raises:
      ValueError: if there is no such task, or it lacks a split.
      FileNotFoundError: if the data set has not been prepared, or the
        vocabulary's file is missing.
    """
    from speccascade_jax.data import batches

    for split in ('train', 'validation'):
      batches.check(self.task, split)
    if self.vocabulary is not None:
      vocabularies.Vocabulary(self.vocabulary)

  def train(self, start: int) -> Iterator[train_step.Batch]:
    """The training batches from step `start` on."""
    from speccascade_jax.data import batches

    return batches.train_batches(
      self.task,
      'train',
      None,
      self.lengths,
      self.seed,
      start,
      batch_tokens=self.batch_tokens,
      multiple_of=self.microbatches,
      vocabulary=self.vocabulary,
    )

  def mixed(
    self,
    generated: Generated,
    run_dir: str,
    directory: str,
    teacher: families.Config,
    params: base.Params,
  ) -> trainer.Batches:
    """The same, with a share of batches of the teacher's own texts.

    The texts are made first, and kept in RUN_DIR/generated.jsonl with the
    digest of the teacher's `directory`.
    """
    from speccascade_jax.data import batches

    sources = batches.sources(
      self.task,
      'train',
      self.lengths,
      generated.num_examples,
      vocabulary=self.vocabulary,
    )
    length = self.lengths['targets']
    words = _vocabulary(self.task, self.vocabulary)
    targets = distillation.generate_targets(
      families.step_model(teacher, words.eos_id),
      params,
      sources,
      pathlib.Path(run_dir) / 'generated.jsonl',
      teacher=native.digest(directory),
      temperature=generated.temperature,
      max_length=length,
      batch_size=generated.batch_size,
      seed=self.seed,
    )
    tokens = batches.Tokens(
      inputs=[np.array(ids, np.int32) for ids in sources],
      targets=[np.array(ids, np.int32) for ids in targets],
      eos_id=words.eos_id,
    )

    def stream(start: int) -> Iterator[train_step.Batch]:
      begun = math.floor(start * generated.share)
      own = batches.token_batches(
        tokens,
        self.lengths,
        self.seed,
        begun,
        batch_tokens=self.batch_tokens,
        multiple_of=self.microbatches,
      )
      corpus = self.train(start - begun)
      return distillation.interleave(corpus, own, generated.share, start)

    return stream

  def validation(self) -> list[train_step.Batch]:
    """The validation batches, in the host's memory."""
    from speccascade_jax.data import batches

    return list(
      batches.eval_batches(
        self.task,
        'validation',
        None,
        self.lengths,
        batch_tokens=self.batch_tokens,
        multiple_of=self.microbatches,
        vocabulary=self.vocabulary,
      )
    )


def load_initial(directory: str, model: families.Config) -> base.Params:
  """The parameters to fine-tune, checked against the model to be trained."""
  config, params = native.load(directory, dtype='float32')
  found, wanted = (
    dataclasses.replace(c, dropout_rate=0.0, dtype='float32')
    for c in (config, model)
  )
  if found != wanted:
    raise ValueError(
      f'{directory} holds a model of {found}; this run trains {wanted}.'
    )
  return params


def check_objective(
  objective: Callable[..., train_step.Loss],
  teacher: str | None,
  generated: Generated | None,
) -> None:
  """A teacher is named exactly when the objective follows one."""
  wanted = 'teacher' in inspect.signature(objective).parameters
  if wanted and teacher is None:
    raise ValueError(
      'train.teacher is None, but the objective follows a teacher: name the '
      'folder of its native checkpoint.'
    )
  if not wanted and (teacher is not None or generated is not None):
    raise ValueError(
      f'train.teacher is {teacher!r} and train.generated is {generated!r}, '
      'but the objective follows no teacher: take @distillation.'
    )


def load_teacher(
  directory: str, model: families.Config
) -> tuple[families.Config, base.Params]:
  """A teacher whose distributions are over the tokens of `model`."""
  config, params = native.load(directory, dtype='float32')
  if config.vocab_size != model.vocab_size:
    raise ValueError(
      f'The teacher in {directory} scores {config.vocab_size} tokens, the '
      f'student {model.vocab_size}; they need one vocabulary.'
    )
  return dataclasses.replace(config, dtype=model.dtype), params


def scorer(
  model: families.Config,
  task: str,
  num_examples: int,
  lengths: Mapping[str, int],
  vocabulary: str | None = None,
) -> trainer.Score:
  """The task's metrics of greedy texts on part of the validation split.

  The examples are read here: a task that cannot be scored (a mixture, or too
  few examples) fails before the training, not at its end.
  """
  examples, metric_fns = inputs.load_task(task, 'validation', num_examples, 0)
  if any(map(inputs.runs_programs, metric_fns)):
    raise ValueError(
      f'train.score_examples is {num_examples}, but the metric of {task} runs '
      'the programs that the model writes: set it to 0, and let evaluate do so.'
    )
  words = _vocabulary(task, vocabulary)
  step = families.step_model(model, words.eos_id)

  def score(params: base.Params) -> dict[str, float]:
    decoder = pairs.Model(step, params, model)
    evaluation = evaluator.evaluate(
      pairs.Pair(decoder, decoder, words),
      examples,
      metric_fns,
      batch_size=50,
      model='verifier',
      max_length=lengths['targets'],
      input_length=lengths['inputs'],
    )
    return evaluation.quality

  return score


def _vocabulary(task: str, path: str | None) -> vocabularies.Vocabulary:
  """That of the file, or else the task's own, which may lie in a bucket."""
  if path is not None:
    return vocabularies.Vocabulary(path)
  import seqio

  from speccascade_jax import data  # noqa: F401  Registers the tasks.

  pieces = seqio.get_mixture_or_task(task).output_features['targets'].vocabulary
  return vocabularies.Vocabulary(
    vocabularies.SentencePieces(
      pieces.sp_model, pieces.sentencepiece_model_file
    )
  )


def tensorboard(folder: pathlib.Path) -> trainer.MetricWriter:
  """Writes event files into `folder`."""
  # Here, because clu imports TensorFlow.
  from clu import metric_writers

  return metric_writers.SummaryWriter(str(folder))
