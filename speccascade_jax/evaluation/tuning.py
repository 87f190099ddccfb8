"""Successive halving over examples: all candidates on a few, the best on more.

The examples are put in a random order, the same at every start. On each rung
the candidates that are left are run on the first so many of them; those that
would be chosen in the most bootstrap replicates go on to the next rung, where
only the lines that are new have to be run. Every line stays in a run directory
like any sweep's: a search that was killed goes on, one with another constraint
in the same directory begins with what is there, and so does one in the
directory of a sweep over the same examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
import os
from typing import Any

import numpy as np
import tqdm

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import operating_point
from speccascade_jax.evaluation import running
from speccascade_jax.evaluation import summaries
from speccascade_jax.evaluation import sweep


@dataclasses.dataclass(frozen=True)
class Rung:
  """What a rung of the search found.

  Attributes:
    num_examples: that its candidates were compared on.
    candidates: most promising first.
    wins: share of the replicates in which each would be chosen, by key.
    kept: how many went on.
  """

  num_examples: int
  candidates: tuple[operating_point.Candidate, ...]
  wins: Mapping[str, float]
  kept: int


def search(
  generator: base.Generator,
  examples: Sequence[base.Example],
  points: Sequence[methods.RunPoint],
  metric_fns: Sequence[base.MetricFn],
  run_dir: str | os.PathLike[str],
  *,
  constraint: operating_point.Constraint,
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
    metric_fns: see `base.MetricFn`.
    run_dir: begun or resumed; see `results`.
    constraint: what is asked for.
    rungs: examples that each rung compares on, growing; at most all.
    keep: share of the candidates that goes on to the next rung.
    clock: what counts as latency: 'wall', or 'model', see `cost_model`.
    replicates: of the bootstrap.
    progress: show a bar on stderr.
    on_rung: told of each rung when it is done.
    **settings: see `sweep.opened`.

  Returns:
    The rungs. The verifier itself is in each of them.

  Raises:
    ValueError: for bad settings, before anything is compiled.
    results.ResultsError: if `run_dir` is in use or holds another sweep.
  """
  _check(examples, points, rungs, keep, clock, replicates)
  order = np.random.default_rng(points[0].seed).permutation(len(examples))
  shuffled = [examples[i] for i in order]
  found: list[Rung] = []
  with sweep.opened(
    generator, examples, points, metric_fns, run_dir, **settings
  ) as (directory, by_key):
    left = dict(by_key)
    lengths = {k: settings[k] for k in ('input_length', 'max_length')}
    bar = tqdm.tqdm(unit='run', disable=not progress, smoothing=0.05)
    with bar:
      runner = running.Runner(generator, directory, lengths, bar)
      for number, count in enumerate(rungs, 1):
        seen = shuffled[:count]
        bar.set_description_str(f'rung {number} of {len(rungs)}')
        missing = sum(
          e.example not in directory.runs[key].log.rows
          for key in left
          for e in seen
        )
        bar.reset(total=missing)
        runner.run(left, seen)
        bar.set_postfix_str('scoring')
        candidates = operating_point.measure(
          directory,
          left,
          seen,
          metric_fns,
          settings['primary_metric'],
          bootstrap.draws(count, replicates, points[0].seed),
          max_length=settings['max_length'],
          clock=clock,
        )
        last = number == len(rungs)
        rung = _rung(candidates, count, constraint, 1.0 if last else keep)
        found.append(rung)
        on_rung(rung)
        on = {c.key for c in rung.candidates[: rung.kept]}
        left = {
          key: point
          for key, point in left.items()
          if point.is_reference or key in on
        }
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
) -> operating_point.Candidate:
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
    **settings: see `sweep.opened`.

  Returns:
    The chosen one, measured on all examples.
  """
  counts = bootstrap.draws(len(examples), replicates, points[0].seed)
  lengths = {k: settings[k] for k in ('input_length', 'max_length')}
  with sweep.opened(
    generator, examples, points, metric_fns, run_dir, **settings
  ) as (directory, by_key):
    missing = sum(
      e.example not in directory.runs[key].log.rows
      for key in by_key
      for e in examples
    )
    with tqdm.tqdm(
      total=missing, desc='held out', unit='run', disable=not progress
    ) as bar:
      running.Runner(generator, directory, lengths, bar).run(by_key, examples)
    longest = settings['max_length']
    summaries.write(
      by_key,
      directory,
      examples,
      summaries.Scores(metric_fns, counts, recompute=True, max_length=longest),
    )
    candidates = operating_point.measure(
      directory,
      by_key,
      examples,
      metric_fns,
      settings['primary_metric'],
      counts,
      max_length=longest,
      clock=clock,
    )
  # The verifier is what stands where nothing else was chosen.
  return min(candidates.values(), key=lambda c: c.point.is_reference)


def _rung(
  candidates: Mapping[str, operating_point.Candidate],
  num_examples: int,
  constraint: operating_point.Constraint,
  keep: float,
) -> Rung:
  best = operating_point.ranked([*candidates.values()], constraint)
  # The verifier goes on in any case and takes nobody's place.
  best.sort(key=lambda c: c.point.is_reference)
  return Rung(
    num_examples=num_examples,
    candidates=tuple(best),
    wins=operating_point.wins(best, constraint),
    kept=math.ceil(keep * (len(best) - 1)),
  )


def _check(examples, points, rungs, keep, clock, replicates) -> None:
  rungs = list(rungs)
  if not rungs or rungs != sorted(set(rungs)) or rungs[0] < 2:
    raise ValueError(
      f'rungs are {tuple(rungs)}; they must be numbers of examples that grow, '
      'from 2 on.'
    )
  if rungs[-1] > len(examples):
    raise ValueError(
      f'The last of the rungs {tuple(rungs)} needs {rungs[-1]} examples; '
      f'there are {len(examples)}.'
    )
  if not 0 < keep < 1:
    raise ValueError(f'keep is {keep!r}; it must be between 0 and 1.')
  if clock not in operating_point.CLOCKS:
    raise ValueError(
      f'clock is {clock!r}; it must be {" or ".join(operating_point.CLOCKS)}.'
    )
  if replicates < 1:
    raise ValueError(f'replicates is {replicates}; it must be at least 1.')
  if sum(point.is_reference for point in points) != 1 or len(points) < 2:
    raise ValueError(
      'The methods must have the verifier alone, once, and candidates beside '
      f'it; got {", ".join(sorted({p.label for p in points})) or "none"}.'
    )
  companies = {point.company() for point in points}
  if len(companies) > 1:
    raise ValueError(
      'All candidates must share temperature, truncation and trial; got '
      f'{len(companies)} combinations.'
    )
