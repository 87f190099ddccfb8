"""`speccascade calibrate`: are drafter and verifier right as often as they say?

    speccascade calibrate --gin_file=configs/calibrate.gin

Fits a temperature a model on one split and tells of another what it does to
the expected calibration error. Leaves confidences.gin, which the other commands
take. Started again with the same run directory, it goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import pathlib
import sys
from typing import Any

from speccascade_jax.evaluation import calibrating
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import tuning
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import inputs
from speccascade_jax.reports import calibrations


def calibrate(
  *,
  run_dir: str,
  task: str,
  pair: inputs.PairName,
  max_length: int,
  num_examples: int | None,
  num_held_out: int | None,
  split: str | None = None,
  held_out_split: str | None = None,
  input_length: int | None = None,
  stop: str | Sequence[str] | None = None,
  data_dir: str | None = None,
  batch_size: int = 16,
  bins: int = 15,
  seed: int = 0,
  replicates: int = 1000,
) -> dict[str, Any]:
  """Fits and tells; see `gin/runs/calibrate.gin` for the arguments."""
  least = {'max_length': 1, 'batch_size': 1, 'bins': 2, 'replicates': 0}
  for name, value in (
    ('max_length', max_length),
    ('batch_size', batch_size),
    ('bins', bins),
    ('replicates', replicates),
  ):
    if not isinstance(value, int) or value < least[name]:
      raise ValueError(
        f'{name} is {value!r}; it must be a whole number, at least '
        f'{least[name]}.'
      )
  split, held_out_split = chosen_splits(task, split, held_out_split)
  if split == held_out_split:
    raise ValueError(
      f'split and held_out_split are both {split!r}: a temperature is to be '
      'tried on other examples than it was fitted on.'
    )
  stops = inputs.stop_sequences(stop, task)
  # Before the models, which take longer than to find that there is no data.
  examples, drawn = (
    inputs.load_completions(task, of, count, seed, data_dir)
    for of, count in ((split, num_examples), (held_out_split, num_held_out))
  )
  held_out = tuning.apart(drawn, examples)
  if len(held_out) < len(drawn):
    print(
      f'{len(drawn) - len(held_out)} of {len(drawn)} examples of '
      f'{held_out_split} are also in {split}, and are left out.'
    )
  if not held_out:
    raise ValueError(f'{held_out_split} has no example that {split} has not.')
  loaded = inputs.load_pair(pair)
  if loaded.drafter is None:
    raise ValueError(
      f'{inputs.pair_name(pair)} has no drafter: calibrate needs a pair.'
    )
  lengths = [
    input_length or inputs.longest_source(loaded, some)
    for some in (examples, held_out)
  ]
  identity = {
    'task': task,
    'pair': inputs.pair_name(pair),
    'pair_digest': loaded.digest or '',
    'split': split,
    'held_out_split': held_out_split,
  }
  summary = calibrating.calibrate(
    loaded,
    examples,
    held_out,
    run_dir,
    identity=identity | ({'stop': list(stops)} if stops else {}),
    input_lengths=(lengths[0], lengths[1]),
    max_length=max_length,
    ends=not stops,
    batch_size=batch_size,
    bins=bins,
    seed=seed,
    replicates=replicates,
    operative_config=gin_setup.operative_config(),
  )
  path = pathlib.Path(run_dir) / 'confidences.gin'
  found = [summary['models'][m]['temperature'] for m in calibrating.MODELS]
  results.write_atomically(path, _gin(path, identity, found))
  sys.stdout.write(calibrations.text(calibrations.load(run_dir)))
  print(f'\nThe temperatures are in {path}, for --gin_file={path}.')
  print(f'See the reliability diagrams: speccascade report {run_dir}')
  return summary


def chosen_splits(
  task: str, split: str | None, held_out_split: str | None
) -> tuple[str, str]:
  """Both, where one is left to the task.

  What is scored is 'test', or 'validation' where the answers of the test split
  are not public; what is fitted on is 'validation', or else 'train'.

  Raises:
    ValueError: if the task has no two such splits.
  """
  if split is not None and held_out_split is not None:
    return split, held_out_split
  has = inputs.splits(task)
  for held_out in (
    (held_out_split,) if held_out_split else ('test', 'validation')
  ):
    for fitted in (split,) if split else ('validation', 'train'):
      if {held_out, fitted} <= {*has} and held_out != fitted:
        return fitted, held_out
  raise ValueError(
    f'{task} has the splits {", ".join(has)}: say which one to fit on '
    '(calibrate.split) and which one to tell of (calibrate.held_out_split).'
  )


def _gin(path, identity, found) -> str:
  """One macro, for a command line whose file is there already."""
  name, fitted_on = identity['pair'], f'{identity["task"]}/{identity["split"]}'
  lines = [
    "# The drafter's and the verifier's, as `speccascade calibrate` has fitted",
    f'# them on {fitted_on} with {name}:',
    '#',
    f'#   speccascade sweep --gin_file=LEAF.gin --gin_file={path}',
    f'CONFIDENCE_TEMPERATURES = ({found[0]!r}, {found[1]!r})',
  ]
  return '\n'.join(lines) + '\n'


def main(argv: Sequence[str]) -> None:
  """The command; `argv` are the arguments behind its name."""
  parser = argparse.ArgumentParser(
    'speccascade calibrate',
    description='How often drafter and verifier are right where they say so, '
    'and the temperatures at which they are. Started again with the same run '
    'directory, it goes on where it was stopped.',
  )
  _, flags = gin_setup.parse_args(parser, argv, calibrate)
  gin_setup.run(calibrate, flags)
