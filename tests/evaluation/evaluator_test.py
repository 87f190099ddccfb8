import jax
import numpy as np
import pytest

from speccascade_jax.evaluation import evaluator
from speccascade_jax.evaluation import scoring
from tests.evaluation import scripted


def _evaluate(generator, batch_size, count=5):
  return evaluator.evaluate(
    generator,
    scripted.examples(count),
    [scripted.agreement],
    batch_size=batch_size,
    model='verifier',
    temperature=0.0,
    key=jax.random.key(0),
  )


def test_batches_have_one_shape_and_results_the_examples_order():
  generator = scripted.Scripted()
  found = _evaluate(generator, batch_size=2)
  assert [c['row_ids'] for c in generator.calls] == [
    [3, 10],
    [17, 24],
    [31, 31],
  ]
  assert [p.split()[-1] for p in found.predictions] == list('01234')
  np.testing.assert_array_equal(found.lengths, [7, 14, 21, 28, 35])
  np.testing.assert_array_equal(found.stats['drafter_steps'][:2], [5, 12])
  assert found.quality == {'agreement': 100.0}
  assert found.signatures == {'agreement': 'ends|v1'}


@pytest.mark.parametrize('batch_size', [1, 3, 5, 8])
def test_the_batch_size_changes_nothing(batch_size):
  found = _evaluate(scripted.Scripted(), batch_size)
  expected = _evaluate(scripted.Scripted(), 2)
  assert found.predictions == expected.predictions
  assert found.quality == expected.quality
  assert all(
    (found.stats[k] == expected.stats[k]).all() for k in expected.stats
  )


@pytest.mark.parametrize(
  ('batch_size', 'count', 'named'), [(0, 5, 'batch_size is 0'), (2, 0, 'no ')]
)
def test_bad_settings_are_refused(batch_size, count, named):
  with pytest.raises(ValueError, match=named):
    _evaluate(scripted.Scripted(), batch_size, count)


def test_scores_of_two_metrics_are_merged():
  quality, signatures = scoring.score(
    [scripted.agreement, lambda targets, predictions: {'n': len(targets)}],
    ['a', 'b'],
    ['a', 'c'],
  )
  assert quality == {'agreement': 50.0, 'n': 2.0}
  assert signatures == {'agreement': 'ends|v1'}


def test_ambiguous_and_unusable_metrics_are_refused():
  with pytest.raises(ValueError, match="'agreement'"):
    scoring.score([scripted.agreement] * 2, ['a'], ['a'])
  with pytest.raises(TypeError, match="'curve'"):
    scoring.score([lambda t, p: {'curve': [1]}], ['a'], ['a'])
  with pytest.raises(ValueError, match='2 targets but 1 predictions'):
    scoring.score([], ['a', 'b'], ['a'])
