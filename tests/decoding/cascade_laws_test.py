"""The laws of the cascades, of BiLD and of truncated verifiers, by chi-square.

As in `laws_test`, which has the models and the statistics.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax import verification
from speccascade_jax.decoding import sequence_cascade
from speccascade_jax.decoding import speculative
from speccascade_jax.decoding import token_cascade
from speccascade_jax.models import tabular
from tests.decoding import laws_test as laws
from tests.references import blocks as naive_blocks
from tests.references import distributions as naive_distributions
from tests.references import rules as naive_rules
from tests.references import sampler

V, EOS, LENGTH, DRAWS = laws.V, laws.EOS, laws.LENGTH, laws.DRAWS
oracle = functools.partial(token_cascade.decode, oracle=True)


# What the loops take as traced numbers: one program serves all values.
TRACED = ('alpha', 'temperature', 'fallback', 'confidence_temperatures')


@functools.cache
def compiled(decode, step, rows, **options):
  """Many batches of a loop at once; the same one is compiled once."""
  tables = laws.tables(False)

  @jax.jit
  @functools.partial(jax.vmap, in_axes=(0, None))
  def run(keys, traced):
    out = decode(
      tabular.step_model(V),
      step,
      *tables,
      laws.INPUTS[jnp.array(rows)],
      keys,
      max_length=LENGTH,
      **traced,
      **options,
    )
    return out.tokens, out.lengths

  return run


def texts_of(decode, draws=DRAWS, rows=(0, 1, 2), step=None, **options):
  """`draws` texts, listed by row; many batches of the loop at once."""
  traced = {name: options.pop(name) for name in TRACED if name in options}
  run = compiled(decode, step or tabular.step_model(V), rows, **options)
  keys = jax.random.split(
    jax.random.key(9), (-(-draws // len(rows)), len(rows))
  )
  tokens, lengths = jax.device_get(run(keys, traced))
  return [laws.as_texts(tokens[:, i], lengths[:, i]) for i in range(len(rows))]


@pytest.fixture
def forget():
  """Compiles anew what a test breaks, and again what comes after it."""

  def clear():
    compiled.cache_clear()
    speculative._decode.clear_cache()
    sequence_cascade._decode.clear_cache()

  clear()
  yield
  clear()


def check(law, texts):
  for row, found in enumerate(texts):
    laws.assert_law(found, law(row))


def own_rule(q, p, q_conf, p_conf, alpha):
  """A rule on q alone that defers token by token."""
  del p_conf
  return deferral.mix_tokens(q, p, q_conf < alpha)


def naive_own_rule(q, p, q_conf, p_conf, alpha):
  eta = sum(a for a, x in zip(q, q_conf) if x < alpha)
  return [(x >= alpha) * a + b * eta for a, b, x in zip(q, p, q_conf)]


def cascade_law(rule, alpha, temperature, row):
  models = laws.naive_models(laws.Case(temperature=temperature), row)
  return sampler.sequential_law(
    lambda text: rule(*models(text), alpha), LENGTH, EOS
  )


@pytest.mark.parametrize(
  ('decode', 'rule', 'alpha', 'temperature'),
  [
    (token_cascade.decode, deferral.chow, 0.6, 1.0),
    (token_cascade.decode, deferral.chow_log, 1.1, 0.5),
    (token_cascade.decode, deferral.ensemble, 0.6, 1.0),
    (token_cascade.decode, own_rule, 0.25, 1.0),
    (oracle, deferral.diff, 0.1, 1.0),
    (oracle, deferral.token_v2, 0.2, 0.5),
    (oracle, deferral.opt, 0.3, 1.0),
  ],
  ids=lambda x: getattr(x, '__name__', None),
)
def test_a_token_cascade_has_the_sequential_law(
  decode, rule, alpha, temperature
):
  naive = naive_rules.RULES.get(rule.__name__, naive_own_rule)
  law = functools.partial(cascade_law, naive, alpha, temperature)
  for model in ('drafter', 'verifier'):
    only = naive_rules.RULES[f'{model}_only']
    end = functools.partial(cascade_law, only, 0, temperature)
    assert max(sampler.distance(law(i), end(i)) for i in range(3)) > 0.01
  check(
    law,
    texts_of(decode, rule=rule, alpha=alpha, temperature=temperature),
  )


@functools.cache
def forgetful():
  """A verifier that misses the first of several tokens that it is fed."""
  model = tabular.step_model(V)

  def extend(params, cache, tokens, lengths):
    if tokens.shape[1] > 1:
      tokens = tokens.at[:, 0].set(0)
    return model.extend(params, cache, tokens, lengths)

  return laws.dataclasses.replace(model, extend=extend)


def test_would_catch_a_catch_up_that_forgets_a_token():
  law = functools.partial(cascade_law, naive_rules.RULES['chow'], 0.6, 1.0)
  texts = texts_of(
    token_cascade.decode, rule=deferral.chow, alpha=0.6, step=forgetful()
  )
  with pytest.raises(AssertionError, match='chi-square|no probability'):
    check(law, texts)


def sequence_law(alpha, quantile, row):
  """The drafter's text where it is sure, else one of the verifier's own."""
  models = laws.naive_models(laws.Case(), row)
  q_law, p_law = (
    sampler.sequential_law(lambda text, i=i: models(text)[i], LENGTH, EOS)
    for i in (0, 1)
  )
  law, deferred = {}, 0.0
  for text, mass in q_law.items():
    log_probs = [
      np.log(models(text[:i])[2][token]) for i, token in enumerate(text)
    ]
    sure = (
      np.mean(log_probs)
      if quantile is None
      else np.quantile(log_probs, quantile)
    )
    if np.exp(sure) < 1 - alpha:
      deferred += mass
    else:
      law[text] = mass
  for text, mass in p_law.items():
    law[text] = law.get(text, 0.0) + deferred * mass
  return law, deferred


@pytest.mark.parametrize(
  ('quantile', 'alpha'), [(None, 0.65), (0.0, 0.8), (0.4, 0.7)]
)
def test_a_sequence_cascade_is_one_text_or_the_other(quantile, alpha):
  texts = texts_of(sequence_cascade.decode, alpha=alpha, quantile=quantile)
  expected = [sequence_law(alpha, quantile, row) for row in range(3)]
  assert any(0.05 < deferred < 0.95 for _, deferred in expected)
  check(lambda row: expected[row][0], texts)


def test_would_catch_a_verifier_that_draws_what_the_drafter_drew(
  monkeypatch, forget
):
  monkeypatch.setattr(
    sequence_cascade, '_own_keys', lambda keys: keys, raising=True
  )
  texts = texts_of(sequence_cascade.decode, alpha=0.65, rows=(0,))
  with pytest.raises(AssertionError, match='chi-square|no probability'):
    check(lambda row: sequence_law(0.65, None, row)[0], texts)


def bild_law(alpha, gamma, fallback, temperature, row):
  return naive_blocks.text_law(
    laws.naive_models(laws.Case(temperature=temperature), row),
    lambda q, p, p_conf: naive_blocks.bild(q, p, p_conf, alpha),
    gamma,
    LENGTH,
    EOS,
    fallback,
  )


BILD = dict(rule=deferral.bild_fixed, alpha=1.2, gamma=3)


@pytest.mark.parametrize('rows', [(0,), (0, 1, 2)], ids=['alone', 'batch'])
@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_bild_has_the_law_of_its_blocks(rows, temperature):
  law = functools.partial(bild_law, 1.2, 3, 0.5, temperature)
  full = functools.partial(bild_law, 1.2, 3, 0.0, temperature)
  assert max(sampler.distance(law(row), full(row)) for row in range(3)) > 0.01
  texts = texts_of(
    speculative.decode,
    rows=rows,
    temperature=temperature,
    fallback=0.5,
    **BILD,
  )
  check(law, texts)


def test_would_catch_a_block_that_does_not_end_where_drafting_did(
  monkeypatch, forget
):
  def full(drafted, count, *judged):
    return verification.verify_tokens(drafted, *judged)

  monkeypatch.setattr(verification, 'verify_short', full)
  texts = texts_of(speculative.decode, fallback=0.5, **BILD)
  with pytest.raises(AssertionError, match='chi-square|no probability'):
    check(functools.partial(bild_law, 1.2, 3, 0.5, 1.0), texts)


def test_stopping_early_does_not_change_the_law_of_pi():
  law = functools.partial(cascade_law, naive_rules.RULES['opt'], 0.3, 1.0)
  texts = texts_of(
    speculative.decode, rule=deferral.opt, alpha=0.3, gamma=3, fallback=0.5
  )
  check(law, texts)


@pytest.mark.parametrize(
  'truncation',
  [{'top_k': 2}, {'top_p': 0.6}, {'min_p': 0.5}, {'eta': 0.3}],
  ids=str,
)
@pytest.mark.parametrize(
  'verify', [verification.verify_tokens, verification.verify_block]
)
def test_a_truncated_verifier_is_decoded_losslessly(truncation, verify):
  def law(row):
    models = laws.naive_models(laws.Case(), row)
    return sampler.sequential_law(
      lambda text: naive_distributions.scaled(
        np.log(models(text)[3]).tolist(), 1.0, **truncation
      ),
      LENGTH,
      EOS,
    )

  plain = cascade_law(naive_rules.RULES['verifier_only'], 0, 1.0, 0)
  assert sampler.distance(law(0), plain) > 0.01
  texts = texts_of(
    speculative.decode,
    rule=deferral.verifier_only,
    alpha=0.0,
    gamma=3,
    verify=verify,
    scaling=distributions.Scaling(**truncation),
  )
  check(law, texts)


def test_provenance_of_an_oracle_is_the_share_of_each_model():
  """A token of TokenV2 is the verifier's with odds `eta p(v) : pi(v)`."""
  out = jax.jit(
    lambda keys: oracle(
      tabular.step_model(V),
      tabular.step_model(V),
      *laws.tables(False),
      jnp.tile(laws.INPUTS[:1], (20_000, 1)),
      keys,
      0.2,
      rule=deferral.token_v2,
      max_length=1,
    )
  )(jax.random.split(jax.random.key(2), 20_000))
  q, p, q_conf, p_conf = laws.naive_models(laws.Case(), 0)(())
  defers = [x < max(p_conf) - 0.2 for x in p_conf]
  eta = sum(a for a, r in zip(q, defers) if r)
  assert 0.1 < eta < 0.9
  by_verifier = np.asarray(out.provenance[:, 0]) == base.Provenance.VERIFIER
  for token in range(V):
    share = by_verifier[np.asarray(out.tokens[:, 0]) == token]
    pi = (not defers[token]) * q[token] + p[token] * eta
    np.testing.assert_allclose(share.mean(), eta * p[token] / pi, atol=0.03)
