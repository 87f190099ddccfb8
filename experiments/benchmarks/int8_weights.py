"""What int8 weights cost and save: calls, memory, quality and acceptance.

  python experiments/benchmarks/int8_weights.py speed
  python experiments/benchmarks/int8_weights.py quality

`speed` times calls of the shipped verifier, and of a T5 v1.1 base with random
weights, with float32 and int8 weights in turns. `quality` translates validation
examples with the shipped pair. Both print the rows of a table.
"""

from __future__ import annotations

import argparse

import jax
import numpy as np

import speccascade_jax as sc
from speccascade_jax import footprint
from speccascade_jax.decoding import call_times
from speccascade_jax.launch import inputs
from speccascade_jax.launch import model_names
from speccascade_jax.models import families
from speccascade_jax.models import int8
from speccascade_jax.models import products

_CALLS, _LENGTHS = 64, {'input_length': 64, 'max_length': 128}


def speed(repeats: int) -> None:
  """Rows of milliseconds, and of the megabytes that the weights take."""
  config = model_names.config('t5_1_1_base')
  base = families.init(config, jax.random.key(0))
  shipped = {
    weights or 'float32': sc.load_pair(
      'debian', dtype='float32', verifier_weights=weights
    ).verifier
    for weights in (None, 'int8')
  }
  of_shipped = {kind: model.params for kind, model in shipped.items()}
  # As `load_pair` has them, which empties what it lays out.
  of_base = {'int8': int8.quantised(base), 'float32': products.lay_out(base)}
  models = {
    'shipped verifier': (shipped['int8'].step, of_shipped),
    'T5 v1.1 base': (families.step_model(config), of_base),
  }
  widths = (1, 6)
  for name, (step, kinds) in models.items():
    programs = {
      f'{kind} {call}': program
      for kind, kept in kinds.items()
      for call, program in call_times.programs(
        step, kept, widths, calls=_CALLS, **_LENGTHS
      ).items()
      if call != 'start'
    }
    ms = call_times.quickest_ms(programs, calls=_CALLS, repeats=repeats)
    for kind, kept in kinds.items():
      row = [f'{ms[f"{kind} {width}"]:.3g}' for width in widths]
      row.append(f'{footprint.size_of(kept) / 1e6:.1f}')
      print('|', ' | '.join([name, kind, *row]), '|', flush=True)


def quality(num_examples: int) -> None:
  """Rows of BLEU, and of the tokens that a verifier call yields."""
  examples, metric_fns = inputs.load_task(
    'debian_en_de', 'validation', num_examples, seed=0
  )
  sources = [example.source for example in examples]
  targets = [example.target for example in examples]
  batch = 20

  def run(pair, **settings):
    texts, efficiency, rates = [], [], []
    for first in range(0, len(sources), batch):
      part = sources[first : first + batch]
      out = pair.generate(
        part + sources[: batch - len(part)], **_LENGTHS, **settings
      )
      texts += out.texts[: len(part)]
      efficiency += [*out.stats['block_efficiency'][: len(part)]]
      rates += [*out.stats['acceptance_rate'][: len(part)]]
    scores = [fn(targets, texts) for fn in metric_fns]
    bleu = next(s['bleu'] for s in scores if 'bleu' in s)
    return texts, float(bleu), np.mean(efficiency), np.mean(rates)

  for drafter in (None, 'int8'):
    for verifier in (None, 'int8'):
      pair = sc.load_pair(
        'debian',
        dtype='float32',
        drafter_weights=drafter,
        verifier_weights=verifier,
      )
      alone, bleu, *_ = run(pair, model='verifier')
      if drafter is None and verifier is None:
        unquantised = alone
      same = sum(a == b for a, b in zip(alone, unquantised)) / len(alone)
      texts, _, efficiency, rate = run(pair, gamma=5)
      exact = sum(a == b for a, b in zip(texts, alone)) / len(alone)
      row = [drafter or 'float32', verifier or 'float32', f'{bleu:.2f}']
      row += [f'{same:.0%}', f'{efficiency:.3f}', f'{rate:.3f}', f'{exact:.0%}']
      print('|', ' | '.join(row), '|', flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('what', choices=('speed', 'quality'))
  parser.add_argument('--num_examples', type=int, default=100)
  parser.add_argument('--repeats', type=int, default=9)
  args = parser.parse_args()
  if args.what == 'speed':
    speed(args.repeats)
  else:
    quality(args.num_examples)


if __name__ == '__main__':
  main()
