"""Methods x alpha x gamma x T over a task's examples: quality and latency.

Points that share temperature, truncation and trial keep *company*: they are
run side by side, see `running`. What keeps company is done at the same time,
and is summarised then: reports need not wait for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import os
import pathlib
from typing import Any

import tqdm

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import cost_model
from speccascade_jax.evaluation import environment
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import running
from speccascade_jax.evaluation import scoring
from speccascade_jax.evaluation import summaries


def sweep(
  generator: base.Generator,
  examples: Sequence[base.Example],
  points: Sequence[methods.RunPoint],
  metric_fns: Sequence[base.MetricFn],
  run_dir: str | os.PathLike[str],
  *,
  max_length: int,
  input_length: int,
  replicates: int = 1000,
  recompute_metrics: bool = False,
  progress: bool = True,
  **settings: Any,
) -> pathlib.Path:
  """Runs what is not done yet and writes every summary.

  Common random numbers: what an example draws depends on the points' seed and
  trial and on the example alone, never on the method, on what ran before or
  on whether the sweep was resumed.

  Args:
    generator: see `base.Generator`.
    examples: in the order in which they are run and reported.
    points: see `methods.expand`.
    metric_fns: see `base.MetricFn`.
    run_dir: begun or resumed; see `results`.
    max_length: most output tokens.
    input_length: width that all sources are padded to [tokens].
    replicates: of the bootstrap; 0 gives no intervals. No part of what is
      run: a later start may ask for others.
    recompute_metrics: see `bootstrap.quality`.
    progress: show a bar on stderr.
    **settings: see `opened`.

  Returns:
    `run_dir`.

  Raises:
    ValueError: for bad settings, before anything is compiled.
    results.ResultsError: if `run_dir` is in use or holds another sweep.
  """
  if replicates < 0:
    raise ValueError(f'replicates is {replicates}; it must be at least 0.')
  lengths: dict[str, Any] = {
    'input_length': input_length,
    'max_length': max_length,
  }
  with opened(
    generator, examples, points, metric_fns, run_dir, **lengths, **settings
  ) as (directory, by_key):
    scores = summaries.Scores(
      metric_fns,
      bootstrap.draws(len(examples), replicates, points[0].seed),
      recompute=recompute_metrics,
      max_length=max_length,
    )
    companies: dict[tuple, dict[str, methods.RunPoint]] = {}
    for key, point in by_key.items():
      companies.setdefault(point.company(), {})[key] = point
    done = sum(
      e.example in directory.runs[key].log.rows
      for key in by_key
      for e in examples
    )
    with tqdm.tqdm(
      total=len(by_key) * len(examples),
      initial=done,
      unit='run',
      disable=not progress,
      smoothing=0.05,
    ) as bar:
      runner = running.Runner(generator, directory, lengths, bar)
      for company in companies.values():
        runner.run(company, examples)
        bar.set_postfix_str('scoring')
        summaries.write(company, directory, examples, scores)
    return directory.path


@contextlib.contextmanager
def opened(
  generator: base.Generator,
  examples: Sequence[base.Example],
  points: Sequence[methods.RunPoint],
  metric_fns: Sequence[base.MetricFn],
  run_dir: str | os.PathLike[str],
  *,
  task: str,
  pair: str,
  pair_digest: str,
  split: str,
  primary_metric: str,
  input_length: int,
  max_length: int,
  operative_config: str = '',
) -> Iterator[tuple[results.RunDirectory, Mapping[str, methods.RunPoint]]]:
  """The run directory of a sweep, with the times of single calls.

  Args:
    generator: see `sweep`.
    examples: all that runs in the directory may have.
    points: see `sweep`.
    metric_fns: see `sweep`.
    run_dir: see `sweep`.
    task: for the record, like `pair` and `split`.
    pair: likewise.
    pair_digest: of what the generator computes with, see `Pair.digest`; a
      name stays when a model is trained again.
    split: likewise.
    primary_metric: the metric that reports plot; one of the metrics' names.
    input_length: see `sweep`.
    max_length: see `sweep`.
    operative_config: gin's, kept beside the results.

  Yields:
    The directory, locked, and the points by key.
  """
  lengths = {'input_length': input_length, 'max_length': max_length}
  context = {'task': task, 'pair': pair, 'split': split, **lengths}
  by_key = {point.key(context): point for point in points}
  identity = context | {
    'pair_digest': pair_digest,
    'device': environment.device(),
    'seed': points[0].seed,
    'num_examples': len(examples),
    'metrics': _metric_names(metric_fns, examples, primary_metric),
    'primary_metric': primary_metric,
  }
  with results.RunDirectory(
    run_dir,
    identity=identity,
    circumstances=environment.circumstances(),
    examples=examples,
    configs={key: point.config() for key, point in by_key.items()},
    operative_config=operative_config,
  ) as directory:
    _time_calls(generator, by_key.values(), directory, lengths)
    yield directory, by_key


def _metric_names(metric_fns, examples, primary_metric) -> list[str]:
  """What the metrics report; a metric that cannot run fails here, early."""
  if not examples:
    raise ValueError('There are no examples to run.')
  # A few will do: it is the names that count.
  targets = [example.target for example in examples[:8]]
  quality, _ = scoring.score(metric_fns, targets, [''] * len(targets))
  if primary_metric not in quality:
    raise ValueError(
      f'primary_metric is {primary_metric!r}; the metrics report '
      f'{", ".join(quality) or "nothing"}.'
    )
  return list(quality)


def _time_calls(generator, points, directory, lengths) -> None:
  """Times single calls, once for all runs that are to be compared by them."""
  stored, longest = directory.call_times, lengths['max_length']
  if stored is not None and cost_model.covers(
    stored, points, max_length=longest
  ):
    return
  measure = getattr(generator, 'call_times', None)
  if measure is not None:
    # All of them anew: times of two starts do not go together.
    widths = cost_model.widths(points, max_length=longest)
    directory.call_times = measure(widths, **lengths)
