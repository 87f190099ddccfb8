"""When do the optimal sequential and the optimal speculative rule differ?

    python experiments/when_rules_differ/measure.py

An open question of the paper. With the gap g = E[loss of q] - E[loss of p] at
a prefix, a sequential cascade should defer where g > alpha, a speculative one
where g > alpha D_TV(p, q) (Lemma 4). This counts, over alpha,

  decision   how often one of them defers and the other does not
  law        how much that matters: the share of emitted tokens that would
             differ, |r - r'| D_TV(p, q), since deferring to an identical
             distribution changes nothing
  regret     what the sequential decision adds to the speculative objective

on random tabular problems, with the true losses and with the plug-in estimate
max p - max q, and on the shipped pair behind the references of the test split,
with the plug-in, at T = 1 and T = 0. Writes results.csv and results.png here.
"""

from __future__ import annotations

import argparse
import csv
import pathlib

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt
import numpy as np

import speccascade_jax as sc
from speccascade_jax import distributions
from speccascade_jax.data import batches
from speccascade_jax.training import forward

HERE = pathlib.Path(__file__).parent
ALPHAS = np.round(np.linspace(-0.2, 1.0, 25), 3) + 0.0  # No -0.0.
FIELDS = ('problem', 'alpha', 'decision', 'law', 'regret')


def compare(gap, distance, weights=None):
  """Rows of figures over ALPHAS for N prefixes.

  Args:
    gap: `[N]` expected loss of the drafter less that of the verifier.
    distance: `[N]` D_TV(p, q) of the sampled distributions.
    weights: `[N]`; equal if None.
  """
  weights = np.ones_like(gap) if weights is None else weights
  weights = weights / weights.sum()
  for alpha in ALPHAS:
    sequential = gap > alpha
    speculative = gap > alpha * distance
    differ = sequential != speculative
    # Of the objective (1 - r) loss(q) + r (loss(p) + alpha D_TV); between
    # equal distributions there is nothing to choose, whatever the gap says.
    margin = np.where(distance > 0, np.abs(gap - alpha * distance), 0.0)
    yield {
      'alpha': alpha,
      'decision': float((weights * differ).sum()),
      'law': float((weights * differ * distance).sum()),
      'regret': float((weights * differ * margin).sum()),
    }


def tabular(seed: int, prefixes: int = 20_000, vocab_size: int = 8):
  """(name, gap, distance) of random problems with a known truth.

  The verifier is the truth with some noise in its logits, the drafter the
  truth with more.
  """
  rng = np.random.default_rng(seed)
  truth = 2.0 * rng.standard_normal((prefixes, vocab_size))

  def noisy(scale):
    noise = scale * rng.standard_normal(truth.shape)
    return np.asarray(distributions.softmax(jnp.asarray(truth + noise)))

  real, p, q = noisy(0.0), noisy(0.7), noisy(1.6)
  distance = np.maximum(0.0, p - q).sum(-1)

  def chance(model):
    guess = model.argmax(-1)[:, None]
    return np.take_along_axis(real, guess, axis=-1)[:, 0]

  yield 'tabular, true losses', chance(p) - chance(q), distance
  yield 'tabular, plug-in', p.max(-1) - q.max(-1), distance


def shipped(task: str, count: int):
  """(name, gap, distance, weights) behind the references of a test split."""
  pair = sc.load_pair('debian')
  models = [
    (forward.teacher_forced(model.config), model.params)
    for model in (pair.drafter, pair.verifier)
  ]

  @jax.jit
  def measure(batch):
    logits = [run(params, batch, None) for run, params in models]
    q, p = (distributions.softmax(x) for x in logits)
    same = jnp.equal(*(distributions.argmax(x) for x in logits))
    return p.max(-1) - q.max(-1), distributions.total_variation(p, q), ~same

  found = []
  lengths = {'inputs': 256, 'targets': 80}
  rows = 0
  for batch in batches.eval_batches(task, 'test', 16, lengths):
    gap, distance, differ = measure(
      {key: jnp.asarray(value) for key, value in batch.items()}
    )
    real = np.asarray(batch['loss_weights']) > 0
    found.append([np.asarray(x)[real] for x in (gap, distance, differ)])
    rows += len(real)
    if rows >= count:
      break
  gap, distance, differ = (np.concatenate(x) for x in zip(*found))
  gap = gap.astype(np.float64)
  yield f'{task}, T = 1', gap, distance.astype(np.float64)
  yield f'{task}, T = 0', gap, differ.astype(np.float64)


def draw(rows, path: pathlib.Path) -> None:
  """One panel a quantity, one curve a problem."""
  names = list(dict.fromkeys(row['problem'] for row in rows))
  titles = {
    'decision': 'decisions that differ',
    'law': 'emitted tokens that would differ',
    'regret': 'added to the speculative objective',
  }
  styles = ('-', '--', '-', '--', '-', '--')
  colours = ('#66717e', '#66717e', '#0072b2', '#0072b2', '#d55e00', '#d55e00')
  figure, panels = plt.subplots(
    1, 3, figsize=(12, 4.5), layout='constrained', sharex=True
  )
  for panel, (field, title) in zip(panels, titles.items()):
    for name, line, colour in zip(names, styles, colours):
      points = [(r['alpha'], r[field]) for r in rows if r['problem'] == name]
      panel.plot(*zip(*points), line, color=colour, label=name)
    panel.set_title(title)
    panel.set_xlabel('alpha')
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.25)
  panels[0].set_ylabel('share of positions')
  lines, labels = panels[0].get_legend_handles_labels()
  figure.legend(lines, labels, loc='outside lower center', ncols=3)
  figure.savefig(path, dpi=150)


def main() -> None:
  """Measures, writes the table, draws it."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--examples', type=int, default=400)
  parser.add_argument('--seed', type=int, default=0)
  arguments = parser.parse_args()
  problems = list(tabular(arguments.seed))
  for task in ('debian_en_de', 'debian_synopsis'):
    problems += shipped(task, arguments.examples)
  rows = [
    {'problem': name, **row}
    for name, gap, distance in problems
    for row in compare(gap, distance)
  ]
  with open(HERE / 'results.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, FIELDS)
    writer.writeheader()
    writer.writerows(rows)
  draw(rows, HERE / 'results.png')
  print(f'{HERE}/results.csv, {HERE}/results.png')


if __name__ == '__main__':
  main()
