"""Quality of predictions, by metric functions that are passed in."""

from __future__ import annotations

from collections.abc import Sequence
import numbers
from typing import Any

from speccascade_jax.evaluation import base

_SUFFIX = '_signature'


def score(
  metric_fns: Sequence[base.MetricFn],
  targets: Sequence[Any],
  predictions: Sequence[str],
) -> tuple[dict[str, float], dict[str, str]]:
  """Runs every metric.

  Args:
    metric_fns: functions of (targets, predictions), see `base.MetricFn`.
    targets: one an example.
    predictions: one an example, in the same order.

  Returns:
    Values and signatures, by name.

  Raises:
    ValueError: if the lengths differ or two metrics use the same name.
    TypeError: if a value is neither a number nor a text.
  """
  if len(targets) != len(predictions):
    raise ValueError(
      f'{len(targets)} targets but {len(predictions)} predictions.'
    )
  quality: dict[str, float] = {}
  signatures: dict[str, str] = {}
  for metric_fn in metric_fns:
    for name, value in metric_fn(list(targets), list(predictions)).items():
      if name in quality:
        raise ValueError(f'Two metrics report a value called {name!r}.')
      if isinstance(value, str):
        signatures[name.removesuffix(_SUFFIX)] = value
      elif isinstance(value, numbers.Real):
        quality[name] = float(value)
      else:
        raise TypeError(
          f'Metric {name!r} is {value!r}; expected a number or a signature.'
        )
  return quality, signatures


def reporting(
  metric_fns: Sequence[base.MetricFn], name: str, targets: Sequence[Any]
) -> base.MetricFn:
  """The metric that reports a value of this name, among several.

  Args:
    metric_fns: see `base.MetricFn`.
    name: of the value.
    targets: a few, to ask the metrics with.

  Raises:
    ValueError: if none of them reports it.
  """
  empty = [''] * len(targets)
  reported: list[str] = []
  for metric_fn in metric_fns:
    quality, _ = score([metric_fn], targets, empty)
    if name in quality:
      return metric_fn
    reported += quality
  raise ValueError(
    f'primary_metric is {name!r}; the metrics report '
    f'{", ".join(reported) or "nothing"}.'
  )
