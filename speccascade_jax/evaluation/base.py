"""What evaluation asks of the rest of the package, and an example.

Evaluation never sees a model, a token or a logit: it hands texts to a
*generator* and gets texts and counters back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, Protocol

import numpy as np

# metric_fn(targets, predictions) -> {name: value}, as in seqio. A text among
# the values is a signature (say sacrebleu's), kept under the name without
# `_signature`. A metric may have an attribute `statistics`, a function of the
# same arguments that returns `Statistics`; it then gets intervals for little.
MetricFn = Callable[[Sequence[Any], Sequence[str]], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Example:
  """One example of a task: `example` is its index in the split."""

  example: int
  source: str  # With the task's prefix, as the model reads it.
  target: Any  # What the metrics compare with: a text, or several.


class Statistics(Protocol):
  """What a metric needs to know of its examples, in a form that adds up."""

  @property
  def rows(self) -> np.ndarray:
    """[examples, S] statistics."""

  @property
  def finish(self) -> Callable[[np.ndarray, int], Mapping[str, float]]:
    """(sums [S] over some examples, how many) -> {name: value}."""


class Output(Protocol):
  """Finished text of B rows; every array is NumPy, ready on the host."""

  @property
  def texts(self) -> list[str]: ...

  @property
  def lengths(self) -> np.ndarray:
    """[B] output tokens, end of sequence included."""

  @property
  def truncated(self) -> np.ndarray:
    """[B] bool, the input was cut to `input_length`."""

  @property
  def stats(self) -> Mapping[str, np.ndarray]:
    """The fields of `base.Counters`, each [B]; further ones are ignored."""


class Generator(Protocol):
  """`speccascade_jax.pair.Pair`, or anything with its `generate`.

  `generate(texts, *, model, method, rule, alpha, gamma, verification,
  temperature, top_k, top_p, min_p, eta, key, row_ids, max_length, stop,
  input_length)`, and the options of the method, returns when the text is
  finished; what a method does not take is left out. `row_ids` are folded into
  `key` row by row, so that what a row draws depends on its example alone.
  """

  @property
  def generate(self) -> Callable[..., Output]: ...


class Timed(Protocol):
  """A generator that can also time single calls, for the cost model.

  `call_times(widths, *, input_length, max_length)` returns milliseconds at
  batch size 1 by name: `drafter_start` and `verifier_start`, `drafter_1` for
  a drafter step, and `verifier_K` for a call that scores K tokens, for each K
  of `widths`.
  """

  @property
  def call_times(self) -> Callable[..., Mapping[str, float]]: ...
