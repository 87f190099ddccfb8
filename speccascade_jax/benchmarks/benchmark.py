"""How fast a pair is here, part by part, and how fast it could be.

Times are taken in turns, program by program, so that what the machine does
meanwhile meets all of them; a ratio of two is the median of the ratios within
a turn. Texts go in and come out through `Pair.generate`, as for any user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import deferral
from speccascade_jax import pair as pairs
from speccascade_jax import static
from speccascade_jax.benchmarks import machine
from speccascade_jax.benchmarks import synthetic
from speccascade_jax.benchmarks import work
from speccascade_jax.decoding import call_times


# Compared by identity: parameters have no hash, and `_verifier_text` needs one.
@dataclasses.dataclass(frozen=True, eq=False)
class Benchmark:
  """What is measured.

  Attributes:
    pair: from `synthetic`: without an end, over token ids.
    gamma: tokens drafted a round.
    input_length: S, of the source or prompt.
    max_length: T, of every text.
    repeats: turns that each program takes.
    seed: of the inputs and of what the drafter gets right.
  """

  pair: pairs.Pair
  gamma: int
  input_length: int
  max_length: int
  repeats: int = 5
  seed: int = 0

  def __post_init__(self):
    for name in ('gamma', 'max_length', 'repeats'):
      static.positive_integer(name, getattr(self, name))
    if self.input_length < 2:
      raise ValueError(
        f'input_length is {self.input_length}; it must be at least 2, the end '
        'of the input included.'
      )
    if self.max_length <= self.gamma:
      raise ValueError(
        f'max_length is {self.max_length}; it must be above gamma, which is '
        f'{self.gamma}, or there is no full round to measure.'
      )

  def parts(self) -> dict[str, Any]:
    """Rates of the device, model calls alone and a round, with their floors.

    A round's time is that of a text without any kept token less that of one
    where all are kept, over the difference of their rounds: what a text costs
    once (the encoder, Python) is in both.

    A call alone is timed in a program of as many as a text has tokens: in a
    shorter one what the first call has to fetch, since other programs ran
    before, would count for more than it does in a text.
    """
    width = self.gamma + 1
    assert self.pair.drafter is not None  # Loaded, or made, as a pair.
    calls = {
      'drafter step': (self.pair.drafter, 1),
      'verifier step': (self.pair.verifier, 1),
      f'verifier call of {width}': (self.pair.verifier, width),
    }
    rates, amounts = machine.programs(
      jnp.dtype(self.pair.verifier.config.dtype)
    )
    programs: dict[str, Any] = dict(rates)
    for name, (model, k) in calls.items():
      programs[name] = self._alone(model, k)
    texts = {0.0: self._text(1, 0.0), 1.0: self._text(1, 1.0)}
    compile_s = _seconds(texts[0.0])
    programs |= {f'text {acceptance:g}': f for acceptance, f in texts.items()}
    rounds = {
      acceptance: float(f().stats['verifier_calls'][0])
      for acceptance, f in texts.items()
    }
    seconds = call_times.turns(programs, repeats=self.repeats)

    best = {name: amounts[name] / min(seconds[name]) for name in amounts}
    bandwidth = max(best['read'], best['apply'])
    rows = []
    for name, (model, k) in calls.items():
      needed = self._work(model, k)
      rows.append(
        {'name': name}
        | _milliseconds(seconds[name], self.max_length)
        | _floor(needed, bandwidth, best['multiply'])
      )
    times = np.array([seconds['text 0'], seconds['text 1']])
    alone = {name: np.array(seconds[name]) / self.max_length for name in calls}
    step, _, call = alone.values()
    parts = width * step + call
    round_s = (times[0] - times[1]) / (rounds[0.0] - rounds[1.0])
    round_ = {'name': f'round of {self.gamma}'} | _milliseconds(round_s, 1)
    round_['floor_ms'] = width * rows[0]['floor_ms'] + rows[2]['floor_ms']
    round_['bound'] = 'its parts'
    for row in rows + [round_]:
      row['times_floor'] = row['ms_p50'] / row['floor_ms']
    return {
      'bandwidth_gb_per_s': bandwidth / 1e9,
      'gflop_per_s': best['multiply'] / 1e9,
      'calls': rows + [round_],
      'round_over_parts': float(np.median(round_s / parts)),
      'compile_s': compile_s,
    }

  def methods(
    self,
    settings: Mapping[str, Mapping[str, Any]],
    batch: int,
    acceptance: float,
  ) -> list[dict[str, Any]]:
    """Speed of every method, by name, on a batch of independent rows.

    Args:
      settings: by name, the keywords of `Pair.generate`.
      batch: B.
      acceptance: of the drafter, under the lossless rule.

    Returns:
      A row a method: tokens a second of the batch, and times the verifier's
      speed if that is among them ('Verifier').
    """
    programs = {
      name: self._text(batch, acceptance, **given)
      for name, given in settings.items()
    }
    rows = self._rows(programs, batch)
    return [row | {'acceptance': acceptance} for row in rows]

  def acceptances(self, rates: Sequence[float]) -> list[dict[str, Any]]:
    """Speed of lossless speculation alone, a row for each rate."""
    programs = {f'right {rate:.0%}': self._text(1, rate) for rate in rates}
    programs = {'Verifier': self._text(1, 0.0, model=pairs.VERIFIER)} | programs
    rows = self._rows(programs, 1)
    return [row | {'acceptance': r} for row, r in zip(rows[1:], rates)]

  def _rows(self, programs, batch: int) -> list[dict[str, Any]]:
    """Times calls of `generate` side by side."""
    compile_s = {name: _seconds(f) for name, f in programs.items()}
    outputs = {name: f() for name, f in programs.items()}
    seconds = call_times.turns(programs, repeats=self.repeats)
    rows = []
    for name, out in outputs.items():
      tokens = int(out.lengths.sum())
      row = {
        'name': name,
        'batch': batch,
        'tokens_per_s': tokens / statistics.median(seconds[name]),
        'tokens_per_s_best': tokens / min(seconds[name]),
        'compile_s': max(0.0, compile_s[name] - min(seconds[name])),
        'acceptance_rate': _mean(out.stats['acceptance_rate']),
        'block_efficiency': _mean(out.stats['block_efficiency']),
      }
      if 'Verifier' in seconds:
        pairs_of = zip(seconds['Verifier'], seconds[name])
        row['times_verifier'] = statistics.median(v / s for v, s in pairs_of)
      rows.append(row)
    return rows

  def _alone(self, model: pairs.Model, width: int):
    found = call_times.programs(
      model.step,
      model.params,
      (width,),
      calls=self.max_length,
      input_length=self.input_length,
      max_length=self.max_length,
    )
    return found[str(width)]

  def _work(self, model: pairs.Model, width: int) -> work.Work:
    return work.of_extend(
      model.step,
      model.params,
      batch=1,
      width=width,
      input_length=self.input_length,
      max_length=self.max_length,
    )

  def _text(self, batch: int, acceptance: float, **settings: Any):
    """A call that writes the batch's texts; lossless speculation by default."""
    sources, text = self._verifier_text(batch)
    pair = synthetic.scripted(self.pair, text, acceptance, self.seed)
    if not settings:
      settings = dict(rule=deferral.verifier_only, gamma=self.gamma)
    settings = {'key': self.seed, 'temperature': 0.0} | settings
    return functools.partial(
      pair.generate,
      sources,
      input_length=self.input_length,
      max_length=self.max_length,
      **settings,
    )

  # The last thing that was asked for, since the cost is that of a text.
  @functools.lru_cache(maxsize=4)  # noqa: B019  Benchmarks are few and short.
  def _verifier_text(self, batch: int) -> tuple[list[str], np.ndarray]:
    sources = synthetic.inputs(self.pair, batch, self.input_length, self.seed)
    out = self.pair.generate(
      sources,
      model=pairs.VERIFIER,
      input_length=self.input_length,
      max_length=self.max_length,
    )
    return sources, out.tokens


def _seconds(call) -> float:
  start = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - start


def _milliseconds(seconds: Sequence[float], calls: int) -> dict[str, float]:
  return {
    'ms_p50': float(np.median(seconds)) * 1e3 / calls,
    'ms_best': float(np.min(seconds)) * 1e3 / calls,
  }


def _floor(
  needed: work.Work, bytes_per_s: float, operations_per_s: float
) -> dict[str, Any]:
  moving = needed.bytes / bytes_per_s
  computing = needed.operations / operations_per_s
  return {
    'floor_ms': needed.floor_ms(bytes_per_s, operations_per_s),
    'bound': 'bytes' if moving > computing else 'operations',
    'megabytes': needed.bytes / 1e6,
    'megaflop': needed.operations / 1e6,
  }


def _mean(rates: np.ndarray) -> float | None:
  """None where a method has no such rate."""
  defined = rates[np.isfinite(rates)]
  return float(defined.mean()) if defined.size else None
