"""What limits a sweep's figures, in sentences."""

from __future__ import annotations

from speccascade_jax.reports import formats
from speccascade_jax.reports import runs as runs_lib


def of_sweep(sweep: runs_lib.Sweep) -> list[str]:
  """All of them, a line each."""
  return (
    truncated(sweep)
    + timed_apart(sweep)
    + without_interval(sweep)
    + unfinished(sweep)
  )


def timed_apart(sweep: runs_lib.Sweep) -> list[str]:
  """A line if runs are compared with a verifier of another start."""
  apart = [run for run in sweep.runs if run.timed_apart]
  if not apart:
    return []
  most = max(run.timed_apart or 0 for run in apart)
  return [
    f'~ {len(apart)} runs have up to {most} of '
    f'{sweep.header.get("num_examples", "?")} examples timed in another start '
    'of the sweep than the verifier; another load of the machine is in their '
    'relative latency.'
  ]


def without_interval(sweep: runs_lib.Sweep) -> list[str]:
  """A line if others have intervals and the primary metric has none."""
  name = f'quality.{sweep.primary_metric}'
  if any(name in r.replicates or not r.replicates for r in sweep.runs):
    return []
  return [
    f'{formats.metric_name(sweep.primary_metric)} has no intervals: the metric '
    'gives no statistics by example. sweep.recompute_metrics resamples it all '
    'the same.'
  ]


def truncated(sweep: runs_lib.Sweep) -> list[str]:
  """A line if inputs were cut; none where it is not known."""
  # All runs read the same inputs, but an unfinished sweep may lack a few.
  count = max((run.num_truncated or 0 for run in sweep.runs), default=0)
  if not count:
    return []
  return [
    f'Inputs cut to the input length: {count} of '
    f'{sweep.header.get("num_examples", "?")}. Quality suffers; sweep with a '
    'larger input_length.'
  ]


def unfinished(sweep: runs_lib.Sweep) -> list[str]:
  """How many runs are missing, and then which, if any are.

  They are named, by temperature; many of one temperature are counted.
  """
  missing = sweep.unfinished
  if not missing:
    return []
  if sweep.header.get('command') == 'tune':
    return [
      f'{len(missing)} of {len(missing) + len(sweep.runs)} candidates have '
      'not all examples, because they fell behind in the search or it was '
      'stopped: they are not shown.'
    ]
  lines = [
    f'Left out, unfinished: {len(missing)} of '
    f'{len(missing) + len(sweep.runs)} runs. The same sweep started again goes '
    'on where it stopped.'
  ]
  for temperature in dict.fromkeys(run.temperature for run in missing):
    alike = [run for run in missing if run.temperature == temperature]
    if len(alike) <= _NAMED:
      lines += [f'Unfinished: {_described(run)}.' for run in alike]
      continue
    labels = ', '.join(dict.fromkeys(run.label for run in alike))
    done = sum(run.done for run in alike)
    of = sum(run.total or 0 for run in alike)
    lines.append(
      f'Unfinished: {len(alike)} runs at T {temperature:g} ({done} of {of} '
      f'examples done), of {labels}.'
    )
  return lines


_NAMED = 4


def _described(run: runs_lib.Unfinished) -> str:
  settings = [run.label, f'T {run.temperature:g}']
  if run.alpha is not None:
    settings.append(f'{run.truncation or "alpha"} {run.alpha:g}')
  if run.gamma is not None:
    settings.append(f'gamma {run.gamma}')
  of = f' of {run.total}' if run.total else ''
  return f'{", ".join(settings)} ({run.done}{of} examples done)'
