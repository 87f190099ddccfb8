"""Methods x alpha x gamma x T over a task's examples: quality and latency.

Runs are timed side by side. Points that share temperature, truncation and
trial keep *company*; for every example all of them are timed in turn, in an
order that moves on by one an example::

  example 0   verifier  drafter   OPT 0.1   OPT 0.2
  example 1   drafter   OPT 0.1   OPT 0.2   verifier
  example 2   OPT 0.1   OPT 0.2   verifier  drafter

so that whatever slows the machine down for a while slows them all. Runs that
a later start adds are compared with a verifier of that start: it takes its
turns again, though its texts are there already. What keeps company is done at
the same time, and is summarised then: reports need not wait for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import math
import os
import pathlib
from typing import Any, TypeVar

import tqdm

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import cost_model
from speccascade_jax.evaluation import environment
from speccascade_jax.evaluation import latency
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import scoring
from speccascade_jax.evaluation import summaries

_T = TypeVar('_T')


def sweep(
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
  replicates: int = 1000,
  recompute_metrics: bool = False,
  operative_config: str = '',
  progress: bool = True,
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
    task: for the record, like `pair` and `split`.
    pair: likewise.
    pair_digest: of what the generator computes with, see `Pair.digest`; a
      name stays when a model is trained again.
    split: likewise.
    primary_metric: the metric that reports plot; one of the metrics' names.
    input_length: width that all sources are padded to [tokens].
    max_length: most output tokens.
    replicates: of the bootstrap; 0 gives no intervals. No part of what is
      run: a later start may ask for others.
    recompute_metrics: see `bootstrap.quality`.
    operative_config: gin's, kept beside the results.
    progress: show a bar on stderr.

  Returns:
    `run_dir`.

  Raises:
    ValueError: for bad settings, before anything is compiled.
    results.ResultsError: if `run_dir` is in use or holds another sweep.
  """
  context = {
    'task': task,
    'pair': pair,
    'split': split,
    'input_length': input_length,
    'max_length': max_length,
  }
  by_key = {point.key(context): point for point in points}
  identity = context | {
    'pair_digest': pair_digest,
    'device': environment.device(),
    'seed': points[0].seed,
    'num_examples': len(examples),
    'metrics': _metric_names(metric_fns, examples, primary_metric),
    'primary_metric': primary_metric,
  }
  if replicates < 0:
    raise ValueError(f'replicates is {replicates}; it must be at least 0.')
  with results.RunDirectory(
    run_dir,
    identity=identity,
    circumstances=environment.circumstances(),
    examples=examples,
    configs={key: point.config() for key, point in by_key.items()},
    operative_config=operative_config,
  ) as directory:
    lengths = {'input_length': input_length, 'max_length': max_length}
    _time_calls(generator, by_key.values(), directory, lengths)
    scores = summaries.Scores(
      metric_fns,
      bootstrap.draws(len(examples), replicates, points[0].seed),
      recompute=recompute_metrics,
      max_length=max_length,
    )
    _run_all(generator, examples, by_key, directory, lengths, scores, progress)
    return directory.path


def rotated(items: Sequence[_T], start: int) -> Iterator[_T]:
  """All items, beginning with number `start` modulo their count."""
  for i in range(len(items)):
    yield items[(start + i) % len(items)]


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


def _run_all(generator, examples, by_key, directory, lengths, scores, progress):
  """One company after the other; each is summarised as soon as it is done."""
  companies: dict[tuple, dict[str, methods.RunPoint]] = {}
  for key, point in by_key.items():
    companies.setdefault(point.company(), {})[key] = point
  done = sum(
    e.example in directory.runs[key].log.rows
    for key in by_key
    for e in examples
  )
  warm: dict[tuple, latency.WarmUp] = {}
  with tqdm.tqdm(
    total=len(by_key) * len(examples),
    initial=done,
    unit='run',
    disable=not progress,
    smoothing=0.05,
  ) as bar:
    for points in companies.values():
      _run_company(generator, examples, points, directory, lengths, warm, bar)
      bar.set_postfix_str('scoring')
      summaries.write(points, directory, examples, scores)


def _run_company(generator, examples, points, directory, lengths, warm, bar):
  """Runs what its points lack; `warm` has the programs of those before."""
  # A point that is finished needs no program.
  logs = {
    key: directory.runs[key].log
    for key in points
    if len(directory.runs[key].log.rows) < len(examples)
  }
  keys = list(logs)
  reference = next((k for k, p in points.items() if p.is_reference), None)
  if keys and reference is not None and reference not in keys:
    keys = [reference, *keys]
  for key in keys:
    point = points[key]
    if point.program() not in warm:
      bar.set_postfix_str(f'compiling {_name(point)}')
      warm[point.program()] = _warm_up(generator, examples, point, lengths)
    times = warm[point.program()]
    if key in logs:
      directory.runs[key].warmup = {
        'compile_s': times.compile_s,
        'warmup_ms': times.warmup_ms,
      }
  retimed: results.Log | None = None
  for i, example in enumerate(examples):
    missing = {k for k in logs if example.example not in logs[k].rows}
    for key in rotated(keys, i):
      again = key == reference and key not in missing
      if key not in missing and not (again and missing):
        continue
      bar.set_postfix_str(_name(points[key]), refresh=False)
      row = _run_one(generator, example, points[key], lengths)
      row['start'] = directory.start
      if again:
        if retimed is None:
          retimed = directory.runs[key].retimed(directory.start)
        names = ('example', 'latency_ms', 'start')
        retimed.append({name: row[name] for name in names})
      else:
        logs[key].append(row)
        bar.update()
  if retimed is not None:
    retimed.close()


def _generate(generator, example, point, lengths):
  settings = point.settings() | lengths
  return lambda: generator.generate(
    [example.source], row_ids=[example.example], **settings
  )


def _warm_up(generator, examples, point, lengths) -> latency.WarmUp:
  longest = max(examples, key=lambda example: len(example.source))
  return latency.warm_up(_generate(generator, longest, point, lengths))


def _run_one(generator, example, point, lengths) -> dict[str, Any]:
  output, latency_ms = latency.timed(
    _generate(generator, example, point, lengths)
  )
  row = {
    'example': example.example,
    'prediction': output.texts[0],
    'latency_ms': round(latency_ms, 4),
    'output_tokens': int(output.lengths[0]),
    'truncated': bool(output.truncated[0]),
  }
  for name in summaries.COUNTERS:
    row[name] = output.stats[name][0].item()
  deferred = row['deferred']  # NaN for a rule without a deferral.
  row['deferred'] = None if math.isnan(deferred) else round(deferred, 6)
  return row


def _name(point: methods.RunPoint) -> str:
  settings = [f'T={point.temperature:g}']
  if point.alpha is not None:
    name = point.truncation or 'alpha'
    settings.append(f'{name}={point.alpha:g}')
  return f'{point.label} {" ".join(settings)}'
