"""Successive halving over examples: all candidates on a few, the best on more.

The examples are put in a random order, the same at every start. On each rung
the candidates that are left are run on the first so many of them; those that
would be chosen in the most bootstrap replicates go on to the next rung, where
only the lines that are new have to be run. The one that would be chosen if the
search ended there goes on in any case. Every line stays in a run directory
like any sweep's: a search that was killed goes on, one with another constraint
in the same directory begins with what is there, and so does one in the
directory of a sweep over the same examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import math
import numbers
import operator
import os
from typing import Any

import numpy as np
import tqdm

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import candidates as candidates_lib
from speccascade_jax.evaluation import choosing
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import running
from speccascade_jax.evaluation import scoring
from speccascade_jax.evaluation import summaries
from speccascade_jax.evaluation import sweep_directory


@dataclasses.dataclass(frozen=True)
class Rung:
  """What a rung of the search found.

  Attributes:
    num_examples: that its candidates were compared on.
    candidates: most promising first, the verifier itself last.
    wins: share of the replicates in which each would be chosen, by key.
    kept: keys of those that went on; on the last rung, of all.
    undefined: points that had no quality to compare, and are out.
  """

  num_examples: int
  candidates: tuple[candidates_lib.Candidate, ...]
  wins: Mapping[str, float]
  kept: frozenset[str]
  undefined: tuple[methods.RunPoint, ...] = ()


def search(
  generator: base.Generator,
  examples: Sequence[base.Example],
  points: Sequence[methods.RunPoint],
  metric_fns: Sequence[base.MetricFn],
  run_dir: str | os.PathLike[str],
  *,
  constraint: choosing.Constraint,
  rungs: Sequence[int],
  keep: float = 1 / 3,
  clock: str = 'wall',
  replicates: int = 400,
  progress: bool = True,
  on_rung: Callable[[Rung], None] = lambda _: None,
  **settings: Any,
) -> list[Rung]:
  """Narrows the candidates down.

  Args:
    generator: see `base.Generator`.
    examples: of the split that may be looked at; those of the test split are
      for afterwards.
    points: of one company: the verifier alone, and the candidates.
    metric_fns: see `base.MetricFn`; of the primary one, larger is better.
    run_dir: begun or resumed; see `results`.
    constraint: what is asked for.
    rungs: examples that each rung compares on, growing; at most all.
    keep: share of the candidates that goes on to the next rung.
    clock: what counts as latency: 'wall', or 'model', see `cost_model`.
    replicates: of the bootstrap.
    progress: show a bar on stderr.
    on_rung: told of each rung when it is done.
    **settings: see `sweep_directory.opened`.

  Returns:
    The rungs. The verifier itself is in each of them.

  Raises:
    ValueError: for bad settings, before anything is compiled, and for a
      verifier whose quality allows no comparison.
    results.ResultsError: if `run_dir` is in use or holds another sweep.
  """
  rungs = checked_rungs(rungs)
  if rungs[-1] > len(examples):
    raise ValueError(
      f'The last of the rungs {rungs} needs {rungs[-1]} examples; there are '
      f'{len(examples)}.'
    )
  check_settings(keep=keep, clock=clock, replicates=replicates)
  _check(generator, points, clock)
  order = np.random.default_rng(points[0].seed).permutation(len(examples))
  shuffled = [examples[i] for i in order]
  found: list[Rung] = []
  with sweep_directory.opened(
    *(generator, examples, points, metric_fns, run_dir),
    command='tune',
    **settings,
  ) as (directory, by_key):
    left = dict(by_key)
    lengths = sweep_directory.extent(settings)
    with tqdm.tqdm(unit='run', disable=not progress, smoothing=0.05) as bar:
      runner = running.Runner(generator, directory, lengths, bar)
      for number, count in enumerate(rungs, 1):
        seen = shuffled[:count]
        bar.set_description_str(f'rung {number} of {len(rungs)}')
        bar.reset(total=_missing(directory, left, seen))
        runner.run(left, seen)
        bar.set_postfix_str('scoring')
        counts = bootstrap.draws(count, replicates, points[0].seed)
        measured, undefined = _measure(
          directory, left, seen, metric_fns, counts, clock, settings
        )
        _check_reference(measured, constraint, settings['primary_metric'])
        share = 1.0 if number == len(rungs) else keep
        rung = _rung(measured, count, constraint, share)
        out = tuple(left[key] for key in undefined)
        rung = dataclasses.replace(rung, undefined=out)
        found.append(rung)
        on_rung(rung)
        left = {
          key: point
          for key, point in left.items()
          if point.is_reference or key in rung.kept
        }
      if rungs[-1] == len(examples) and directory.command == 'tune':
        # What has all examples is there for a report to show. In a sweep's
        # directory it has summaries, of the sweep's own replicates.
        _summarise(directory, left, examples, metric_fns, counts, settings)
  return found


def confirm(
  generator: base.Generator,
  examples: Sequence[base.Example],
  points: Sequence[methods.RunPoint],
  metric_fns: Sequence[base.MetricFn],
  run_dir: str | os.PathLike[str],
  *,
  clock: str = 'wall',
  replicates: int = 1000,
  progress: bool = True,
  **settings: Any,
) -> candidates_lib.Candidate:
  """What a choice comes to on examples that had no part in it.

  Args:
    generator: see `search`.
    examples: held out.
    points: the verifier alone and the chosen one, or the verifier chosen.
    metric_fns: see `search`.
    run_dir: of a sweep over these examples, begun or resumed.
    clock: see `search`.
    replicates: see `search`.
    progress: see `search`.
    **settings: see `sweep_directory.opened`.

  Returns:
    The chosen one, measured on all examples.

  Raises:
    ValueError: for bad settings; if its quality is not a finite number on all
      of them or some draw of them.
    results.ResultsError: if `run_dir` is in use or holds another sweep.
  """
  check_settings(clock=clock, replicates=replicates)
  counts = bootstrap.draws(len(examples), replicates, points[0].seed)
  lengths = sweep_directory.extent(settings)
  with sweep_directory.opened(
    *(generator, examples, points, metric_fns, run_dir),
    command='tune',
    **settings,
  ) as (directory, by_key):
    with tqdm.tqdm(
      total=_missing(directory, by_key, examples),
      desc='held out',
      unit='run',
      disable=not progress,
    ) as bar:
      running.Runner(generator, directory, lengths, bar).run(by_key, examples)
    _summarise(directory, by_key, examples, metric_fns, counts, settings)
    measured, undefined = _measure(
      directory, by_key, examples, metric_fns, counts, clock, settings
    )
  if undefined:
    raise ValueError(
      f'{settings["primary_metric"]} of {by_key[undefined[0]]} is not a finite '
      f'number on every draw of the {len(examples)} held-out examples: hold '
      'out more of them.'
    )
  # The verifier is what stands where nothing else was chosen.
  return min(measured.values(), key=lambda c: c.point.is_reference)


def apart(
  examples: Sequence[base.Example], seen: Sequence[base.Example]
) -> list[base.Example]:
  """Those examples whose source and target are not among the seen ones."""

  def content(example):
    return json.dumps([example.source, example.target], default=str)

  known = set(map(content, seen))
  return [example for example in examples if content(example) not in known]


def checked_rungs(rungs: Sequence[int]) -> tuple[int, ...]:
  """Plain whole numbers that grow, from 2 on.

  Raises:
    ValueError: if they are anything else.
  """
  try:
    numbers = tuple(map(operator.index, rungs))
  except TypeError:
    numbers = ()
  if not numbers or numbers != tuple(sorted({*numbers})) or numbers[0] < 2:
    raise ValueError(
      f'rungs are {rungs!r}; they must be numbers of examples that grow, from '
      '2 on, such as (50, 150, 450).'
    )
  return numbers


def most_texts(
  points: Sequence[methods.RunPoint],
  costs: Sequence[float],
  rungs: Sequence[int],
  keep: float,
) -> list[int]:
  """How many examples each point runs on at most, if the dearest go on.

  Args:
    points: of the search.
    costs: of each on one example, in any unit.
    rungs: see `search`.
    keep: likewise.
  """
  others = [i for i, point in enumerate(points) if not point.is_reference]
  left = sorted(others, key=lambda i: -costs[i])
  found = [rungs[-1]] * len(points)
  for here, following in zip(rungs, [*rungs[1:], None]):
    # One more than its share: the one that would be chosen.
    kept = left[: math.ceil(keep * len(left)) + 1] if following else left
    for i in {*left} - {*kept}:
      found[i] = here
    left = kept
  return found


def _measure(directory, points, examples, metric_fns, counts, clock, settings):
  metric = settings['primary_metric']
  targets = [example.target for example in examples[:8]]
  return candidates_lib.measure(
    directory,
    points,
    examples,
    scoring.reporting(metric_fns, metric, targets),
    metric,
    counts,
    max_length=settings['max_length'],
    clock=clock,
  )


def _summarise(directory, points, examples, metric_fns, counts, settings):
  scores = summaries.Scores(
    metric_fns, counts, recompute=True, max_length=settings['max_length']
  )
  summaries.write(points, directory, examples, scores)


def _missing(
  directory: results.RunDirectory,
  points: Mapping[str, methods.RunPoint],
  examples: Sequence[base.Example],
) -> int:
  logs = [directory.runs[key].log for key in points]
  return sum(e.example not in log.rows for log in logs for e in examples)


def _rung(
  measured: Mapping[str, candidates_lib.Candidate],
  num_examples: int,
  constraint: choosing.Constraint,
  keep: float,
) -> Rung:
  candidates = [*measured.values()]
  won = choosing.wins(candidates, constraint)
  best = choosing.ranked(candidates, constraint, won)
  # The verifier goes on in any case and takes nobody's place.
  others = [c for c in best if not c.point.is_reference]
  kept = {c.key for c in others[: math.ceil(keep * len(others))]}
  # Wins alone may pass over the one that could be trusted: what wins more
  # often may also miss the constraint more often than is allowed.
  chosen = choosing.choose(candidates, constraint)
  return Rung(
    num_examples=num_examples,
    candidates=(*others, *(c for c in best if c.point.is_reference)),
    wins=won,
    kept=frozenset(kept | ({chosen.key} if chosen else set())),
  )


def _check_reference(measured, constraint, metric) -> None:
  reference = next(iter(measured.values())).reference
  if constraint.quality is not None and reference <= 0:
    raise ValueError(
      f"{metric} of the verifier's texts is {reference:g}: no share of that is "
      'a constraint. Ask for a latency, or choose by a metric that the '
      'verifier has more than 0 of, and of which more is better.'
    )


def check_settings(*, clock: str, replicates: int, keep: float = 0.5) -> None:
  """Refuses what `search` and `confirm` would, before anything is loaded.

  Raises:
    ValueError: naming the value.
  """
  if not isinstance(keep, numbers.Real) or not 0 < keep < 1:
    raise ValueError(f'keep is {keep!r}; it must be between 0 and 1.')
  if clock not in candidates_lib.CLOCKS:
    names = ' or '.join(candidates_lib.CLOCKS)
    raise ValueError(f'clock is {clock!r}; it must be {names}.')
  whole = isinstance(replicates, numbers.Integral)
  if not whole or isinstance(replicates, bool) or replicates < 1:
    raise ValueError(
      f'replicates is {replicates!r}; it must be a whole number, at least 1.'
    )


def _check(generator, points, clock) -> None:
  if clock == 'model' and not hasattr(generator, 'call_times'):
    raise ValueError(
      'The cost model needs the times of single calls, which this generator '
      "does not measure; use clock='wall'."
    )
  verifiers = sum(point.is_reference for point in points)
  settings = ('temperature', 'top_k', 'top_p', 'min_p', 'eta', 'trial', 'seed')
  differing = [
    f'{name} {", ".join(map(str, values))}'
    for name in settings
    if len(values := sorted({getattr(p, name) for p in points}, key=str)) > 1
  ]
  if differing:
    raise ValueError(
      'All candidates must share temperature, truncation and trial; got '
      f'{"; ".join(differing)}.'
    )
  if verifiers != 1 or len(points) < 2:
    raise ValueError(
      'The methods must have the verifier alone, once, and candidates beside '
      f'it; got it {verifiers} times among '
      f'{", ".join(sorted({p.label for p in points})) or "none"}.'
    )
