"""Calibrated confidences: they move the rule, and nothing that is sampled."""

import functools

import jax
import numpy as np
import pytest

import speccascade_jax as sc
from speccascade_jax import deferral
from speccascade_jax.decoding import sequence_cascade
from speccascade_jax.decoding import speculative
from speccascade_jax.decoding import token_cascade
from speccascade_jax.evaluation import methods
from speccascade_jax.models import tabular
from tests.decoding import cascade_laws_test as cascades
from tests.decoding import laws_test as laws
from tests.references import rules as naive_rules
from tests.references import sampler

TEMPERATURES = (2.5, 0.6)


def law(rule, alpha, temperatures, row):
  """The sequential law, with the confidences' own softmax."""
  models = laws.naive_models(laws.Case(), row)

  def pi(text):
    q, p, q_conf, p_conf = models(text)
    confidences = (
      laws.scaled(probs, at)
      for probs, at in zip((q_conf, p_conf), temperatures, strict=True)
    )
    return rule(q, p, *confidences, alpha)

  return sampler.sequential_law(pi, laws.LENGTH, laws.EOS)


@pytest.mark.parametrize(
  ('decode', 'rule', 'alpha'),
  [
    (functools.partial(speculative.decode, gamma=2), deferral.opt, 0.1),
    (functools.partial(speculative.decode, gamma=3), deferral.token_v1, 0.1),
    (token_cascade.decode, deferral.chow, 0.55),
    (cascades.oracle, deferral.diff_log, 0.1),
  ],
  ids=['opt', 'token_v1', 'token_cascade', 'oracle'],
)
def test_the_rule_sees_calibrated_confidences(decode, rule, alpha):
  naive = naive_rules.RULES[rule.__name__]
  calibrated = functools.partial(law, naive, alpha, TEMPERATURES)
  plain = functools.partial(law, naive, alpha, (1.0, 1.0))
  # Either of the models' temperatures would be missed, but in a token cascade,
  # whose rule never sees the verifier.
  partly = [(1.0, 1.0), (1.0, TEMPERATURES[1])]
  partly += [(TEMPERATURES[0], 1.0)] * (decode is not token_cascade.decode)
  for wrong in partly:
    other = functools.partial(law, naive, alpha, wrong)
    distances = (sampler.distance(calibrated(i), other(i)) for i in range(3))
    assert max(distances) > 0.01, wrong
  run = functools.partial(cascades.texts_of, decode, rule=rule, alpha=alpha)
  cascades.check(calibrated, run(confidence_temperatures=TEMPERATURES))
  cascades.check(plain, run(confidence_temperatures=(1.0, 1.0)))


def decoded(decode, **options):
  return decode(
    *(tabular.step_model(laws.V), tabular.step_model(laws.V)),
    *(*laws.tables(False), laws.INPUTS),
    jax.random.split(jax.random.key(3), 3),
    max_length=laws.LENGTH,
    **options,
  )


def test_bild_drafts_as_far_as_its_calibrated_confidence_goes():
  counters = [
    decoded(
      speculative.decode,
      **cascades.BILD,
      fallback=0.3,
      confidence_temperatures=(drafter, 1.0),
    ).counters
    # Of 4 tokens the likeliest has 1/4 when all are equally likely.
    for drafter in (1e-3, 1e3)
  ]
  assert (counters[0].drafted == 3 * counters[0].verifier_calls).all()
  assert (counters[1].drafted == 0).all()


def test_a_sequence_cascade_goes_by_its_calibrated_confidence():
  calls = [
    decoded(
      sequence_cascade.decode,
      alpha=0.7,
      quantile=0.0,
      scaling=sc.distributions.Scaling(greedy=True),
      confidence_temperatures=(drafter, 1.0),
    ).counters.verifier_calls
    for drafter in (1e-3, 1e3)
  ]
  assert (calls[0] == 0).all()
  assert (calls[1] > 0).all()


@pytest.mark.parametrize('bad', [(1.0,), (1.0, 0.0), (np.inf, 1.0), ('a', 1.0)])
def test_temperatures_that_cannot_be_are_refused(bad):
  with pytest.raises(ValueError, match='confidence_temperatures must be'):
    decoded(
      speculative.decode,
      **cascades.BILD,
      confidence_temperatures=bad,
    )
  with pytest.raises(ValueError, match='confidence_temperatures must be'):
    methods.Method(rule=sc.opt, alphas=(0.1,), confidence_temperatures=bad)


def test_a_calibrated_method_is_a_run_of_its_own():
  plain, calibrated = methods.expand(
    [
      methods.Method(rule=sc.opt, alphas=(0.1,), confidence_temperatures=at)
      for at in (None, (1.5, 1))
    ],
    gammas=(3,),
    temperatures=(0.0,),
  )
  assert calibrated.label == f'{plain.label}, calibrated'
  assert 'confidence_temperatures' not in plain.config()
  assert calibrated.config()['confidence_temperatures'] == (1.5, 1.0)
  assert calibrated.key({}) != plain.key({})
  assert calibrated.company() == plain.company()
  assert calibrated.program() != plain.program()
  with pytest.raises(ValueError, match='decodes alone'):
    methods.Method(model='verifier', confidence_temperatures=(1.0, 2.0))


def test_a_pair_takes_them():
  pair = sc.load_pair('debian')
  source = ['translate English to German: It is a text editor.']
  arguments = dict(rule=sc.chow, alpha=0.5, max_length=24)
  deferral_rates = [
    pair.generate(source, **arguments, confidence_temperatures=at).stats[
      'deferral_rate'
    ][0]
    for at in (None, (1.0, 1.0), (5.0, 1.0))
  ]
  assert deferral_rates[0] == deferral_rates[1] < deferral_rates[2]
  with pytest.raises(ValueError, match='decodes alone'):
    pair.generate(source, model='drafter', confidence_temperatures=(1.0, 1.0))


def test_a_truncation_cuts_what_is_sampled_and_no_confidence():
  # top-1 leaves one token; the confidence stays that of all four, which at a
  # high temperature is 1/4.
  def deferred(at, scaling):
    counters = decoded(
      speculative.decode,
      rule=deferral.chow,
      alpha=0.7,
      gamma=2,
      scaling=scaling,
      confidence_temperatures=(at, 1.0),
    ).counters
    return counters.deferred.sum()

  for scaling in (
    sc.distributions.Scaling(top_k=1),
    sc.distributions.Scaling(min_p=0.9),
  ):
    assert deferred(1e-3, scaling) == 0
    assert deferred(1e3, scaling) > 0
