"""`speccascade tune`: the best method and settings under a constraint.

    speccascade tune --gin_file=configs/tune.gin

Searches on one split, tells what the choice comes to on another, and leaves
gin files that `generate` and `evaluate` take as they are::

  RUN_DIR/search          every line of the search, of all constraints
  RUN_DIR/held_out        likewise of what was chosen
  RUN_DIR/quality_0.99/   generate.gin, evaluate.gin and tune.json of one
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import pathlib
from typing import Any

from speccascade_jax.evaluation import candidates as candidates_lib
from speccascade_jax.evaluation import choosing
from speccascade_jax.evaluation import environment
from speccascade_jax.evaluation import methods as methods_lib
from speccascade_jax.evaluation import sweep_directory
from speccascade_jax.evaluation import tuning
from speccascade_jax.launch import chosen
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import inputs
from speccascade_jax.launch import tuning_files
from speccascade_jax.launch import tuning_texts


def tune(
  *,
  run_dir: str,
  task: str,
  pair: inputs.PairName,
  methods: Sequence[methods_lib.Method],
  gammas: Sequence[int],
  temperature: float,
  rungs: Sequence[int],
  max_length: int,
  primary_metric: str,
  quality: float | None = None,
  latency: float | None = None,
  confidence: float = 0.8,
  keep: float = 1 / 3,
  clock: str = 'wall',
  split: str = 'validation',
  held_out_split: str = 'test',
  num_held_out: int | None = 500,
  search_dir: str | None = None,
  input_length: int | None = None,
  stop: str | Sequence[str] | None = None,
  data_dir: str | None = None,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  eta: float | None = None,
  confidence_temperatures: Sequence[float] | None = None,
  seed: int = 0,
  replicates: int = 1000,
  run_programs: inputs.Permission = False,
) -> candidates_lib.Candidate:
  """Searches, and confirms; see `gin/runs/tune.gin` for the arguments."""
  constraint = choosing.Constraint(quality, latency, confidence)
  rungs = tuning.checked_rungs(rungs)
  tuning.check_settings(keep=keep, clock=clock, replicates=replicates)
  if num_held_out is not None and (
    not isinstance(num_held_out, int) or num_held_out < 2
  ):
    raise ValueError(
      f'num_held_out is {num_held_out!r}; it must be a whole number, at least '
      '2, or None for all of the split.'
    )
  points = methods_lib.expand(
    methods,
    gammas=gammas,
    temperatures=(temperature,),
    top_k=top_k,
    top_p=top_p,
    min_p=min_p,
    eta=eta,
    confidence_temperatures=confidence_temperatures,
    seed=seed,
  )
  chosen.check_can_be_said(points)
  if split == held_out_split:
    raise ValueError(
      f'split and held_out_split are both {split!r}: what was chosen on some '
      'examples has to be confirmed on others.'
    )
  stops = inputs.stop_sequences(stop, task)
  # Before the models, which take longer than to find that there is no data.
  examples, metric_fns = inputs.load_task(
    task, split, rungs[-1], seed, data_dir
  )
  metric_fns = inputs.permitted(metric_fns, run_programs, 'tune')
  drawn, _ = inputs.load_task(
    task, held_out_split, num_held_out, seed, data_dir
  )
  held_out = tuning.apart(drawn, examples)
  if len(held_out) < len(drawn):
    print(
      f'{len(drawn) - len(held_out)} of {len(drawn)} examples of '
      f'{held_out_split} are also in {split}, and are left out.'
    )
  if len(held_out) < 2:
    raise ValueError(
      f'{held_out_split} has {len(held_out)} examples that are not in {split}: '
      'a choice has to be confirmed on others than it was made on.'
    )
  loaded = inputs.load_pair(pair)
  common: dict[str, Any] = {
    'task': task,
    'pair': inputs.pair_name(pair),
    'pair_digest': loaded.digest or '',
    'primary_metric': primary_metric,
    'max_length': max_length,
    'stop': stops,
  }
  of_search = common | {
    'split': split,
    'input_length': input_length or inputs.longest_source(loaded, examples),
  }
  of_held_out = common | {
    'split': held_out_split,
    'input_length': input_length or inputs.longest_source(loaded, held_out),
  }
  folder = pathlib.Path(run_dir)
  # A folder that holds something else is better told of now than when the
  # search is over.
  sweep_directory.check(
    held_out, points, metric_fns, folder / 'held_out', **of_held_out
  )
  shared: dict[str, Any] = {
    'clock': clock,
    'replicates': replicates,
    'operative_config': gin_setup.operative_config(),
  }
  files = tuning_files.Files(folder / constraint.name)

  def told(rung: tuning.Rung) -> None:
    # Only a search that runs may take an earlier answer away: one that is
    # refused, because its directory is in use or holds another, may not.
    if files.remove():
      print(f'The choice of an earlier start in {files.folder} is replaced.')
    print(tuning_texts.rung(rung, constraint, primary_metric))

  print(f'Looking for {constraint}, {len(points) - 1} candidates.')
  found = tuning.search(
    loaded,
    examples,
    points,
    metric_fns,
    search_dir or folder / 'search',
    constraint=constraint,
    rungs=rungs,
    keep=keep,
    on_rung=told,
    **shared,
    **of_search,
  )
  picked = choosing.choose(found[-1].candidates, constraint)
  if picked is None:
    raise ValueError(tuning_texts.nothing(found[-1], constraint))
  verifier = next(point for point in points if point.is_reference)
  confirmed = tuning.confirm(
    loaded,
    held_out,
    list(dict.fromkeys([verifier, picked.point])),
    metric_fns,
    folder / 'held_out',
    **shared,
    **of_held_out,
  )
  files.write(
    tuning_files.Found(
      constraint=constraint,
      clock=clock,
      rungs=found,
      picked=picked,
      confirmed=confirmed,
      searched=f'{rungs[-1]} examples of {task}/{split}',
      held_out=f'{len(held_out)} examples of {task}/{held_out_split}',
      num_held_out=len(held_out),
      circumstances=common
      | {'temperature': temperature, 'seed': seed, 'replicates': replicates}
      | {'device': environment.device()}
      | environment.circumstances(),
    ),
    chosen.Setting(
      point=confirmed.point,
      pair=pair,
      task=task,
      split=held_out_split,
      max_length=max_length,
      stop=stops,
      input_length=of_held_out['input_length'],
      num_examples=num_held_out,
      seed=seed,
      run_programs=run_programs,
      prefix=chosen.common_prefix([e.source for e in [*examples, *held_out]]),
      imports=gin_setup.imports(),
      data_dir=data_dir,
    ),
  )
  print()
  print(files.generate.read_text(encoding='utf-8'), end='')
  met = constraint.margin(confirmed) >= 0
  print('\nReady to use:' if met else '\nTo use it all the same:')
  print(f'  speccascade generate --gin_file={files.generate} TEXT')
  print(f'  speccascade evaluate --gin_file={files.evaluate}')
  return confirmed


def main(argv: Sequence[str]) -> None:
  """The command; `argv` are the arguments behind its name."""
  parser = argparse.ArgumentParser(
    'speccascade tune',
    description='Find the method and settings that are fastest at a share of '
    "the verifier's quality, or best within a share of its latency. Started "
    'again with the same run directory, it uses what is there.',
  )
  _, flags = gin_setup.parse_args(parser, argv, tune)
  gin_setup.run(tune, flags)
