"""`speccascade bench`: how fast a pair is on this device, and could be.

    speccascade bench --gin_file=configs/bench.gin

Writes bench.json and bench.md to the run directory, and prints the latter.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import pathlib
from typing import Any

from speccascade_jax.benchmarks import benchmark
from speccascade_jax.benchmarks import machine
from speccascade_jax.benchmarks import synthetic
from speccascade_jax.benchmarks import table
from speccascade_jax.evaluation import environment
from speccascade_jax.evaluation import methods as methods_lib
from speccascade_jax.evaluation import results
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import inputs
from speccascade_jax.models import families


def bench(
  *,
  run_dir: str,
  methods: Sequence[methods_lib.Method],
  input_length: int,
  max_length: int,
  pair: inputs.PairName | None = None,
  drafter: families.Config | None = None,
  verifier: families.Config | None = None,
  gamma: int = 5,
  temperature: float = 0.0,
  acceptance: float = 0.8,
  acceptances: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
  batch_sizes: Sequence[int] = (1, 8),
  repeats: int = 5,
  seed: int = 0,
) -> dict[str, Any]:
  """Measures a loaded pair, or random weights of two shapes."""
  for value in (acceptance, *acceptances):
    if not 0 <= value <= 1:
      raise ValueError(f'acceptance is {value}; it must be from 0 to 1.')
  if not batch_sizes or min(batch_sizes) < 1:
    raise ValueError(f'batch_sizes are {batch_sizes}; each must be 1 or more.')
  points = methods_lib.expand(
    methods, gammas=(gamma,), temperatures=(temperature,), seed=seed
  )
  shapes = (drafter, verifier)
  if (pair is None) == (None in shapes) or (pair is not None and any(shapes)):
    raise ValueError(
      'Give a pair, or the shapes of both a drafter and a verifier; got pair '
      f'{pair!r}, drafter {drafter!r}, verifier {verifier!r}.'
    )
  if pair is not None:
    loaded = synthetic.endless(inputs.load_pair(pair))
  else:
    assert drafter is not None and verifier is not None  # Checked above.
    loaded = synthetic.random_pair(drafter, verifier, seed)
  measured = benchmark.Benchmark(
    loaded, gamma, input_length, max_length, repeats, seed
  )
  folder = pathlib.Path(run_dir)
  folder.mkdir(parents=True, exist_ok=True)  # Said now if it cannot be.
  settings = {_name(point): point.settings() for point in points}
  found: dict[str, Any] = {
    'pair': _names(pair, loaded),
    'gamma': gamma,
    'input_length': input_length,
    'max_length': max_length,
    'temperature': temperature,
    'repeats': repeats,
    'device': environment.device(),
    **environment.circumstances(),
    'parts': measured.parts(),
    'methods': [
      row
      for batch in batch_sizes
      for row in measured.methods(settings, batch, acceptance)
    ],
    'acceptances': measured.acceptances(acceptances),
  }
  found['peak_bytes'] = machine.peak_bytes()
  text = table.render(found)
  results.write_atomically(
    folder / 'bench.json', json.dumps(found, indent=2) + '\n'
  )
  results.write_atomically(folder / 'bench.md', text)
  results.write_atomically(
    folder / 'operative_config.gin', gin_setup.operative_config()
  )
  print(text, end='')
  return found


def _name(point: methods_lib.RunPoint) -> str:
  alpha = '' if point.alpha is None else f' {point.alpha:g}'
  return f'{point.label}{alpha}'


def _names(pair: inputs.PairName | None, loaded: Any) -> dict[str, str]:
  """What the two models are called, in the table and in the JSON."""
  if pair is not None:
    return inputs.role_names(pair)
  return {
    'drafter': inputs.random_name(loaded.drafter.config),
    'verifier': inputs.random_name(loaded.verifier.config),
  }


def main(argv: Sequence[str]) -> None:
  """The command; `argv` are the arguments behind its name."""
  parser = argparse.ArgumentParser(
    'speccascade bench', description='Time a pair of models, part by part.'
  )
  _, flags = gin_setup.parse_args(parser, argv, bench)
  gin_setup.run(bench, flags)
