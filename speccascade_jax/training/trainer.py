"""The training loop: steps, validation, reports, checkpoints, resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import time
from typing import Protocol

import jax
import jax.numpy as jnp
import optax
import tqdm

from speccascade_jax import base
from speccascade_jax.training import losses
from speccascade_jax.training import optimizer as optimizer_lib
from speccascade_jax.training import run_directory
from speccascade_jax.training import train_state
from speccascade_jax.training import train_step

# batches(start) -> the batches of step `start`, `start + 1`, ... without end.
# The same for the same `start`: that is what makes a run resumable.
Batches = Callable[[int], Iterator[train_step.Batch]]

# score(params) -> figures such as {'bleu': 21.3}, by decoding a held-out set.
Score = Callable[[base.Params], dict[str, float]]


class MetricWriter(Protocol):
  """The part of `clu.metric_writers.MetricWriter` that a run uses."""

  def write_scalars(self, step: int, scalars: dict[str, float]) -> None: ...

  def flush(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Loop:
  """When a run does what; counts are optimizer steps.

  Attributes:
    num_steps: where the run ends.
    cooldown_steps: the last steps, over which the learning rate falls
      linearly to zero.
    max_seconds: once this process has trained so long, the cool-down begins
      at once and the run ends when it is over: a run cut short by the clock
      still ends with small steps. A resumed process counts from zero.
    report_every: between two lines of metrics.
    validate_every: between two validation losses.
    score_every: between two decodings of the validation set; None for one at
      the end alone.
    checkpoint_every: between two checkpoints.
    keep: latest checkpoints kept, besides the best one.
    microbatches: parts that a batch is cut into (gradient accumulation).
    average_decay: of the moving average of the parameters, which is then what
      is validated and exported; None for no average.
    seed: of dropout.
  """

  num_steps: int
  cooldown_steps: int = 0
  max_seconds: float | None = None
  report_every: int = 50
  validate_every: int = 500
  score_every: int | None = None
  checkpoint_every: int = 500
  keep: int = 2
  microbatches: int = 1
  average_decay: float | None = None
  seed: int = 0

  def __post_init__(self):
    for name in (
      'num_steps',
      'report_every',
      'validate_every',
      'checkpoint_every',
      'keep',
      'microbatches',
    ):
      value = getattr(self, name)
      if value < 1:
        raise ValueError(f'Loop.{name} must be at least 1, got {value!r}.')
    if not 0 <= self.cooldown_steps <= self.num_steps:
      raise ValueError(
        'Loop.cooldown_steps must lie between 0 and num_steps='
        f'{self.num_steps}, got {self.cooldown_steps!r}.'
      )
    if self.average_decay is not None and not 0 < self.average_decay < 1:
      raise ValueError(
        f'Loop.average_decay must be in (0, 1), got {self.average_decay!r}.'
      )


def train(
  run_dir: str,
  params: base.Params,
  loss: train_step.Loss,
  optimizer: optax.GradientTransformation,
  schedule: optimizer_lib.Schedule,
  batches: Batches,
  validation: Sequence[train_step.Batch],
  loop: Loop,
  *,
  frozen: base.Params = None,
  score: Score | None = None,
  writer: MetricWriter | None = None,
  progress: bool = True,
) -> train_state.TrainState:
  """Trains, or goes on training, until `loop` says it is over.

  Args:
    run_dir: holds checkpoints and metrics.jsonl; a run that was stopped, even
      killed, goes on from its last checkpoint and ends with the parameters
      that it would have had without the interruption.
    params: initial parameters; not read when the run is resumed.
    loss: what to minimise and to report on the validation batches.
    optimizer: see `optimizer.adafactor` and `optimizer.adamw`.
    schedule: learning rate by step.
    batches: the training batches from a given step on.
    validation: the validation batches, the same at each pass.
    loop: when to do what.
    frozen: parameters that `loss` reads and that are not trained.
    score: decodes a held-out set; its figures are reported.
    writer: gets all figures, for TensorBoard.
    progress: whether to draw a bar with loss and tokens/s.

  Returns:
    The final state; `eval_params` of it is what to export.
  """
  run = run_directory.RunDirectory(run_dir, loop.keep)
  state = _begin(run, params, optimizer, loop)
  step = train_step.make(
    loss,
    optimizer,
    schedule,
    cooldown_steps=loop.cooldown_steps,
    microbatches=loop.microbatches,
    average_decay=loop.average_decay,
    seed=loop.seed,
  )
  eval_step = train_step.make_eval(loss)
  done = int(state.step)
  end = int(state.cooldown_start) + loop.cooldown_steps
  meter = _Meter(done, end, progress)
  stream = batches(done) if done < end else iter(())

  def due(every: int | None) -> bool:
    return done == end or (every is not None and done % every == 0)

  def report(prefix: str, figures: dict[str, float]) -> dict[str, float]:
    figures = {f'{prefix}/{name}': value for name, value in figures.items()}
    run.report(done, figures)
    if writer is not None:
      writer.write_scalars(done, figures)
      writer.flush()
    return figures

  while done < end:
    state, sums = step(state, frozen, next(stream))
    done += 1
    meter.add(sums, done)
    if _time_is_up(loop, meter.seconds) and done < int(state.cooldown_start):
      state = _cool_down_from(state, done)
      end = meter.end_at(done + loop.cooldown_steps)
    if due(loop.report_every):
      report('train', meter.take())
    # Only a validation of these very parameters may rank a checkpoint.
    validated = None
    if due(loop.validate_every):
      with meter.paused():
        means = validation_means(
          eval_step, state.eval_params, frozen, validation
        )
      validated = report('validation', means)
      meter.show(validated)
    if score is not None and due(loop.score_every):
      with meter.paused():
        scores = score(state.eval_params)
      meter.show(report('validation', scores))
    if due(loop.checkpoint_every):
      with meter.paused():
        run.save(state, validated)
  meter.close()
  run.close()
  return state


def _begin(
  run: run_directory.RunDirectory,
  params: base.Params,
  optimizer: optax.GradientTransformation,
  loop: Loop,
) -> train_state.TrainState:
  """The first state of a run, or that of its last checkpoint."""
  planned = loop.num_steps - loop.cooldown_steps
  state = train_state.create(
    # A copy, for the step donates them and the caller may still need them.
    jax.tree.map(lambda x: x.copy(), params),
    optimizer,
    planned,
    loop.average_decay is not None,
  )
  if run.latest_step is None:
    return state
  state = run.restore(state)
  done = int(state.step)
  run.truncate_metrics(done)
  # A cool-down that has begun is finished as it was begun, be it by the clock;
  # until then `num_steps` may still change from one start to the next.
  if done < int(state.cooldown_start) or not loop.cooldown_steps:
    return _cool_down_from(state, max(planned, done))
  end = int(state.cooldown_start) + loop.cooldown_steps
  if end < loop.num_steps:
    tqdm.tqdm.write(
      f'{run.path} has cooled down from step {int(state.cooldown_start)} and '
      f'ends at {end}, not at {loop.num_steps}. To train its model further, '
      'start another run from it.'
    )
  return state


def _cool_down_from(
  state: train_state.TrainState, step: int
) -> train_state.TrainState:
  return dataclasses.replace(state, cooldown_start=jnp.int32(step))


def _time_is_up(loop: Loop, seconds: float) -> bool:
  return loop.max_seconds is not None and seconds > loop.max_seconds


def validation_means(
  eval_step: Callable[..., losses.Sums],
  params: base.Params,
  frozen: base.Params,
  validation: Sequence[train_step.Batch],
) -> dict[str, float]:
  """Per-token figures over all validation batches."""
  total: losses.Sums = {}
  for batch in validation:
    sums = eval_step(params, frozen, batch)
    total = {k: total.get(k, 0.0) + v for k, v in sums.items()}
  if not total:
    raise ValueError('There is no validation batch; at least one is needed.')
  return losses.means(total)


class _Meter:
  """Sums since the last report, speed, and the bar that shows both.

  Values are fetched one step late: JAX then prepares the next step while this
  one computes.
  """

  def __init__(self, done: int, end: int, progress: bool):
    self._bar = tqdm.tqdm(
      initial=done,
      total=end,
      unit='step',
      dynamic_ncols=True,
      disable=not progress,
      smoothing=0.05,
    )
    self._begin = self._last = time.perf_counter()
    self._pending: losses.Sums | None = None
    self._total: dict[str, float] = {}
    self._tokens_per_s = 0.0
    self._extra: dict[str, str] = {}

  @property
  def seconds(self) -> float:
    """Since the run was started or resumed, all included."""
    return time.perf_counter() - self._begin

  def end_at(self, end: int) -> int:
    self._bar.total = end
    return end

  def add(self, sums: losses.Sums, done: int) -> None:
    self._absorb()
    self._pending = sums
    self._bar.update(done - self._bar.n)

  def take(self) -> dict[str, float]:
    """Per-token means and tokens/s since the last call."""
    self._absorb()
    now = time.perf_counter()
    self._tokens_per_s = self._total['weight'] / (now - self._last)
    figures = losses.means(self._total)
    self._total, self._last = {}, now
    self.show({'loss': figures['loss']})
    return figures | {'tokens_per_s': self._tokens_per_s}

  def show(self, figures: dict[str, float]) -> None:
    """Puts figures into the bar, the latest of each name."""
    self._extra |= {
      name.replace('validation/', 'val_'): f'{value:.3f}'
      for name, value in figures.items()
      if name.split('/')[-1] in ('loss', 'nll', 'bleu', 'agreement')
    }
    self._bar.set_postfix(self._extra | {'tok/s': f'{self._tokens_per_s:.0f}'})

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Keeps the time of what is done inside out of the speed."""
    self._absorb()
    begin = time.perf_counter()
    yield
    self._last += time.perf_counter() - begin

  def close(self) -> None:
    self._bar.close()

  def _absorb(self) -> None:
    if self._pending is None:
      return
    for name, value in self._pending.items():
      self._total[name] = self._total.get(name, 0.0) + float(value)
    self._pending = None
