"""A generator without a model: what it writes follows from what it is asked.

It takes as long as it is told, keeps a record of its calls, and its text names
everything that it depended on, so that a mix-up shows in the results.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import time

import jax
import numpy as np

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import latency
from speccascade_jax.evaluation import methods


def chow(q, p, q_conf, p_conf, alpha):
  """Stands for a user's rule; never called."""
  raise AssertionError('The scripted generator has no distributions.')


def verifier_only(q, p, q_conf, p_conf, alpha):
  """Stands for a user's rule; never called."""
  raise AssertionError('The scripted generator has no distributions.')


class Clock:
  """Time that passes in `sleep` alone, however busy the machine is."""

  def __init__(self, monkeypatch):
    self._now = 0.0
    monkeypatch.setattr(latency.time, 'perf_counter', lambda: self._now)

  def sleep(self, seconds: float) -> None:
    self._now += seconds


@dataclasses.dataclass
class Output:
  texts: list[str]
  lengths: np.ndarray
  truncated: np.ndarray
  stats: dict[str, np.ndarray]


@dataclasses.dataclass
class Scripted:
  """Takes `seconds[model]` a call; `sleep` may turn a clock of its own."""

  seconds: dict[str, float] = dataclasses.field(default_factory=dict)
  calls: list[dict] = dataclasses.field(default_factory=list)
  sleep: Callable[[float], None] = time.sleep
  longest: int = 99  # Longer inputs are cut [characters].

  def generate(self, texts, *, row_ids, key, model, **settings) -> Output:
    self.sleep(self.seconds.get(model, 0.0))
    draw = np.asarray(jax.random.key_data(key)).tolist()
    self.calls.append(
      dict(settings, texts=texts, row_ids=row_ids, key=draw, model=model)
    )
    alpha, gamma = settings.get('alpha'), settings.get('gamma')
    written = [
      f'{model} {alpha} {gamma} {settings["temperature"]} {row} {draw} {text}'
      for text, row in zip(texts, row_ids, strict=True)
    ]
    ids = np.asarray(row_ids)
    pair = model == 'pair'
    counters = {
      'drafter_steps': ids + 2,
      'verifier_calls': ids * 0 + (0 if model == 'drafter' else 2),
      'drafted': (ids + 2) * pair,
      'accepted': (ids + 1) * pair,
      'resampled': ids * 0 + 1 * pair,
      'deferred': ids * np.float32(0.1) * pair,
    }
    cut = np.array([len(text) > self.longest for text in texts])
    return Output(written, ids + 4, cut, counters)


def agreement(targets, predictions):
  """A metric: the share of predictions that end in their target [%]."""
  ends = [p.endswith(t) for t, p in zip(targets, predictions, strict=True)]
  return {
    'agreement': 100 * sum(ends) / len(ends),
    'agreement_signature': 'ends|v1',
  }


def examples(count: int) -> list[base.Example]:
  """Their ids are not their positions, as in a shuffled subset."""
  return [
    base.Example(example=7 * i + 3, source=f'satz {i}', target=str(i))
    for i in range(count)
  ]


def points(**settings) -> list[methods.RunPoint]:
  """Verifier, drafter and a curve of two alphas."""
  grid = [
    methods.Method(model='verifier'),
    methods.Method(model='drafter'),
    methods.Method(rule=chow, alphas=(0.1, 0.5)),
  ]
  return methods.expand(
    grid, **{'gammas': (4,), 'temperatures': (0.0,), **settings}
  )


# Arguments of `sweep.sweep` behind the run directory.
SWEEP = {
  'task': 'scripted',
  'pair': 'none',
  'pair_digest': '0123',
  'split': 'test',
  'primary_metric': 'agreement',
  'input_length': 8,
  'max_length': 16,
  'progress': False,
}
