"""The cost model by hand: what every way of decoding is charged for."""

import pytest

from speccascade_jax import deferral
from speccascade_jax import loops
from speccascade_jax.decoding import token_cascade
from speccascade_jax.evaluation import cost_model
from speccascade_jax.evaluation import methods

TIMES = {
  'drafter_start': 1.0,
  'verifier_start': 5.0,
  'drafter_1': 0.5,
  'verifier_1': 2.0,
  'verifier_4': 2.7,
  'verifier_5': 3.0,
  'verifier_16': 6.0,
  'verifier_20': 7.0,
}


def _point(**method):
  (point,) = methods.expand(
    [methods.Method(**method)], gammas=(4,), temperatures=(0.0,)
  )
  return point


VERIFIER = _point(model='verifier')
LOSSLESS = _point(rule=deferral.verifier_only)
TOKEN = _point(method='token_cascade', rule=deferral.chow, alphas=(0.5,))
ORACLE = _point(method='oracle_cascade', rule=deferral.diff, alphas=(0.1,))
SEQUENCE = _point(method='sequence_cascade', alphas=(0.5,))
BILD = _point(method='bild', alphas=(2.0,))


def _cost(point, steps=0, calls=0, tokens=20):
  row = {
    'drafter_steps': steps,
    'verifier_calls': calls,
    'output_tokens': tokens,
  }
  return cost_model.milliseconds(row, point, TIMES, max_length=20)


@pytest.mark.parametrize(
  ('point', 'counted', 'expected'),
  [
    (VERIFIER, dict(calls=8), 5 + 8 * 2.0),
    (_point(model='drafter'), dict(steps=8), 1 + 8 * 0.5),
    # Blocks: the verifier scores gamma + 1 tokens a call.
    (LOSSLESS, dict(steps=10, calls=2), 6 + 10 * 0.5 + 2 * 3.0),
    # BiLD as well, however few of them were drafted.
    (BILD, dict(steps=6, calls=2), 6 + 6 * 0.5 + 2 * 3.0),
    (ORACLE, dict(steps=20, calls=20), 6 + 20 * 0.5 + 20 * 2.0),
    # 20 tokens in as many calls, in 6, in 5 and in 1.
    (TOKEN, dict(steps=20, calls=20), 6 + 20 * 0.5 + 20 * 2.0),
    (TOKEN, dict(steps=20, calls=6), 6 + 20 * 0.5 + 6 * 2.7),
    (TOKEN, dict(steps=20, calls=5), 6 + 20 * 0.5 + 5 * 2.7),
    (TOKEN, dict(steps=20, calls=4), 6 + 20 * 0.5 + 4 * 6.0),
    (TOKEN, dict(steps=20, calls=1), 6 + 20 * 0.5 + 1 * 7.0),
    (TOKEN, dict(steps=20), 6 + 20 * 0.5),
    # The draft, and a whole text of the verifier's where it was thrown away.
    (SEQUENCE, dict(steps=12, calls=15), 6 + 12 * 0.5 + 15 * 2.0),
    (SEQUENCE, dict(steps=12), 1 + 12 * 0.5),
  ],
)
def test_cost_by_hand(point, counted, expected):
  assert _cost(point, **counted) == pytest.approx(expected)


def test_a_truncation_costs_nothing():
  for point, truncated in (
    (VERIFIER, _point(model='verifier', truncation='eta', alphas=(0.1,))),
    (
      LOSSLESS,
      _point(rule=deferral.verifier_only, truncation='min_p', alphas=(0.1,)),
    ),
  ):
    assert _cost(truncated, 3, 7) == _cost(point, 3, 7)


def test_widths_are_those_that_the_methods_call():
  def widths(*points):
    return cost_model.widths(points, max_length=20)

  assert widths(VERIFIER) == widths(ORACLE) == widths(SEQUENCE) == [1]
  assert widths(VERIFIER, LOSSLESS) == widths(BILD) == [1, 5]
  assert widths(TOKEN, LOSSLESS) == [1, 4, 5, 16, 20]
  assert cost_model.covers(TIMES, [TOKEN, LOSSLESS], max_length=20)
  assert not cost_model.covers(TIMES, [TOKEN], max_length=30)


@pytest.mark.parametrize('longest', [1, 2, 4, 5, 16, 17, 80, 1000])
def test_catch_up_widths_are_the_loop_s(longest):
  widths = token_cascade._widths(longest)
  assert cost_model.catch_up_widths(longest) == widths
  assert all(any(k >= share for k in widths) for share in (1, longest))


def test_every_loop_is_priced():
  # A new one is to be thought of in the cost model, and then here.
  assert set(loops.LOOPS) == {
    p.method for p in (LOSSLESS, TOKEN, ORACLE, SEQUENCE, BILD)
  }
