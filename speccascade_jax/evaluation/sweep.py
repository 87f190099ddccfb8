"""Methods x alpha x gamma x T over a task's examples: quality and latency.

Points that share temperature, truncation and trial keep *company*: they are
run side by side, see `running`. What keeps company is done at the same time,
and is summarised then: reports need not wait for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib
from typing import Any

import tqdm

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import running
from speccascade_jax.evaluation import summaries
from speccascade_jax.evaluation import sweep_directory


def sweep(
  generator: base.Generator,
  examples: Sequence[base.Example],
  points: Sequence[methods.RunPoint],
  metric_fns: Sequence[base.MetricFn],
  run_dir: str | os.PathLike[str],
  *,
  max_length: int,
  input_length: int,
  stop: Sequence[str] = (),
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
    stop: texts that end an output, see `Pair.generate`.
    replicates: of the bootstrap; 0 gives no intervals. No part of what is
      run: a later start may ask for others.
    recompute_metrics: see `bootstrap.quality`.
    progress: show a bar on stderr.
    **settings: see `sweep_directory.opened`.

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
  if stop:
    lengths['stop'] = tuple(stop)
  with sweep_directory.opened(
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
