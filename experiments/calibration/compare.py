"""What the fitted temperatures move in the sweep, point by point.

    python experiments/calibration/compare.py runs/calibration

Pairs every run with the calibrated one of the same rule, alpha and temperature.
Writes moved.csv and moved.png here: the change of BLEU with its paired 95 %
interval, and of the deferral and the rejection rate.
"""

from __future__ import annotations

import argparse
import csv
import pathlib

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt

from speccascade_jax.reports import intervals
from speccascade_jax.reports import runs

HERE = pathlib.Path(__file__).parent
MARK = ', calibrated'
FIELDS = (
  *('temperature', 'rule', 'alpha', 'bleu', 'bleu_calibrated', 'change'),
  *('change_low', 'change_high', 'deferral_rate', 'deferral_rate_calibrated'),
  *('rejection_rate', 'rejection_rate_calibrated'),
)
COLOURS = {0.0: '#0072b2', 1.0: '#d55e00'}


def pairs(sweep):
  """(plain, calibrated) runs of the same settings."""
  plain = {
    (run.label + MARK, run.alpha, run.temperature): run for run in sweep.runs
  }
  for run in sweep.runs:
    if run.label.endswith(MARK):
      yield plain[(run.label, run.alpha, run.temperature)], run


def compared(sweep):
  """A row of FIELDS a pair."""
  metric = sweep.primary_metric
  for plain, calibrated in pairs(sweep):
    interval = intervals.difference(
      calibrated.replicates[f'quality.{metric}'],
      plain.replicates[f'quality.{metric}'],
    )
    before, after = plain.quality[metric], calibrated.quality[metric]
    yield {
      'temperature': plain.temperature,
      'rule': plain.rule,
      'alpha': plain.alpha,
      'bleu': before,
      'bleu_calibrated': after,
      'change': after - before,
      'change_low': interval.low,
      'change_high': interval.high,
      'deferral_rate': plain.deferral_rate,
      'deferral_rate_calibrated': calibrated.deferral_rate,
      'rejection_rate': plain.rejection_rate,
      'rejection_rate_calibrated': calibrated.rejection_rate,
    }


def draw(rows, path: pathlib.Path) -> None:
  """One panel a rule: BLEU against rejections, without and with."""
  rules = list(dict.fromkeys(row['rule'] for row in rows))
  lines = -(-len(rules) // 3)
  figure, panels = plt.subplots(
    lines,
    3,
    figsize=(11, 0.5 + 3 * lines),
    layout='constrained',
    sharex=True,
    sharey=True,
    squeeze=False,
  )
  for panel in panels.flat[len(rules) :]:
    panel.set_axis_off()
  for panel, rule in zip(panels.flat, rules):
    for temperature, colour in COLOURS.items():
      some = [
        row
        for row in rows
        if row['rule'] == rule and row['temperature'] == temperature
      ]
      for kind, line, face, name in (
        ('', '-', colour, 'as they are'),
        ('_calibrated', '--', 'white', 'calibrated'),
      ):
        panel.plot(
          [100 * row[f'rejection_rate{kind}'] for row in some],
          [row[f'bleu{kind}'] for row in some],
          line,
          color=colour,
          marker='o',
          mfc=face,
          label=f'T = {temperature:g}, {name}',
        )
    panel.set_title(rule, loc='left', fontweight='bold', fontsize=11)
    panel.grid(alpha=0.25)
    panel.spines[['top', 'right']].set_visible(False)
  figure.supxlabel('rejection rate (% of the drafted tokens that were judged)')
  figure.supylabel('BLEU')
  figure.legend(
    *panels[0, 0].get_legend_handles_labels(),
    loc='outside upper center',
    ncols=4,
    frameon=False,
  )
  figure.savefig(path, dpi=130)


def main() -> None:
  """Reads the sweep, writes the table, draws it."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('run_dir', metavar='RUN_DIR')
  rows = list(compared(runs.load(parser.parse_args().run_dir)))
  with open(HERE / 'moved.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, FIELDS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  draw(rows, HERE / 'moved.png')
  print(f'{HERE}/moved.csv, {HERE}/moved.png')


if __name__ == '__main__':
  main()
