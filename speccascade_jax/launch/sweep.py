"""`speccascade sweep`: quality and latency of methods over their settings.

    speccascade sweep --gin_file=configs/quickstart.gin

Started again with the same run directory, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from speccascade_jax.evaluation import methods as methods_lib
from speccascade_jax.evaluation import sweep as sweep_lib
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import inputs


def sweep(
  *,
  run_dir: str,
  task: str,
  pair: inputs.PairName,
  methods: Sequence[methods_lib.Method],
  gammas: Sequence[int],
  temperatures: Sequence[float],
  num_examples: int | None,
  max_length: int,
  primary_metric: str,
  split: str = 'test',
  input_length: int | None = None,
  stop: str | Sequence[str] | None = None,
  data_dir: str | None = None,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  eta: float | None = None,
  confidence_temperatures: Sequence[float] | None = None,
  trials: int = 1,
  seed: int = 0,
  replicates: int = 1000,
  recompute_metrics: bool = False,
  run_programs: inputs.Permission = False,
) -> None:
  """Runs the grid; see `gin/runs/sweep.gin` for what the arguments mean."""
  points = methods_lib.expand(
    methods,
    gammas=gammas,
    temperatures=temperatures,
    top_k=top_k,
    top_p=top_p,
    min_p=min_p,
    eta=eta,
    confidence_temperatures=confidence_temperatures,
    trials=trials,
    seed=seed,
  )
  stops = inputs.stop_sequences(stop, task)
  # Before the models, which take longer than to find that there is no data.
  examples, metric_fns = inputs.load_task(
    task, split, num_examples, seed, data_dir
  )
  metric_fns = inputs.permitted(metric_fns, run_programs, 'sweep')
  loaded = inputs.load_pair(pair)
  if input_length is None:
    input_length = inputs.longest_source(loaded, examples)
  sweep_lib.sweep(
    loaded,
    examples,
    points,
    metric_fns,
    run_dir,
    task=task,
    pair=inputs.pair_name(pair),
    pair_digest=loaded.digest or '',
    split=split,
    primary_metric=primary_metric,
    input_length=input_length,
    max_length=max_length,
    stop=stops,
    replicates=replicates,
    recompute_metrics=recompute_metrics,
    operative_config=gin_setup.operative_config(),
    models=[*inputs.named_models(pair).values()],
    gin_files=gin_setup.files(),
  )
  print(f'Results are in {run_dir}. See them: speccascade report {run_dir}')


def main(argv: Sequence[str]) -> None:
  """The command; `argv` are the arguments behind its name."""
  parser = argparse.ArgumentParser(
    'speccascade sweep',
    description='Time and score methods on a task. Started again with the same '
    'run directory, it goes on where it was stopped.',
  )
  _, flags = gin_setup.parse_args(parser, argv, sweep)
  gin_setup.run(sweep, flags)
