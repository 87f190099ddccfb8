"""A rule of a user's own, with a parameter."""

from __future__ import annotations

from speccascade_jax import deferral


def wary_diff(q, p, q_conf, p_conf, alpha, *, least=0.0):
  """Defers as `diff` does, and wherever the drafter is less sure than this."""
  confidence = q_conf.max(-1)
  defer = (confidence < least) | (confidence < p_conf.max(-1) - alpha)
  return deferral.mix(q, p, defer)
