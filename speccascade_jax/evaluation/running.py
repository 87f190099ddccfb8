"""Running the points of a company on examples, side by side.

For every example all of them are timed in turn, in an order that moves on by
one an example::

  example 0   verifier  drafter   OPT 0.1   OPT 0.2
  example 1   drafter   OPT 0.1   OPT 0.2   verifier
  example 2   OPT 0.1   OPT 0.2   verifier  drafter

so that whatever slows the machine down for a while slows them all. Runs that
a later start adds are compared with a verifier of that start: it takes its
turns again, though its texts are there already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import math
from typing import Any, TypeVar

import tqdm

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import latency
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import summaries

_T = TypeVar('_T')


def rotated(items: Sequence[_T], start: int) -> Iterator[_T]:
  """All items, beginning with number `start` modulo their count."""
  for i in range(len(items)):
    yield items[(start + i) % len(items)]


class Runner:
  """Runs what is missing; what it has compiled stays warm between calls.

  Args:
    generator: see `base.Generator`.
    directory: that the lines go to.
    lengths: input_length, max_length and perhaps stop of `generate`.
    bar: told of every line.
  """

  def __init__(
    self,
    generator: base.Generator,
    directory: results.RunDirectory,
    lengths: Mapping[str, int],
    bar: tqdm.tqdm,
  ):
    self.bar = bar
    self._generator = generator
    self._directory = directory
    self._lengths = dict(lengths)
    self._warm: dict[tuple, latency.WarmUp] = {}

  def run(
    self,
    points: Mapping[str, methods.RunPoint],
    examples: Sequence[base.Example],
  ) -> None:
    """Appends the lines that points of one company lack of these examples.

    Args:
      points: by key.
      examples: in the order in which they are run.
    """
    logs = {key: self._directory.runs[key].log for key in points}
    missing = {
      key: {e.example for e in examples} - set(log.rows)
      for key, log in logs.items()
    }
    # A point that is finished needs no program, unless others are compared
    # with it.
    keys = [key for key in points if missing[key]]
    reference = next((k for k, p in points.items() if p.is_reference), None)
    if keys and reference is not None and reference not in keys:
      keys = [reference, *keys]
    for key in keys:
      warm = self._warmed_up(points[key], examples)
      if missing[key]:
        self._directory.runs[key].warmup = {
          'compile_s': warm.compile_s,
          'warmup_ms': warm.warmup_ms,
        }
    retimed: results.Log | None = None
    for i, example in enumerate(examples):
      lacking = {key for key in keys if example.example in missing[key]}
      for key in rotated(keys, i):
        again = key == reference and key not in lacking
        if key not in lacking and not (again and lacking):
          continue
        self.bar.set_postfix_str(str(points[key]), refresh=False)
        row = self._run_one(example, points[key])
        row['start'] = self._directory.start
        if again:
          if retimed is None:
            retimed = self._directory.runs[key].retimed(self._directory.start)
          if example.example not in retimed.rows:
            names = ('example', 'latency_ms', 'start')
            retimed.append({name: row[name] for name in names})
        else:
          logs[key].append(row)
          self.bar.update()
    if retimed is not None:
      retimed.close()

  def _warmed_up(
    self, point: methods.RunPoint, examples: Sequence[base.Example]
  ) -> latency.WarmUp:
    if point.program() not in self._warm:
      self.bar.set_postfix_str(f'compiling {point}')
      longest = max(examples, key=lambda example: len(example.source))
      self._warm[point.program()] = latency.warm_up(
        self._generate(longest, point)
      )
    return self._warm[point.program()]

  def _generate(self, example: base.Example, point: methods.RunPoint):
    settings = point.settings() | self._lengths
    return lambda: self._generator.generate(
      [example.source], row_ids=[example.example], **settings
    )

  def _run_one(
    self, example: base.Example, point: methods.RunPoint
  ) -> dict[str, Any]:
    output, latency_ms = latency.timed(self._generate(example, point))
    row = {
      'example': example.example,
      'prediction': output.texts[0],
      'latency_ms': round(latency_ms, 4),
      'output_tokens': int(output.lengths[0]),
      'truncated': bool(output.truncated[0]),
    }
    for name in summaries.COUNTERS:
      row[name] = output.stats[name][0].item()
    deferred = row['deferred']  # NaN for a rule without a deferral.
    row['deferred'] = None if math.isnan(deferred) else round(deferred, 6)
    return row
