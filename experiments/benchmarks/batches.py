"""Eight prompts at once against one at a time: rows are independent.

    python -m experiments.benchmarks.batches random --acceptance=0.8

The verifier alone and speculative decoding, greedy, float32; rows accept and
end each at its own place. Assisted generation of transformers takes one prompt
at a time. With `--acceptance` the models follow a script (see `scripted`), and
the rows different places of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib

from experiments.benchmarks import compared as compared_pairs
from experiments.benchmarks import paired
from experiments.benchmarks import scripted
from speccascade_jax import pair as pairs
from speccascade_jax.evaluation import environment

_ALONE = 2  # Rows that are also answered one by one.


def compare(
  name: str, gamma: int, batch: int, rounds: int, acceptance: float | None
) -> dict:
  """Times one batch against its rows one by one; the result as written."""
  compared = compared_pairs.load(name, batch)
  pair = compared.pair
  if acceptance is not None:
    pair = dataclasses.replace(
      pair,
      drafter=_scripted(pair.drafter, acceptance),
      verifier=_scripted(pair.verifier, None),
    )
  width = max(map(len, compared.inputs))

  def answers(prompts: list[str], **options) -> list[int]:
    out = pair.generate(
      prompts,
      max_length=compared_pairs.MAX_LENGTH,
      input_length=width,
      **options,
    )
    rows = zip(out.tokens, out.lengths, strict=True)
    return [token for row, n in rows for token in row[:n].tolist()]

  def together(**options):
    return lambda _: answers(compared.prompts, **options)

  def apart(**options):
    return lambda _: [
      token
      for text in compared.prompts[:_ALONE]
      for token in answers([text], **options)
    ]

  ways = {
    'verifier alone': {'model': 'verifier'},
    f'gamma {gamma}': {'gamma': gamma},
  }
  sides = {}
  for what, options in ways.items():
    sides[f'{what}, batch 1'] = apart(**options)
    sides[f'{what}, batch {batch}'] = together(**options)
  company = paired.Company()
  timings = paired.measure(sides, num_prompts=1, rounds=rounds)
  ratios, same = {}, {}
  for what in ways:
    one, other = (
      timings[f'{what}, {how}'] for how in ('batch 1', f'batch {batch}')
    )
    ratios[f'throughput of batch {batch} / 1, {what}'] = paired.ratio(
      one, other
    )
    alone, rows = one.answers[0], other.answers[0]
    same[f'same tokens, {what}'] = rows[: len(alone)] == alone
  script = '' if acceptance is None else f', scripted acceptance {acceptance}'
  return {
    'title': f'{name}: {rounds} rounds, float32, greedy{script}',
    'device': environment.device(),
    'versions': environment.versions(),
    'commit': environment.commit(),
    'cores_used_by_others': company.used(),
    'ms_per_token': {name: t.summary() for name, t in timings.items()},
    'ratios': ratios,
    'checks': same,
  }


def _scripted(model: pairs.Model, acceptance: float | None) -> pairs.Model:
  step = scripted.step_model(model.step, acceptance)

  def start(params, inputs, *room):
    # Every row at its own place of the script, not all at the start token.
    return dataclasses.replace(
      model.step.start(params, inputs, *room), token=inputs[:, 0]
    )

  return dataclasses.replace(model, step=dataclasses.replace(step, start=start))


def main() -> None:
  """Compares, prints and writes."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('name', choices=compared_pairs.NAMES)
  parser.add_argument('--gamma', type=int, default=5)
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--acceptance', type=float)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--output', type=pathlib.Path, help='a JSON file')
  args = parser.parse_args()
  result = compare(
    args.name, args.gamma, args.batch, args.rounds, args.acceptance
  )
  paired.write(args.output, result)


if __name__ == '__main__':
  main()
