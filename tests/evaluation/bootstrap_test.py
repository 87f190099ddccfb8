"""Replicates against recomputation, and intervals against known answers."""

import numpy as np
import pytest
from sacrebleu import significance
from sacrebleu.metrics import BLEU
from sacrebleu.metrics import CHRF

from speccascade_jax.data import metrics
from speccascade_jax.evaluation import bootstrap

_WORDS = 'a text editor for small files and a tool to build large ones'.split()


def _texts(seed, count=12):
  random = np.random.default_rng(seed)
  return [
    ' '.join(random.choice(_WORDS, random.integers(4, 12)))
    for _ in range(count)
  ]


def _resampled(texts, counts):
  return [t for t, n in zip(texts, counts, strict=True) for _ in range(n)]


def test_draws_are_resamples_and_the_same_for_the_same_seed():
  counts = bootstrap.draws(7, 500, 3)
  assert counts.shape == (500, 7)
  assert (counts.sum(1) == 7).all() and counts.min() >= 0
  np.testing.assert_array_equal(counts, bootstrap.draws(7, 500, 3))
  assert (counts != bootstrap.draws(7, 500, 4)).any()
  # Multinomial: mean 1 and variance 6 / 7 per example.
  np.testing.assert_allclose(counts.mean(0), 1, atol=0.15)
  np.testing.assert_allclose(counts.var(0), 6 / 7, atol=0.2)


@pytest.mark.parametrize('metric', [metrics.bleu, metrics.chrf, metrics.rouge])
def test_replicates_are_the_metric_on_resampled_texts(metric):
  targets, predictions = _texts(0), _texts(1)
  counts = bootstrap.draws(12, 25, 0)
  found = bootstrap.quality([metric], targets, predictions, counts)
  names = set(metric(targets, predictions)) - {'bleu_signature'}
  assert set(found) == names - {'chrf_signature'}
  for r, count in enumerate(counts):
    again = metric(_resampled(targets, count), _resampled(predictions, count))
    for name, replicates in found.items():
      if metric is metrics.rouge:  # Added up in another order.
        assert replicates[r] == pytest.approx(again[name], rel=1e-12)
      else:
        assert replicates[r] == again[name]
  assert all(len(set(replicates)) > 10 for replicates in found.values())


@pytest.mark.parametrize('name', ['bleu', 'chrf'])
def test_replicates_are_those_of_sacrebleu_s_own_bootstrap(name):
  targets, predictions = _texts(2), _texts(3)
  metric = {'bleu': BLEU, 'chrf': CHRF}[name]()
  stats = metric._extract_corpus_statistics(predictions, [targets])
  seed, theirs = significance._bootstrap_resample(stats, metric, 30)
  drawn = np.random.default_rng(int(seed)).choice(12, (30, 12))
  counts = np.array([np.bincount(chosen, minlength=12) for chosen in drawn])
  metric_fn = getattr(metrics, name)
  ours = bootstrap.quality([metric_fn], targets, predictions, counts)
  # Theirs are added in float32.
  scores = [float(score.score) for score in theirs]
  assert ours[name] == pytest.approx(scores, rel=1e-5)
  assert len(set(scores)) > 20


def _plain(targets, predictions):
  equal = [t == p for t, p in zip(targets, predictions, strict=True)]
  return {'equal': 100 * sum(equal) / len(equal), 'equal_signature': 'v1'}


def test_a_plain_metric_is_resampled_on_request_alone():
  targets, predictions = list('aabbcc'), list('axbxcx')
  counts = bootstrap.draws(6, 40, 0)
  arguments = ([_plain, metrics.chrf], targets, predictions, counts)
  assert set(bootstrap.quality(*arguments)) == {'chrf'}
  found = bootstrap.quality(*arguments, recompute=True)
  assert set(found) == {'equal', 'chrf'}
  right = counts[:, ::2].sum(1) / 6
  assert found['equal'] == pytest.approx(list(100 * right))


def test_a_metric_that_some_replicate_does_not_define_has_none():
  def undefined(targets, predictions):
    return {'share': 1.0 if 'a' in targets else float('nan')}

  counts = bootstrap.draws(4, 200, 0)
  assert (
    bootstrap.quality([undefined], 'abbb', list('abbb'), counts, recompute=True)
    == {}
  )


def _mean_metric():
  @metrics.statistics_of(
    lambda targets, predictions: metrics.Statistics(
      np.array(predictions)[:, None], lambda sums, n: {'mean': sums[0] / n}
    )
  )
  def mean(targets, predictions):
    return {'mean': float(np.mean(predictions))}

  return mean


def test_intervals_cover_the_truth_nineteen_times_in_twenty():
  random = np.random.default_rng(0)
  counts = bootstrap.draws(80, 300, 0)
  trials, hits, widths = 400, 0, []
  for values in random.normal(3.0, 2.0, [trials, 80]):
    found = bootstrap.quality([_mean_metric()], values, values, counts)
    low, high = bootstrap.interval(found['mean'])
    hits += low <= 3.0 <= high
    widths.append(high - low)
  # A little less than 95 %, as percentile intervals of 80 values are.
  assert 0.91 < hits / trials < 0.98
  assert np.mean(widths) == pytest.approx(2 * 1.96 * 2 / np.sqrt(80), rel=0.06)


def test_trials_narrow_the_interval_by_what_they_sample():
  """The mean of two trials' replicates has both kinds of spread."""
  random = np.random.default_rng(1)
  counts = bootstrap.draws(2000, 600, 0)
  examples = random.normal(0, 1.0, 2000)
  trials = examples + random.normal(0, 2.0, [2, 2000])
  replicates = [
    bootstrap.quality([_mean_metric()], trial, trial, counts)['mean']
    for trial in trials
  ]
  low, high = bootstrap.interval(np.mean(replicates, axis=0))
  expected = 2 * 1.96 * np.sqrt((1.0 + 4.0 / 2) / 2000)
  assert high - low == pytest.approx(expected, rel=0.1)


def test_a_paired_ratio_forgets_what_is_common():
  random = np.random.default_rng(2)
  verifier = random.uniform(10, 100, 60)
  counts = bootstrap.draws(60, 400, 0)
  assert set(
    bootstrap.rounded(bootstrap.ratio(verifier / 4, verifier, counts))
  ) == {0.25}
  method = verifier * random.normal(0.5, 0.05, 60)
  low, high = bootstrap.interval(bootstrap.ratio(method, verifier, counts))
  assert low < 0.5 < high and high - low < 0.06


def test_the_interval_is_the_middle_ninety_five_percent():
  assert bootstrap.interval([*range(41)]) == [1.0, 39.0]
  assert bootstrap.interval([]) is None
  assert bootstrap.rounded([1 / 3, 20.0]) == [0.333333, 20.0]


def test_no_replicates_are_no_intervals():
  counts = bootstrap.draws(3, 0, 0)
  assert bootstrap.quality([metrics.bleu], ['a'] * 3, ['a'] * 3, counts) == {}
  assert bootstrap.ratio(np.ones(3), np.ones(3), counts) == []
