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
from speccascade_jax.checkpoints import load as checkpoints
from speccascade_jax.evaluation import evaluator
from speccascade_jax.launch import initial_params
from speccascade_jax.launch import inputs
from speccascade_jax.models import families
from speccascade_jax.training import distillation
from speccascade_jax.training import parts
from speccascade_jax.training import scored_tokens
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
  framing: vocabularies.Framing | None = None  # None: as the task has it.

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
      framing=self.framing,
    )

  def mixed(
    self,
    generated: Generated,
    run_dir: str,
    teacher: initial_params.Teacher,
  ) -> trainer.Batches:
    """The same, with a share of batches of the teacher's own texts.

    The texts are made first, and kept in RUN_DIR/generated.jsonl with the
    teacher's digest.
    """
    from speccascade_jax.data import batches

    sources = batches.sources(
      self.task, 'train', self.lengths, generated.num_examples, self.framing
    )
    length = self.lengths['targets']
    words = (self.framing or task_framing(self.task)).vocabulary
    targets = distillation.generate_targets(
      families.step_model(teacher.config, words.end_ids),
      teacher.params,
      sources,
      pathlib.Path(run_dir) / 'generated.jsonl',
      teacher=teacher.digest,
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

  def scored(
    self, model: families.Config, size: int | None
  ) -> scored_tokens.ScoredTokens | None:
    """The tokens that the loss is over; None for all."""
    if size is None:
      return None
    from speccascade_jax.data import batches

    counts = batches.token_counts(
      self.task, 'train', self.lengths, model.vocab_size, self.framing
    )
    return scored_tokens.choose(counts, size, seed=self.seed)

  def validation(self, num_examples: int | None) -> list[train_step.Batch]:
    """The validation batches, in the host's memory.

    Each of the size of a microbatch, so that it needs no more memory than
    training does.
    """
    from speccascade_jax.data import batches

    return list(
      batches.eval_batches(
        self.task,
        'validation',
        None,
        self.lengths,
        batch_tokens=max(1, self.batch_tokens // self.microbatches),
        framing=self.framing,
        num_examples=num_examples,
      )
    )


def framing(
  model: families.Config,
  vocabulary: str | None,
  *checkpoint_paths: str | None,
) -> vocabularies.Framing | None:
  """How texts become tokens of the model; None leaves that to the task.

  Args:
    model: to be trained.
    vocabulary: a vocabulary's file, or a folder or checkpoint that has one;
      None takes that of the checkpoints.
    *checkpoint_paths: initial model and teacher, None where there is none.

  Raises:
    FileNotFoundError, CheckpointError: if there is no such vocabulary.
    ValueError: if two of them differ, or the model scores fewer tokens and
      what it lacks is more than padding.
  """
  found: dict[str, vocabularies.Vocabulary] = {}
  if vocabulary is not None:
    found[vocabulary] = checkpoints.read_vocabulary(vocabulary)
  for path in checkpoint_paths:
    if path is not None and path not in found:
      own = checkpoints.vocabulary_of(path)
      if own is not None:
        found[path] = own
  if not found:
    return None
  (first, words), *others = found.items()
  for name, other in others:
    vocabularies.check_same(words, other, (first, name))
  for name, other in others:
    # What the student does not score, its teacher is not to be asked for.
    other.cut(model.vocab_size, name)
  return vocabularies.Framing.of(
    words.cut(model.vocab_size, first), families.family_of(model).decoder_only
  )


def task_framing(task: str) -> vocabularies.Framing:
  """A task's own vocabulary; its inputs end with an end of sequence.

  Raises:
    FileNotFoundError: if it cannot be read.
  """
  import seqio
  import tensorflow as tf

  from speccascade_jax import data  # noqa: F401  Registers the tasks.

  pieces = seqio.get_mixture_or_task(task).output_features['targets'].vocabulary
  # The file may lie in a bucket, which seqio reads.
  path = pieces.sentencepiece_model_file
  try:
    codec = vocabularies.SentencePieces(pieces.sp_model, path)
  except tf.errors.OpError as error:
    raise FileNotFoundError(
      f'The vocabulary of {task}, {path}, cannot be read here '
      f'({error.message.splitlines()[0]}): fetch it, and name the file with '
      'train.vocabulary.'
    ) from error
  return vocabularies.Framing(vocabularies.Vocabulary(codec), bos_first=False)


def check_objective(
  objective: Callable[..., train_step.Loss],
  teacher: str | None,
  generated: Generated | None,
) -> None:
  """A teacher is named exactly when the objective follows one."""
  wanted = 'teacher' in inspect.signature(objective).parameters
  if wanted and teacher is None:
    raise ValueError(
      'train.teacher is None, but the objective follows a teacher: name its '
      'checkpoint.'
    )
  if not wanted and (teacher is not None or generated is not None):
    raise ValueError(
      f'train.teacher is {teacher!r} and train.generated is {generated!r}, '
      'but the objective follows no teacher: take @distillation.'
    )


def scorer(
  model: families.Config,
  task: str,
  num_examples: int,
  lengths: Mapping[str, int],
  framed: vocabularies.Framing | None,
  kept: base.Params,
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
  framed = framed or task_framing(task)
  words = framed.vocabulary
  step = families.step_model(model, words.end_ids)

  def score(params: base.Params) -> dict[str, float]:
    decoder = pairs.Model(step, parts.merge(params, kept), model)
    evaluation = evaluator.evaluate(
      pairs.Pair(decoder, decoder, words, bos_first=framed.bos_first),
      examples,
      metric_fns,
      batch_size=50,
      model='verifier',
      max_length=lengths['targets'],
      input_length=lengths['inputs'],
    )
    return evaluation.quality

  return score


def check_data(task: str) -> None:
  """Refuses data that are not there, without reading them.

  Raises:
    ValueError: if there is no such task, or it lacks a split.
    FileNotFoundError: if the data set has not been prepared.
  """
  from speccascade_jax.data import task_texts

  for split in ('train', 'validation'):
    task_texts.check(task, split)


def tensorboard(folder: pathlib.Path) -> trainer.MetricWriter:
  """Writes event files into `folder`."""
  # Here, because clu imports TensorFlow.
  from clu import metric_writers

  return metric_writers.SummaryWriter(str(folder))
