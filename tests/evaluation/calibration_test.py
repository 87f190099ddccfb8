import numpy as np
import pytest

from speccascade_jax.evaluation import bootstrap
from speccascade_jax.evaluation import calibration
from tests.references import calibration as naive

NONE = np.zeros((0, 1), int)


def _judged(confidence, correct, tokens=None):
  confidence = np.asarray(confidence, float)
  return calibration.Judged(
    temperatures=(1.0,),
    tokens=np.array(tokens or [len(confidence)]),
    truncated=np.zeros(len(tokens or [1]), bool),
    surprisal=np.full((len(tokens or [1]), 1), 2.0),
    confidence=confidence[None],
    correct=np.asarray(correct, bool),
  )


def test_the_error_by_hand():
  #        (0, 1/2]             (1/2, 1]
  sure = [0.1, 0.4, 0.5] + [0.9, 1.0]
  right = [False, True, False] + [True, False]
  # | 1/3 - 1/3 | 3/5 + | 1/2 - 0.95 | 2/5
  found, _ = calibration.reliability(_judged(sure, right), 0, NONE, bins=2)
  assert found['ece'] == pytest.approx(0.4 * 0.45)
  assert [b['tokens'] for b in found['bins']] == [3, 2]
  assert found['bins'][1] == {
    **{'low': 0.5, 'high': 1.0, 'tokens': 2},
    **{'confidence': pytest.approx(0.95), 'accuracy': 0.5},
  }
  assert found['accuracy'] == pytest.approx(0.4)
  assert found['confidence'] == pytest.approx(0.58)
  assert found['surprisal'] == pytest.approx(0.4)  # 2 nats over 5 tokens.
  assert found['ece_interval'] is None


def test_bins_of_equal_mass_by_hand():
  sure, right = [0.9, 0.92, 0.94, 0.96], [True, False, True, True]
  # | 1/2 - 0.91 | 2/4 + | 1 - 0.95 | 2/4; bins of equal width are one bin.
  found, _ = calibration.reliability(_judged(sure, right), 0, NONE, bins=2)
  assert found['ece_equal_mass'] == pytest.approx(0.205 + 0.025)
  assert found['ece'] == pytest.approx(0.93 - 0.75)


@pytest.mark.parametrize('bins', [2, 7, 15])
def test_the_error_against_a_naive_reference(bins):
  rng = np.random.default_rng(bins)
  sure = rng.uniform(size=400)
  sure[:4] = [0.0, 1.0, 1 / bins, 2 / bins]  # Edges belong to the lower bin.
  right = rng.uniform(size=400) < sure**2
  found, _ = calibration.reliability(_judged(sure, right), 0, NONE, bins)
  expected = naive.expected_error(sure, right, bins)
  assert expected > 0.1
  assert found['ece'] == pytest.approx(expected, abs=1e-12)


def test_replicates_are_those_of_texts_drawn_anew():
  rng = np.random.default_rng(0)
  tokens = [5, 1, 9, 4]
  sure = rng.uniform(size=sum(tokens))
  right = rng.uniform(size=len(sure)) < 0.5
  counts = bootstrap.draws(4, 6, seed=1)
  found, replicates = calibration.reliability(
    _judged(sure, right, tokens), 0, counts, bins=3
  )
  texts = np.split(np.arange(len(sure)), np.cumsum(tokens)[:-1])
  for row, replicate in zip(counts, replicates, strict=True):
    drawn = np.concatenate([texts[i] for i in np.repeat(np.arange(4), row)])
    expected = naive.expected_error(sure[drawn], right[drawn], 3)
    assert replicate == pytest.approx(expected, abs=1e-12)
  assert found['ece_interval'] == bootstrap.interval(replicates)
  assert len({round(r, 6) for r in replicates}) > 1


def _curve(temperature, texts=3):
  """Surprisals `[E, K]` whose sum is least at `temperature`."""
  at = np.log(np.array(calibration.GRID) / temperature)
  return np.outer(np.arange(1, texts + 1), at**2 + 0.1 * at**4 + 1.0)


def _fit(surprisal, replicates=0):
  texts = len(surprisal)
  judged = calibration.Judged(
    temperatures=calibration.GRID,
    tokens=np.full(texts, 10),
    truncated=np.zeros(texts, bool),
    surprisal=surprisal,
    confidence=np.zeros((33, 0)),
    correct=np.zeros(0, bool),
  )
  return calibration.fit(judged, bootstrap.draws(texts, replicates, 0))


@pytest.mark.parametrize('temperature', [0.3, 0.97, 1.0, 2.345])
def test_the_minimum_between_the_points_of_the_grid(temperature):
  found = _fit(_curve(temperature))
  assert found.temperature == pytest.approx(temperature, rel=1e-3)
  assert found.interval is None


def test_the_interval_of_texts_that_disagree():
  mixed = np.concatenate([_curve(0.8), _curve(1.5)])
  found = _fit(mixed, replicates=200)
  low, high = found.interval
  assert 0.79 < low < found.temperature - 0.05
  assert found.temperature + 0.05 < high < 1.51


@pytest.mark.parametrize(
  ('temperature', 'said'), [(0.1, 'temperature 0.25'), (9.0, 'temperature 4,')]
)
def test_a_minimum_at_the_end_of_the_grid_is_refused(temperature, said):
  with pytest.raises(ValueError, match='an end of what was tried') as raised:
    _fit(_curve(temperature))
  assert said in str(raised.value)
