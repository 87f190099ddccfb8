"""Timing libraries in turn, so that what slows the machine slows all of them.

A round asks every side every prompt, one side after the other, beginning with
another side each time. Ratios are of the same round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import json
import os
import pathlib
import statistics
import time
from typing import Any

import numpy as np
import psutil

# The threads of OpenMP, which the others run on, spin for up to 0.2 s after
# their work, and would take a core from whoever is next.
_SETTLE_S = 0.25

# The number of a prompt -> the ids of the tokens that are its answer.
Side = Callable[[int], list[int]]


@dataclasses.dataclass(frozen=True)
class Timing:
  """What one side took.

  Attributes:
    ms_per_token: of each round, from prompt to text.
    answers: token ids by prompt; the same in every round.
  """

  ms_per_token: list[float]
  answers: list[list[int]]

  def summary(self) -> dict[str, Any]:
    """Median and range of the rounds."""
    return {
      **_spread('ms_per_token', self.ms_per_token),
      'tokens': sum(map(len, self.answers)),
    }


class Company:
  """How busy the machine was with other work, from now on.

  A library whose threads wait for each other at every layer suffers more from
  a core that is taken than one that does not.
  """

  def __init__(self):
    self._busy, self._own = self._clocks()
    self._start = time.perf_counter()

  def used(self) -> float:
    """Cores that others used on average."""
    busy, own = self._clocks()
    others = busy - self._busy - (own - self._own)
    return round(max(0.0, others) / (time.perf_counter() - self._start), 2)

  def _clocks(self) -> tuple[float, float]:
    """Seconds of all cores together, and of this process and its children."""
    process = psutil.Process()
    family = [process, *process.children(recursive=True)]
    own = sum(sum(p.cpu_times()[:2]) for p in family)
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, 'iowait', 0.0)
    return sum(times[:8]) - idle, own


def measure(
  sides: Mapping[str, Side], *, num_prompts: int, rounds: int
) -> dict[str, Timing]:
  """Times all sides; the first answers, which may compile, are not timed."""
  answers = {
    name: [side(i) for i in range(num_prompts)] for name, side in sides.items()
  }
  names = list(sides)
  found: dict[str, list[float]] = {name: [] for name in sides}
  for turn in range(rounds):
    seconds = dict.fromkeys(names, 0.0)
    for i in range(num_prompts):
      first = (turn + i) % len(names)
      for name in names[first:] + names[:first]:
        time.sleep(_SETTLE_S)
        start = time.perf_counter()
        answer = sides[name](i)
        seconds[name] += time.perf_counter() - start
        if answer != answers[name][i]:
          raise RuntimeError(f'{name} answered prompt {i} in two ways.')
    for name in names:
      tokens = sum(map(len, answers[name]))
      found[name].append(1e3 * seconds[name] / tokens)
  return {name: Timing(found[name], answers[name]) for name in names}


def ratio(over: Timing, under: Timing) -> dict[str, float]:
  """How often `under` fits into `over`, round by round: median and range."""
  pairs = zip(over.ms_per_token, under.ms_per_token, strict=True)
  return _spread('ratio', [a / b for a, b in pairs])


def same_answers(one: Timing, other: Timing) -> str:
  """In how many prompts two sides agree to the last token."""
  same = [a == b for a, b in zip(one.answers, other.answers, strict=True)]
  return f'{sum(same)} of {len(same)}'


def cores() -> int:
  """Processors that this process may use; both sides get as many threads."""
  return len(os.sched_getaffinity(0))


def write(path: pathlib.Path | None, result: Mapping[str, Any]) -> None:
  """Writes a result as JSON, and prints it as a table."""
  rows = result['ms_per_token']
  print(
    f'\n{result["title"]} ({result["device"]}; meanwhile others used '
    f'{result["cores_used_by_others"]} cores)'
  )
  print('| | ms/token | range |\n|---|---:|---:|')
  for name, row in rows.items():
    low, high = row['ms_per_token_min'], row['ms_per_token_max']
    print(
      f'| {name} | {row["ms_per_token_median"]:.3g} | {low:.3g} to {high:.3g} |'
    )
  for name, row in result['ratios'].items():
    print(
      f'{name}: {row["ratio_median"]:.2f} '
      f'({row["ratio_min"]:.2f} to {row["ratio_max"]:.2f})'
    )
  for name, value in result['checks'].items():
    print(f'{name}: {value}')
  if path is not None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2) + '\n'
    path.write_text(text, encoding='utf-8')


def _spread(name: str, values: list[float]) -> dict[str, float]:
  return {
    f'{name}_{label}': float(f'{of(values):.5g}')
    for label, of in (
      ('median', statistics.median),
      ('min', np.min),
      ('max', np.max),
    )
  }
