"""How miscalibrated confidences move each plug-in rule.

    python experiments/calibration/miscalibrate.py

An open question of the paper. One model's confidences are made too high
(temperature 0.5) or too low (2) while both laws that are sampled stay as they
are, and every rule that reads them decides behind the references of 200 test
examples. Nothing is sampled: the figures are expectations at a position,

  accuracy   pi(the reference's token)
  deferral   what the rule hands to the verifier
  rejection  sum max(0, q - pi), the drafted tokens that are replaced

at T = 0 and T = 1. Writes miscalibrated.csv and miscalibrated_t*.png here.
"""

from __future__ import annotations

import argparse
import csv
import functools
import pathlib

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt
import numpy as np

import speccascade_jax as sc
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax.data import batches
from speccascade_jax.training import forward

HERE = pathlib.Path(__file__).parent


def _both_ways(least, most, count):
  """Geometric steps to either side of 0, where the decisions are dense."""
  steps = np.geomspace(least, most, count)
  return np.round(np.concatenate([-steps[::-1], [0.0], steps]), 5)


AROUND = _both_ways(0.004, 1.0, 13)
NATS = _both_ways(0.03, 8.0, 13)
# Both ends of [0, 1], and what is between.
SMALL = np.geomspace(0.0003, 0.06, 8)
UNIT = np.concatenate(
  [[0.0], SMALL, np.linspace(0.1, 0.9, 9), 1.0 - SMALL[::-1], [1.0]]
).round(5)
ALPHAS = {
  deferral.chow: UNIT,
  deferral.chow_log: NATS[NATS >= 0],
  deferral.diff: AROUND,
  deferral.diff_log: NATS,
  deferral.opt: 4.0 * AROUND,
  deferral.opt_log: 2.0 * NATS,
  deferral.token_v1: AROUND,
  deferral.token_v2: AROUND[AROUND >= 0],
  deferral.token_v3: UNIT,
}
# The drafter's and the verifier's.
CONFIDENCES = {
  'as they are': (1.0, 1.0),
  'drafter too sure': (0.5, 1.0),
  'drafter too unsure': (2.0, 1.0),
  'verifier too sure': (1.0, 0.5),
  'verifier too unsure': (1.0, 2.0),
}
FIELDS = (
  *('temperature', 'rule', 'confidences', 'alpha'),
  *('accuracy', 'deferral', 'rejection'),
)
CHUNK = 512  # Positions at once.


def positions(task: str, count: int):
  """Logits `[N, V]` of both models, and the references' tokens `[N]`."""
  pair = sc.load_pair('debian')
  models = [
    (jax.jit(forward.teacher_forced(model.config)), model.params)
    for model in (pair.drafter, pair.verifier)
  ]
  found, rows = [], 0
  lengths = {'inputs': 64, 'targets': 80}
  for batch in batches.eval_batches(task, 'test', 16, lengths):
    batch = {key: jnp.asarray(value) for key, value in batch.items()}
    real = np.asarray(batch['loss_weights']) > 0
    logits = [np.asarray(run(params, batch, None)) for run, params in models]
    targets = np.asarray(batch['decoder_targets'])
    found.append([x[real] for x in (*logits, targets)])
    rows += len(real)
    if rows >= count:
      break
  return [np.concatenate(parts) for parts in zip(*found)]


@functools.partial(jax.jit, static_argnames=('rule', 'greedy'))
def measure(
  q_logits, p_logits, targets, real, temperatures, alphas, *, rule, greedy
):
  """Sums `[A, 3]` of (accuracy, deferral, rejection) over real positions."""
  scaling = distributions.Scaling(greedy=greedy)
  q, p = (distributions.scale(x, scaling, 1.0) for x in (q_logits, p_logits))
  q_conf, p_conf = (
    distributions.confidences(x, t)
    for x, t in zip((q_logits, p_logits), temperatures)
  )

  def at(alpha):
    target = deferral.apply(rule, q, p, q_conf, p_conf, alpha)
    right = jnp.take_along_axis(target.pi, targets[:, None], axis=-1)[:, 0]
    rejected = distributions.total_variation(q, target.pi)
    each = jnp.stack([right, target.deferral, rejected], axis=-1)
    return jnp.where(real[:, None], each, 0.0).sum(axis=0)

  return jax.lax.map(at, alphas)


def curves(q_logits, p_logits, targets):
  """A row of FIELDS a point."""
  count = len(targets)
  padded = -(-count // CHUNK) * CHUNK

  def chunks(array):
    pad = [(0, padded - count)] + [(0, 0)] * (array.ndim - 1)
    return np.split(np.pad(array, pad), padded // CHUNK)

  parts = [
    chunks(x) for x in (q_logits, p_logits, targets, np.ones(count, bool))
  ]
  for greedy in (True, False):
    for rule, alphas in ALPHAS.items():
      for name, temperatures in CONFIDENCES.items():
        sums = sum(
          np.asarray(
            measure(
              *(jnp.asarray(x) for x in part),
              jnp.asarray(temperatures),
              jnp.asarray(alphas, jnp.float32),
              rule=rule,
              greedy=greedy,
            ),
            np.float64,
          )
          for part in zip(*parts)
        )
        for alpha, row in zip(alphas, sums / count):
          yield {
            'temperature': 0.0 if greedy else 1.0,
            'rule': rule.__name__,
            'confidences': name,
            'alpha': float(alpha),
            **{k: round(float(v), 6) for k, v in zip(FIELDS[4:], row)},
          }


def draw(rows, path: pathlib.Path) -> None:
  """One panel a rule, one curve a miscalibration; at one temperature."""
  styles = {
    'as they are': ('#1d2733', '-', 'o'),
    'drafter too sure': ('#d55e00', '--', 'v'),
    'drafter too unsure': ('#d55e00', ':', '^'),
    'verifier too sure': ('#0072b2', '--', 'v'),
    'verifier too unsure': ('#0072b2', ':', '^'),
  }
  figure, panels = plt.subplots(
    3, 3, figsize=(11, 9.5), layout='constrained', sharex=True, sharey=True
  )
  for panel, rule in zip(panels.flat, ALPHAS):
    for name, (colour, line, marker) in styles.items():
      points = [
        (100 * row['rejection'], 100 * row['accuracy'])
        for row in rows
        if row['rule'] == rule.__name__ and row['confidences'] == name
      ]
      panel.plot(
        *zip(*points), line, color=colour, marker=marker, ms=3.5, label=name
      )
    title = rule.__name__
    panel.set_title(title, loc='left', fontweight='bold', fontsize=11)
    panel.grid(alpha=0.25)
    panel.spines[['top', 'right']].set_visible(False)
  figure.supxlabel('rejected drafted tokens (%)')
  figure.supylabel("emitted tokens that are the reference's (%)")
  figure.legend(
    *panels[0, 0].get_legend_handles_labels(),
    loc='outside upper center',
    ncols=5,
    frameon=False,
  )
  figure.savefig(path, dpi=130)


def main() -> None:
  """Measures, writes the table, draws it."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--task', default='debian_en_de')
  parser.add_argument('--examples', type=int, default=200)
  arguments = parser.parse_args()
  rows = list(curves(*positions(arguments.task, arguments.examples)))
  with open(HERE / 'miscalibrated.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, FIELDS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  for temperature in (0.0, 1.0):
    some = [row for row in rows if row['temperature'] == temperature]
    draw(some, HERE / f'miscalibrated_t{temperature:g}.png')
  print(f'{HERE}/miscalibrated.csv, {HERE}/miscalibrated_t*.png')


if __name__ == '__main__':
  main()
