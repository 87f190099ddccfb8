"""Methods x alpha x gamma x T over a task's examples: quality and latency.

Runs are timed side by side. Points that share temperature, truncation and
trial keep *company*; for every example all of them are timed in turn, in an
order that moves on by one an example::

  example 0   verifier  drafter   OPT 0.1   OPT 0.2
  example 1   drafter   OPT 0.1   OPT 0.2   verifier
  example 2   OPT 0.1   OPT 0.2   verifier  drafter

so that whatever slows the machine down for a while slows them all. Runs that
a later start adds are compared with a verifier of that start: it takes its
turns again, though its texts are there already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import math
import os
import pathlib
from typing import Any, TypeVar

import tqdm

from speccascade_jax import loops
from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import comparison
from speccascade_jax.evaluation import cost_model
from speccascade_jax.evaluation import environment
from speccascade_jax.evaluation import latency
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import scoring

_COUNTERS = (
  'drafter_steps',
  'verifier_calls',
  'drafted',
  'accepted',
  'resampled',
  'deferred',
)

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
    replicates: of the bootstrap; 0 gives no intervals.
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
    'replicates': replicates,
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
    _run_all(generator, examples, by_key, directory, lengths, progress)
    counts = bootstrap.draws(len(examples), replicates, points[0].seed)
    _summarise_all(
      examples, by_key, directory, metric_fns, counts, recompute_metrics
    )
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
  stored = directory.call_times
  if stored is not None and cost_model.covers(stored, points):
    return
  measure = getattr(generator, 'call_times', None)
  if measure is not None:
    # All of them anew: times of two starts do not go together.
    directory.call_times = measure(cost_model.widths(points), **lengths)


def _verifiers(by_key) -> dict[tuple, str]:
  """The key of the verifier's run, by company."""
  return {
    point.company(): key for key, point in by_key.items() if point.is_reference
  }


def _run_all(generator, examples, by_key, directory, lengths, progress):
  companies: dict[tuple, list[str]] = {}
  for key, point in by_key.items():
    companies.setdefault(point.company(), []).append(key)
  done = sum(
    e.example in directory.runs[key].log.rows
    for key in by_key
    for e in examples
  )
  warm: dict[tuple, latency.WarmUp] = {}
  verifiers = _verifiers(by_key)
  retimed: dict[str, results.Log] = {}
  with tqdm.tqdm(
    total=len(by_key) * len(examples),
    initial=done,
    unit='run',
    disable=not progress,
    smoothing=0.05,
  ) as bar:
    for company, keys in companies.items():
      # A point that is finished needs no program.
      keys = [
        k for k in keys if len(directory.runs[k].log.rows) < len(examples)
      ]
      reference = verifiers.get(company)
      logs = {key: directory.runs[key].log for key in keys}
      if keys and reference is not None and reference not in keys:
        keys = [reference, *keys]
      for key in keys:
        point = by_key[key]
        if point.program() not in warm:
          bar.set_postfix_str(f'compiling {_name(point)}')
          warm[point.program()] = _warm_up(generator, examples, point, lengths)
        times = warm[point.program()]
        if key in logs:
          directory.runs[key].warmup = {
            'compile_s': times.compile_s,
            'warmup_ms': times.warmup_ms,
          }
      for i, example in enumerate(examples):
        missing = {k for k in logs if example.example not in logs[k].rows}
        for key in rotated(keys, i):
          run = directory.runs[key]
          again = key == reference and key not in missing
          if key not in missing and not (again and missing):
            continue
          bar.set_postfix_str(_name(by_key[key]), refresh=False)
          row = _run_one(generator, example, by_key[key], lengths)
          row['start'] = directory.start
          if again:
            retimed.setdefault(key, run.retimed(directory.start)).append(
              {name: row[name] for name in ('example', 'latency_ms', 'start')}
            )
          else:
            run.log.append(row)
            bar.update()
  for log in retimed.values():
    log.close()


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
  for name in _COUNTERS:
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


def _summarise_all(
  examples, by_key, directory, metric_fns, counts, recompute_metrics
) -> None:
  """Writes all summaries; a verifier's run added later completes them."""

  def in_order(key):
    # Rows may lie in another order than the examples after a resumed run.
    return [directory.runs[key].log.rows[e.example] for e in examples]

  verifiers = {
    company: comparison.Verifier(
      by_key[key], in_order(key), directory.runs[key].timings()
    )
    for company, key in _verifiers(by_key).items()
  }
  targets = [example.target for example in examples]
  for key, point in by_key.items():
    run, rows = directory.runs[key], in_order(key)
    verifier = verifiers.get(point.company())
    predictions = [row['prediction'] for row in rows]
    quality, signatures = scoring.score(metric_fns, targets, predictions)
    replicates = {
      name: bootstrap.rounded(values)
      for name, values in bootstrap.quality(
        metric_fns, targets, predictions, counts, recompute=recompute_metrics
      ).items()
    }
    wall = comparison.wall_clock(rows, verifier, counts)
    model = comparison.modelled(
      rows, point, verifier, directory.call_times, counts
    )
    run.write_replicates(
      {'quality': replicates} | wall.replicates | model.replicates
    )
    run.write_summary(
      {'quality': quality, 'signatures': signatures}
      | {
        'quality_interval': {
          name: bootstrap.interval(values)
          for name, values in replicates.items()
        }
      }
      | summarise(rows, **_kind(point))
      | (run.warmup or {'compile_s': None, 'warmup_ms': None})
      | wall.summary
      | model.summary
    )


def _kind(point: methods.RunPoint) -> dict[str, bool]:
  pair = point.model == 'pair'
  return {
    'judged': pair and loops.LOOPS[point.method].judges,
    'deferring': pair,
  }


def summarise(
  rows: Sequence[Mapping[str, Any]], *, judged: bool, deferring: bool
) -> dict[str, float | int | None]:
  """Latency statistics and rates over the lines of one run.

  Rates are ratios of sums, so that an example counts by its tokens. Where no
  drafted token is judged there is no acceptance rate; where a model decodes
  alone nothing is deferred, and some rules define no deferral: None.
  """
  total = {
    name: sum(row[name] or 0 for row in rows)
    for name in ('output_tokens', *_COUNTERS)
  }
  proposals = total['accepted'] + total['resampled'] if judged else 0
  defined = deferring and all(row['deferred'] is not None for row in rows)
  deferrals = total['output_tokens'] if defined else 0
  return {
    **latency.statistics(
      [row['latency_ms'] for row in rows],
      [row['output_tokens'] for row in rows],
    ),
    'acceptance_rate': _ratio(total['accepted'], proposals),
    'rejection_rate': _ratio(total['resampled'], proposals),
    'deferral_rate': _ratio(total['deferred'], deferrals),
    'block_efficiency': _ratio(total['output_tokens'], total['verifier_calls']),
    'verifier_calls_per_example': total['verifier_calls'] / len(rows),
    'drafter_steps_per_example': total['drafter_steps'] / len(rows),
    'num_examples': len(rows),
    'num_truncated': sum(row['truncated'] for row in rows),
  }


def _ratio(numerator: float, denominator: float) -> float | None:
  return numerator / denominator if denominator else None
