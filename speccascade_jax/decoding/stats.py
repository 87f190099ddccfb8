"""Rates of one or many rows from their counters."""

from __future__ import annotations

import numpy as np

from speccascade_jax import base


def rates(
  counters: base.Counters,
  lengths: base.Array,
  *,
  alone: bool = False,
  judged: bool = True,
) -> dict[str, np.ndarray]:
  """Per-row rates `[B]`; NaN where a rate has no denominator.

  Args:
    counters: of one batch.
    lengths: `[B]` output tokens.
    alone: one model decoded: nothing was judged and nothing deferred, so
      acceptance, rejection and deferral rate are NaN.
    judged: drafted tokens were kept or rejected one by one; if not, acceptance
      and rejection rate are NaN.

  Returns:
    acceptance_rate: kept drafted tokens over those that were judged and
      reached the text (kept or replaced); rejection_rate is 1 minus it, the
      paper's cost axis.
    deferral_rate: mean deferral (r, or eta) over the output positions; NaN
      for rules that do not define one, such as `deferral.lossy`.
    block_efficiency: output tokens per verifier call.
  """
  accepted = np.asarray(counters.accepted, np.float64)
  resampled = np.asarray(counters.resampled, np.float64)
  tokens = np.asarray(lengths, np.float64)
  with np.errstate(divide='ignore', invalid='ignore'):
    acceptance = accepted / (accepted + resampled)
    deferral = np.asarray(counters.deferred, np.float64) / tokens
    if alone or not judged:
      acceptance = np.full_like(tokens, np.nan)
    if alone:
      deferral = np.full_like(tokens, np.nan)
    efficiency = tokens / np.asarray(counters.verifier_calls, np.float64)
    return {
      'acceptance_rate': acceptance,
      'rejection_rate': 1.0 - acceptance,
      'deferral_rate': deferral,
      'block_efficiency': np.where(np.isfinite(efficiency), efficiency, np.nan),
    }
