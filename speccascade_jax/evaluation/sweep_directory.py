"""The run directory of a sweep or a search, checked before it is begun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import os
from typing import Any

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import cost_model
from speccascade_jax.evaluation import environment
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import scoring

# Settings of `generate` that say how far every text goes.
_EXTENT = ('input_length', 'max_length', 'stop')


@contextlib.contextmanager
def opened(
  generator: base.Generator,
  examples: Sequence[base.Example],
  points: Sequence[methods.RunPoint],
  metric_fns: Sequence[base.MetricFn],
  run_dir: str | os.PathLike[str],
  *,
  operative_config: str = '',
  command: str = 'sweep',
  gin_files: Sequence[str] = (),
  **settings: Any,
) -> Iterator[tuple[results.RunDirectory, Mapping[str, methods.RunPoint]]]:
  """The directory, with the times of single calls.

  Args:
    generator: see `base.Generator`.
    examples: all that runs in the directory may have.
    points: see `methods.expand`.
    metric_fns: see `base.MetricFn`.
    run_dir: begun or resumed; see `results`.
    operative_config: gin's, kept beside the results.
    command: that is at work, for the record.
    gin_files: that it was set up by, likewise.
    **settings: see `identity`.

  Yields:
    The directory, locked, and the points by key.

  Raises:
    ValueError: see `identity`.
    results.ResultsError: if `run_dir` is in use or holds another sweep.
  """
  whole = identity(examples, points, metric_fns, **settings)
  context = {
    name: whole[name] for name in ('task', 'pair', 'split', *extent(whole))
  }
  by_key = {point.key(context): point for point in points}
  with results.RunDirectory(
    run_dir,
    identity=whole,
    circumstances={'command': command, 'gin_files': list(gin_files)}
    | environment.circumstances(),
    examples=examples,
    configs={key: point.config() for key, point in by_key.items()},
    operative_config=operative_config,
  ) as directory:
    lengths = {k: whole[k] for k in ('input_length', 'max_length')}
    _time_calls(generator, by_key.values(), directory, lengths)
    yield directory, by_key


def extent(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Those of the settings that tell `generate` how far every text goes."""
  return {name: settings[name] for name in _EXTENT if settings.get(name)}


def check(
  examples: Sequence[base.Example],
  points: Sequence[methods.RunPoint],
  metric_fns: Sequence[base.MetricFn],
  run_dir: str | os.PathLike[str],
  **settings: Any,
) -> None:
  """Refuses what `opened` would refuse later; makes and locks nothing."""
  results.check_identity(
    run_dir, identity(examples, points, metric_fns, **settings)
  )
  results.check_examples(run_dir, examples)


def identity(
  examples: Sequence[base.Example],
  points: Sequence[methods.RunPoint],
  metric_fns: Sequence[base.MetricFn],
  *,
  task: str,
  pair: str,
  pair_digest: str,
  split: str,
  primary_metric: str,
  input_length: int,
  max_length: int,
  stop: Sequence[str] = (),
  models: Sequence[str] = (),
) -> dict[str, Any]:
  """What all starts in a directory have in common, as JSON.

  Args:
    examples: see `opened`.
    points: likewise.
    metric_fns: likewise.
    task: for the record, like `pair` and `split`.
    pair: likewise.
    pair_digest: of what the generator computes with, see `Pair.digest`; a
      name stays when a model is trained again.
    split: likewise.
    primary_metric: the metric that reports plot; one of the metrics' names.
    input_length: width that all sources are padded to [tokens].
    max_length: most output tokens.
    stop: texts that end an output, see `Pair.generate`.
    models: what the pair's models are, drafter first, if it says so.

  Raises:
    ValueError: if there are no examples, or the metrics fail on them or do
      not report the primary one.
  """
  if not examples:
    raise ValueError('There are no examples to run.')
  # A few will do: it is the names that count, and whether metrics run.
  targets = [example.target for example in examples[:8]]
  scoring.reporting(metric_fns, primary_metric, targets)
  quality, _ = scoring.score(metric_fns, targets, [''] * len(targets))
  whole: dict[str, Any] = {
    'task': task,
    'pair': pair,
    'split': split,
    'input_length': input_length,
    'max_length': max_length,
    'pair_digest': pair_digest,
    'device': environment.device(),
    'seed': points[0].seed,
    'num_examples': len(examples),
    'metrics': list(quality),
    'primary_metric': primary_metric,
  }
  # Not where there are none, lest older sweeps become others.
  optional = {'stop': list(stop), 'models': list(models)}
  return whole | {name: value for name, value in optional.items() if value}


def _time_calls(generator, points, directory, lengths) -> None:
  """Times single calls, once for all runs that are to be compared by them."""
  stored, longest = directory.call_times, lengths['max_length']
  if stored is not None and cost_model.covers(
    stored, points, max_length=longest
  ):
    return
  measure = getattr(generator, 'call_times', None)
  if measure is not None:
    # All of them anew: times of two starts do not go together. Those that
    # only runs of an earlier start need are not lost by it.
    widths = {*cost_model.widths(points, max_length=longest)}
    widths |= {*cost_model.timed_widths(stored or {})}
    directory.call_times = measure(sorted(widths), **lengths)
