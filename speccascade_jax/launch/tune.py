"""`speccascade tune`: the best method and settings under a constraint.

    speccascade tune --gin_file=configs/tune.gin

Searches on one split, tells what the choice comes to on another, and leaves
gin files that `generate` and `evaluate` take as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import pathlib
from typing import Any

from speccascade_jax.evaluation import methods as methods_lib
from speccascade_jax.evaluation import operating_point
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import tuning
from speccascade_jax.launch import chosen as chosen_lib
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import inputs
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
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  eta: float | None = None,
  seed: int = 0,
  replicates: int = 1000,
) -> operating_point.Candidate:
  """Searches, and confirms; see `gin/runs/tune.gin` for the arguments."""
  constraint = operating_point.Constraint(quality, latency, confidence)
  points = methods_lib.expand(
    methods,
    gammas=gammas,
    temperatures=(temperature,),
    top_k=top_k,
    top_p=top_p,
    min_p=min_p,
    eta=eta,
    seed=seed,
  )
  if split == held_out_split:
    raise ValueError(
      f'split and held_out_split are both {split!r}: what was chosen on some '
      'examples has to be confirmed on others.'
    )
  loaded = inputs.load_pair(pair)
  examples, metric_fns = inputs.load_task(task, split, max(rungs), seed)
  held_out, _ = inputs.load_task(task, held_out_split, num_held_out, seed)
  shared: dict[str, Any] = {
    'task': task,
    'pair': inputs.pair_name(pair),
    'pair_digest': loaded.digest or '',
    'primary_metric': primary_metric,
    'max_length': max_length,
    'operative_config': gin_setup.operative_config(),
  }
  folder = pathlib.Path(run_dir)
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
    clock=clock,
    replicates=replicates,
    on_rung=lambda rung: print(
      tuning_texts.rung(rung, constraint, primary_metric)
    ),
    split=split,
    input_length=input_length or inputs.longest_source(loaded, examples),
    **shared,
  )
  picked = operating_point.choose(found[-1].candidates, constraint)
  if picked is None:
    raise ValueError(tuning_texts.nothing(found[-1], constraint))
  verifier = next(point for point in points if point.is_reference)
  confirmed = tuning.confirm(
    loaded,
    held_out,
    list(dict.fromkeys([verifier, picked.point])),
    metric_fns,
    folder / 'held_out',
    clock=clock,
    replicates=replicates,
    split=held_out_split,
    input_length=input_length or inputs.longest_source(loaded, held_out),
    **shared,
  )
  held = f'{len(held_out)} examples of {task}/{held_out_split}'
  told = [
    f'{tuning_texts.name(confirmed.point)}: the choice of '
    '`speccascade tune` for',
    f'{constraint}, on {rungs[-1]} examples of {task}/{split}.',
    f'On {held}, which had no part in it:',
    *(
      f'  {line}'
      for line in tuning_texts.confirmed(confirmed, constraint, clock)
    ),
  ]
  written = _write(
    folder, confirmed.point, pair, task, max_length, told, found, constraint
  )
  print()
  print(written[0].read_text(), end='')
  print('\nReady to use:')
  print(f'  speccascade generate --gin_file={written[0]} TEXT')
  print(f'  speccascade evaluate --gin_file={written[1]}')
  return confirmed


def _write(folder, point, pair, task, max_length, told, found, constraint):
  names = ('generate.gin', 'evaluate.gin')
  generate, evaluate = (folder / name for name in names)

  def header(command):
    return [*told, '', command, '']

  texts = {
    generate: chosen_lib.for_generate(
      point,
      pair,
      max_length=max_length,
      header=header(f'  speccascade generate --gin_file={generate} TEXT'),
    ),
    evaluate: chosen_lib.for_evaluate(
      point,
      pair,
      run_dir=str(folder / 'evaluate'),
      task=task,
      max_length=max_length,
      header=header(f'  speccascade evaluate --gin_file={evaluate}'),
    ),
  }
  content = {
    'constraint': str(constraint),
    'confidence': constraint.confidence,
    'chosen': point.config(),
    'rungs': [
      {
        'num_examples': rung.num_examples,
        'kept': rung.kept,
        'candidates': [
          {
            'key': c.key,
            'name': tuning_texts.name(c.point),
            'quality': c.quality,
            'verifier_quality': c.reference,
            'relative_latency': c.latency,
            'meets': c.trust(constraint),
            'wins': rung.wins[c.key],
          }
          for c in rung.candidates
        ],
      }
      for rung in found
    ],
    'held_out': told[3:],
  }
  text = json.dumps(content, indent=2) + '\n'
  results.write_atomically(folder / 'tune.json', text)
  for path, text in texts.items():
    results.write_atomically(path, text)
  return [generate, evaluate]


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
