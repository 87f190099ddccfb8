"""`speccascade evaluate`: quality of one model or method, in batches.

speccascade evaluate --gin_file=configs/evaluate.gin
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import json
import pathlib
from typing import Any

from speccascade_jax.evaluation import evaluator
from speccascade_jax.evaluation import methods as methods_lib
from speccascade_jax.evaluation import results
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import inputs

RESULTS_FILE = 'evaluation.json'


def evaluate(
  *,
  run_dir: str,
  task: str,
  pair: inputs.PairName,
  method: methods_lib.Method,
  temperature: float,
  max_length: int,
  gamma: int = 4,
  split: str = 'test',
  num_examples: int | None = None,
  input_length: int | None = None,
  stop: str | Sequence[str] | None = None,
  data_dir: str | None = None,
  batch_size: int = 32,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  eta: float | None = None,
  seed: int = 0,
  run_programs: inputs.Permission = False,
) -> dict[str, float]:
  """Scores each alpha of `method` (a model alone has none)."""
  points = methods_lib.expand(
    [method],
    gammas=(gamma,),
    temperatures=(temperature,),
    top_k=top_k,
    top_p=top_p,
    min_p=min_p,
    eta=eta,
    seed=seed,
  )
  if len(points) > 1:
    raise ValueError(
      f'evaluate takes one alpha, got {method.alphas}; several are a sweep.'
    )
  folder = pathlib.Path(run_dir)
  stops = inputs.stop_sequences(stop, task)
  # Before the models, which take longer than to find that there is no data.
  examples, metric_fns = inputs.load_task(
    task, split, num_examples, seed, data_dir
  )
  metric_fns = inputs.permitted(metric_fns, run_programs, 'evaluate')
  loaded = inputs.load_pair(pair)
  input_length = input_length or inputs.longest_source(loaded, examples)
  content: dict[str, Any] = {
    'task': task,
    'split': split,
    'pair': inputs.pair_name(pair),
    'pair_digest': loaded.digest,
    'num_examples': len(examples),
    'max_length': max_length,
    'input_length': input_length,
    'config': points[0].config(),
  }
  if stops:
    content['stop'] = list(stops)
  _check_folder(folder, content)
  found = evaluator.evaluate(
    loaded,
    examples,
    metric_fns,
    batch_size=batch_size,
    progress=True,
    max_length=max_length,
    input_length=input_length,
    stop=stops,
    **points[0].settings(),
  )
  folder.mkdir(parents=True, exist_ok=True)
  rows = [
    dataclasses.asdict(example) | {'prediction': prediction}
    for example, prediction in zip(examples, found.predictions, strict=True)
  ]
  results.write_atomically(folder / 'predictions.jsonl', results.lines(rows))
  content |= {'quality': found.quality, 'signatures': found.signatures}
  text = json.dumps(content, indent=2)
  results.write_atomically(folder / RESULTS_FILE, text + '\n')
  results.write_atomically(
    folder / 'operative_config.gin', gin_setup.operative_config()
  )
  for name, value in found.quality.items():
    print(f'{name} {value:.2f}  {found.signatures.get(name, "")}'.rstrip())
  return found.quality


def _check_folder(folder: pathlib.Path, content: dict[str, Any]) -> None:
  """Refuses to write over what another evaluation has found."""
  path = folder / RESULTS_FILE
  if not path.is_file():
    return
  try:
    stored = json.loads(path.read_text(encoding='utf-8'))
  except ValueError:
    stored = {}
  stored = stored if isinstance(stored, dict) else {}
  asked = json.loads(json.dumps(content))
  differing = [
    f'{name} is {stored.get(name)!r} there and {asked[name]!r} here'
    for name in asked
    if stored.get(name) != asked[name]
  ]
  if differing:
    raise results.ResultsError(
      f'{path} holds another evaluation: {"; ".join(differing)}. Use another '
      'run directory, or remove it.'
    )


def main(argv: Sequence[str]) -> None:
  """The command; `argv` are the arguments behind its name."""
  parser = argparse.ArgumentParser(
    'speccascade evaluate', description='Score a model or method on a task.'
  )
  _, flags = gin_setup.parse_args(parser, argv, evaluate)
  gin_setup.run(evaluate, flags)
