"""Wall-clock time of one example at batch size 1.

A shared machine drifts: other jobs come and go, clocks change. What survives
that is the ratio of two runs timed side by side on the same examples, which
is why the sweep times every method on an example before it takes the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
import time
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class WarmUp:
  """What a program costs before the first timed example."""

  compile_s: float  # First call less a warm one: tracing and compilation.
  warmup_ms: float  # A warm call, the quicker of two.


@dataclasses.dataclass(frozen=True)
class RelativeLatency:
  """Ratio of mean latencies over the same examples."""

  ratio: float
  ratio_sem: float | None  # Standard error, of the pairs; None for one pair.


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
  """Runs `call`; its result, blocked until ready, and the milliseconds."""
  start = time.perf_counter()
  result = jax.block_until_ready(call())
  return result, (time.perf_counter() - start) * 1e3


def warm_up(call: Callable[[], Any]) -> WarmUp:
  """Calls three times: once to compile, twice to warm the caches."""
  first_ms, second_ms, third_ms = (timed(call)[1] for _ in range(3))
  warmup_ms = min(second_ms, third_ms)
  return WarmUp(
    compile_s=max(0.0, first_ms - warmup_ms) / 1e3, warmup_ms=warmup_ms
  )


def statistics(
  latencies_ms: Sequence[float], output_tokens: Sequence[int]
) -> dict[str, float]:
  """Mean, median, 95th percentile [ms] and throughput [tokens/s]."""
  return {
    'latency_ms_mean': float(np.mean(latencies_ms)),
    'latency_ms_p50': float(np.percentile(latencies_ms, 50)),
    'latency_ms_p95': float(np.percentile(latencies_ms, 95)),
    'tokens_per_s': float(np.sum(output_tokens) / np.sum(latencies_ms) * 1e3),
  }


def relative(
  latencies_ms: Mapping[int, float], verifier_ms: Mapping[int, float]
) -> RelativeLatency:
  """Mean latency over the verifier's mean latency on the same examples.

  The standard error is that of a ratio estimator over pairs (x_i, y_i),
  `std(x - ratio y) / (sqrt(n) mean(y))`: what two runs have in common, long
  sentences above all, does not widen it.

  Args:
    latencies_ms: of the method, by example.
    verifier_ms: of the verifier, by example; more examples do no harm.

  Raises:
    ValueError: if the verifier lacks an example.
  """
  missing = sorted(set(latencies_ms) - set(verifier_ms))
  if missing or not latencies_ms:
    raise ValueError(
      f'Nothing to compare with: the verifier run lacks {missing[:5]} of '
      f'{len(latencies_ms)} examples.'
    )
  x = np.array([latencies_ms[i] for i in latencies_ms], np.float64)
  y = np.array([verifier_ms[i] for i in latencies_ms], np.float64)
  ratio = float(x.mean() / y.mean())
  if len(x) == 1:
    return RelativeLatency(ratio, None)
  spread = float(np.std(x - ratio * y, ddof=1))
  return RelativeLatency(ratio, spread / (math.sqrt(len(x)) * float(y.mean())))
