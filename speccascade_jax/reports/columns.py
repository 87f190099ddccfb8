"""The columns of a sweep's tables: what each means and how it is shown."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from speccascade_jax.reports import formats
from speccascade_jax.reports import intervals
from speccascade_jax.reports import runs as runs_lib


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of the grouped tables.

  Attributes:
    heading: short, for the table's head.
    meaning: one sentence with the unit.
    value: of a run; None is shown as a dash.
    form: format specification of the value.
    keep: columns of the smallest number go first where space is short.
    text: the cell's text where it is more than the value in that form.
  """

  heading: str
  meaning: str
  value: Callable[[runs_lib.Run], Any]
  form: str
  keep: int
  text: Callable[[runs_lib.Run], str | None] | None = None

  def show(self, run: runs_lib.Run) -> str:
    """The cell's text."""
    if self.text is not None:
      return self.text(run) or '-'
    value = self.value(run)
    return '-' if value is None else format(value, self.form)


def _field(name: str) -> Callable[[runs_lib.Run], Any]:
  return lambda run: getattr(run, name)


def _metric(name: str) -> Callable[[runs_lib.Run], Any]:
  return lambda run: run.quality.get(name)


def differences(
  sweep: runs_lib.Sweep,
) -> dict[str, tuple[float, intervals.Interval | None]]:
  """The primary metric less the verifier's of the same trial, by run."""
  metric = sweep.primary_metric
  name = f'quality.{metric}'
  found = {}
  for group in sweep.groups():
    for run in group.runs:
      verifier = group.verifier_of(run)
      if verifier is None:
        continue
      quality = run.quality.get(metric)
      reference = verifier.quality.get(metric)
      if quality is None or reference is None:
        continue
      found[run.key] = (
        quality - reference,
        intervals.difference(
          run.replicates.get(name), verifier.replicates.get(name)
        ),
      )
  return found


ALWAYS = 99  # Columns to keep, however short space is.
_RATES = (
  ('accept', 'acceptance_rate', 'Drafted tokens kept, of those judged', 4),
  ('reject', 'rejection_rate', 'Drafted tokens replaced, of those judged', 8),
  ('defer', 'deferral_rate', 'Output handed to the verifier by the rule', 7),
)


def of_sweep(sweep: runs_lib.Sweep) -> list[Column]:
  """The columns of a sweep's tables, the method's label first.

  The temperature is the group's; the trial has a column if there are several.
  """
  found = [
    Column('method', 'Name of the method', _field('label'), '', ALWAYS),
    Column(
      'alpha',
      "The rule's trade-off, or the strength of the method's truncation",
      _field('alpha'),
      'g',
      ALWAYS,
      text=_field('strength'),
    ),
    Column('gamma', 'Tokens drafted a round', _field('gamma'), 'd', 6),
  ]
  if any(run.trial for run in sweep.runs):
    found.append(Column('trial', 'Repetition', _field('trial'), 'd', 9))
  for name in sweep.metrics:
    primary = name == sweep.primary_metric
    found.append(
      Column(
        formats.metric_name(name),
        'Quality over all examples; larger is better',
        _metric(name),
        '.2f',
        ALWAYS if primary else 2,
      )
    )
    if primary and any(run.replicates for run in sweep.runs):
      found.append(_difference(sweep))
  found.append(
    Column(
      'rel.lat',
      "Mean latency over the verifier's on the same examples",
      _field('relative_latency'),
      '.2f',
      ALWAYS,
      text=_relative_latency,
    )
  )
  if any(run.interval('relative_latency') for run in sweep.runs):
    found.append(
      Column(
        'rel.lat 95%',
        'Interval of the relative latency',
        _field('relative_latency'),
        '',
        0,
        text=_interval('relative_latency'),
      )
    )
  if any(run.modelled_relative_latency for run in sweep.runs):
    found.append(
      Column(
        'model',
        'Relative latency by the cost model: counted calls, times what a call '
        'takes',
        _field('modelled_relative_latency'),
        '.2f',
        4,
      )
    )
  found += [
    Column(
      'ms',
      'Mean latency of an example at batch size 1, in milliseconds',
      _field('latency_ms_mean'),
      '.1f',
      5,
    ),
  ]
  for heading, name, meaning, keep in _RATES:
    found.append(Column(heading, meaning, _field(name), '.1%', keep))
  found += [
    Column(
      'tok/call',
      'Block efficiency: output tokens per verifier call',
      _field('block_efficiency'),
      '.2f',
      3,
    ),
    Column(
      'calls',
      'Verifier calls per example',
      _field('verifier_calls_per_example'),
      '.1f',
      1,
    ),
  ]
  return found


def _difference(sweep: runs_lib.Sweep) -> Column:
  found = differences(sweep)

  def text(run: runs_lib.Run) -> str | None:
    if run.key not in found:
      return None
    value, interval = found[run.key]
    return (
      f'{value:+.2f} {formats.bounds(interval) if interval else ""}'.rstrip()
    )

  name = formats.metric_name(sweep.primary_metric)
  return Column(
    f'{name} - V',
    f"{name} less the verifier's, with the paired interval",
    lambda run: found[run.key][0] if run.key in found else None,
    '+.2f',
    0,
    text=text,
  )


def _relative_latency(run: runs_lib.Run) -> str | None:
  if run.relative_latency is None:
    return None
  return f'{run.relative_latency:.2f}{"~" if run.timed_apart else ""}'


def _interval(name: str) -> Callable[[runs_lib.Run], str | None]:
  def text(run: runs_lib.Run) -> str | None:
    found = run.interval(name)
    return formats.bounds(found) if found else None

  return text
