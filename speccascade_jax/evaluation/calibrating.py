"""A calibration on disk: fitted on some texts, told of others, resumable.

::

  RUN_DIR/
    calibration.json       what was calibrated, on what, and where
    operative_config.gin   of the first start
    fit/MODEL.jsonl        one line a text that the temperature is fitted on
    reliability/MODEL-T.jsonl  likewise of the held-out ones, at 1 and at T
    summary.json           temperatures, ECE before and after; written last

Lines are as safe as those of a sweep, see `results`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import calibration
from speccascade_jax.evaluation import environment
from speccascade_jax.evaluation import judging
from speccascade_jax.evaluation import results

MODELS = ('drafter', 'verifier')


def calibrate(
  judge: judging.Judge,
  examples: Sequence[base.Example],
  held_out: Sequence[base.Example],
  run_dir: str | os.PathLike[str],
  *,
  identity: Mapping[str, Any],
  input_lengths: tuple[int, int],
  max_length: int,
  ends: bool,
  batch_size: int,
  bins: int,
  seed: int,
  replicates: int,
  operative_config: str = '',
  progress: bool = True,
) -> dict[str, Any]:
  """Fits a temperature a model, and tells how reliable it is before and after.

  Args:
    judge: see `judging.Judge`.
    examples: that temperatures are fitted on.
    held_out: others, that reliability is told of.
    run_dir: begun or resumed.
    identity: what further must be the same in every start: task, pair, splits.
    input_lengths: that the sources of the two are padded or cut to [tokens].
    max_length: tokens of a reference that are judged at most.
    ends: see `Pair.judge`.
    batch_size: texts at once.
    bins: of confidence.
    seed: of the bootstrap.
    replicates: likewise; 0 leaves intervals out.
    operative_config: gin's, kept beside the results.
    progress: show bars on stderr.

  Returns:
    What summary.json holds: by model 'temperature', 'temperature_interval',
    'fit' (tokens, nats a token), 'before' and 'after', see
    `calibration.reliability`, and 'ece_change' with its paired interval;
    'truncated' is the number of texts that were cut, or their sources.

  Raises:
    ValueError: if an example has no text, or a model no temperature.
    results.ResultsError: if `run_dir` is in use or holds something else.
  """
  whole = dict(identity) | {
    'num_examples': len(examples),
    'num_held_out': len(held_out),
    'examples_digest': _digest([*examples, *held_out]),
    'input_lengths': list(input_lengths),
    'max_length': max_length,
    'ends': ends,
    'bins': bins,
    'seed': seed,
    'replicates': replicates,
  }
  folder = pathlib.Path(run_dir)
  shared: dict[str, Any] = {
    'max_length': max_length,
    'ends': ends,
    'batch_size': batch_size,
    'progress': progress,
  }
  counts = bootstrap.draws(len(examples), replicates, seed)
  held_out_counts = bootstrap.draws(len(held_out), replicates, seed)
  # All, before anything is compiled or written.
  for example in (*examples, *held_out):
    judging.reference(example)
  check(folder, whole)
  folder.mkdir(parents=True, exist_ok=True)
  with _begun(folder, whole, operative_config):
    models = {}
    for model in MODELS:
      judged = judging.judged(
        judge,
        examples,
        _log(folder / f'fit/{model}.jsonl'),
        model=model,
        # 1 is of the grid, for the comparison.
        temperatures=calibration.GRID,
        confidences=False,
        input_length=input_lengths[0],
        **shared,
      )
      fitted = calibration.fit(judged, counts)
      temperature = fitted.temperature
      reliable = judging.judged(
        judge,
        held_out,
        _log(folder / f'reliability/{model}-{temperature:g}.jsonl'),
        model=model,
        temperatures=(1.0, temperature),
        confidences=True,
        input_length=input_lengths[1],
        **shared,
      )
      models[model] = _told(judged, fitted, reliable, held_out_counts, bins)
    summary = {'models': models, 'bins': bins}
    results.write_json(folder / 'summary.json', summary)
  return summary


def check(folder: pathlib.Path, identity: Mapping[str, Any]) -> None:
  """Refuses a directory that holds another calibration; makes nothing.

  Raises:
    results.ResultsError: naming what differs.
  """
  header = folder / 'calibration.json'
  if header.exists():
    stored = results.read_json(header)
    results.check_same(header, {k: stored.get(k) for k in identity}, identity)
  elif (folder / 'sweep.json').exists():
    raise results.ResultsError(
      f'{folder} holds a sweep. Use another run directory.'
    )


@contextlib.contextmanager
def _begun(folder, identity, operative_config):
  """The directory, locked, with its header and configuration."""
  descriptor = results.lock(folder)
  try:
    path = folder / 'calibration.json'
    circumstances = {
      'command': 'calibrate',
      'device': environment.device(),
      **environment.circumstances(),
    }
    header = dict(identity) | circumstances
    if path.exists():
      header = results.read_json(path)
      header['resumed'] = [*header.get('resumed', []), circumstances]
    else:
      config = folder / 'operative_config.gin'
      results.write_atomically(config, operative_config)
    results.write_json(path, header)
    yield
  finally:
    os.close(descriptor)


def _log(path: pathlib.Path) -> results.Log:
  path.parent.mkdir(exist_ok=True)
  return results.Log(path)


def _told(judged, fitted, reliable, counts, bins) -> dict[str, Any]:
  before, ece_before = calibration.reliability(reliable, 0, counts, bins)
  after, ece_after = calibration.reliability(reliable, 1, counts, bins)
  nats = judged.surprisal.sum(axis=0) / judged.tokens.sum()
  grid = judged.temperatures
  return {
    'temperature': fitted.temperature,
    'temperature_interval': fitted.interval,
    'fit': {
      'tokens': int(judged.tokens.sum()),
      'truncated': int(judged.truncated.sum()),
      'surprisal': float(nats[grid.index(1.0)]),
      'least_surprisal_on_grid': float(np.min(nats)),
    },
    'truncated': int(reliable.truncated.sum()),
    'before': before,
    'after': after,
    'ece_change': after['ece'] - before['ece'],
    'ece_change_interval': bootstrap.interval(ece_after - ece_before),
  }


def _digest(examples: Sequence[base.Example]) -> str:
  text = results.lines(map(dataclasses.asdict, examples))
  return hashlib.sha256(text.encode()).hexdigest()[:16]
