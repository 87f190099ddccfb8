import time

import numpy as np
import pytest

from speccascade_jax.evaluation import latency
from tests.evaluation import scripted


def test_timed_returns_result_and_milliseconds():
  def call():
    time.sleep(0.02)
    return 'text'

  result, latency_ms = latency.timed(call)
  assert result == 'text'
  assert latency_ms >= 20


def test_timed_waits_for_the_device():
  class Pending:
    waited = False

    def block_until_ready(self):
      self.waited = True
      return self

  result, _ = latency.timed(Pending)
  assert result.waited


def test_warm_up_tells_compilation_from_work(monkeypatch):
  clock = scripted.Clock(monkeypatch)
  seconds = iter([2.0, 0.03, 0.01])
  times = latency.warm_up(lambda: clock.sleep(next(seconds)))
  assert times.warmup_ms == pytest.approx(10.0)
  assert times.compile_s == pytest.approx(1.99)


def test_statistics_by_hand():
  found = latency.statistics([10.0, 20.0, 30.0, 140.0], [5, 5, 10, 30])
  assert found == {
    'latency_ms_mean': 50.0,
    'latency_ms_p50': 25.0,
    'latency_ms_p95': pytest.approx(30 + 0.85 * 110),
    'tokens_per_s': 250.0,
  }


def test_relative_latency_by_hand():
  # Means 15 and 30; the verifier's example 9 has no partner and is ignored.
  times = latency.relative({1: 10.0, 2: 20.0}, {2: 40.0, 1: 20.0, 9: 1e6})
  assert times.ratio == 0.5
  assert times.ratio_sem == 0.0  # Half as long on each example.


def test_relative_latency_has_the_standard_error_of_pairs():
  random = np.random.default_rng(0)
  # Sentences differ by a factor of ten, the method by 10 % of each.
  verifier = random.uniform(10, 100, [2000, 50])
  method = verifier * random.normal(0.5, 0.05, [2000, 50])
  times = [
    latency.relative(dict(enumerate(x)), dict(enumerate(y)))
    for x, y in zip(method, verifier, strict=True)
  ]
  spread = np.std([t.ratio for t in times])
  claimed = np.mean([t.ratio_sem for t in times])
  assert claimed == pytest.approx(spread, rel=0.1)


def test_one_pair_has_no_standard_error():
  assert latency.relative({1: 1.0}, {1: 2.0}).ratio_sem is None


def test_an_example_without_a_partner_is_named():
  with pytest.raises(ValueError, match=r'\[2\]'):
    latency.relative({1: 1.0, 2: 1.0}, {1: 2.0})
