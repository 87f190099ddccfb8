"""Token cascades and BiLD, greedily, against naive loops; and their calls."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax.decoding import sequence_cascade
from speccascade_jax.decoding import speculative
from speccascade_jax.decoding import token_cascade
from speccascade_jax.models import tabular
from tests.references import loops as naive

V, EOS, LENGTH = 5, 1, 21
GREEDY = distributions.Scaling(greedy=True)
INPUTS = jnp.array([[2, 3, 4], [3, 0, 0], [4, 4, 0], [2, 2, 0]])
KEYS = jax.random.split(jax.random.key(7), len(INPUTS))
both_styles = pytest.mark.parametrize('decoder_only', [False, True])


def tables(seed):
  """Verifier of order 3: much of what it missed matters to it."""
  verifier = tabular.init_params(jax.random.key(seed), V, 3, 3, 2.0)
  other = tabular.init_params(jax.random.key(seed + 50), V, 3, 3, 2.0)
  drafter = 0.6 * verifier + 0.4 * other
  return [table.at[..., EOS].add(-2.0) for table in (drafter, verifier)]


def naive_models(params, row, decoder_only):
  ids = [int(i) for i in INPUTS[row]]
  prompt = tuple(i for i in ids if i) if decoder_only else (0,)
  condition = 0 if decoder_only else sum(ids) % 3
  return lambda text: tuple(
    tabular.next_probs(t, prompt + text, condition).tolist() for t in params
  )


def assert_as_naive(out, row, expected):
  n = int(out.lengths[row])
  assert out.tokens[row, :n].tolist() == expected.text
  authors = ''.join('-DRV'[code] for code in out.provenance[row, :n].tolist())
  assert authors == expected.authors
  for name in ('drafter_steps', 'verifier_calls', 'drafted'):
    counted = getattr(out.counters, name)[row]
    assert counted == getattr(expected, name), name


@both_styles
@pytest.mark.parametrize('alpha', [0.2, 0.45])
def test_token_cascade_is_the_naive_loop(decoder_only, alpha):
  model = tabular.step_model(V, decoder_only)
  authors, lengths = '', set()
  for seed in range(3):
    params = tables(seed)
    out = token_cascade.decode(
      model,
      model,
      *params,
      INPUTS,
      KEYS,
      alpha,
      rule=deferral.chow,
      max_length=LENGTH,
      scaling=GREEDY,
    )
    for row in range(len(INPUTS)):
      expected = naive.token_cascade(
        naive_models(params, row, decoder_only),
        lambda q: max(q) < 1 - alpha,
        LENGTH,
        EOS,
      )
      assert_as_naive(out, row, expected)
      authors += expected.authors + ' '
      lengths.add(len(expected.text))
  # Backlogs of one and of several tokens, and rows of several lengths.
  assert 'VV' in authors and 'DDV' in authors and len(lengths) > 2


@both_styles
@pytest.mark.parametrize(
  ('fallback', 'rollback'), [(0.0, 1.0), (0.5, 1.5), (0.7, 0.4), (1.1, 1.0)]
)
def test_bild_is_the_naive_loop(decoder_only, fallback, rollback):
  model = tabular.step_model(V, decoder_only)
  authors = ''
  for seed in range(3):
    params = tables(seed)
    out = speculative.decode(
      model,
      model,
      *params,
      INPUTS,
      KEYS,
      rollback,
      rule=deferral.bild_fixed,
      gamma=4,
      max_length=LENGTH,
      scaling=GREEDY,
      fallback=fallback,
    )
    for row in range(len(INPUTS)):
      models = naive_models(params, row, decoder_only)
      expected = naive.bild(models, fallback, rollback, 4, LENGTH, EOS)
      assert_as_naive(out, row, expected)
      authors += expected.authors
  assert set(authors) == set('V' if fallback > 1 else 'DRV')


def counting(model, calls):
  """The model, which notes the width of every call that is really made."""

  def extend(params, cache, tokens, lengths):
    jax.debug.callback(lambda: calls.append(tokens.shape[1]))
    return model.extend(params, cache, tokens, lengths)

  return dataclasses.replace(model, extend=extend)


def test_one_row_costs_what_its_counters_say():
  model = tabular.step_model(V)
  drafter_calls, verifier_calls = [], []
  run = functools.partial(
    speculative.decode,
    counting(model, drafter_calls),
    counting(model, verifier_calls),
    *tables(1),
    INPUTS[:1],
    KEYS[:1],
    gamma=6,
    max_length=LENGTH,
    scaling=GREEDY,
  )
  out = run(1.5, rule=deferral.bild_fixed, fallback=0.5)
  jax.effects_barrier()
  assert len(drafter_calls) == out.counters.drafter_steps[0]
  assert len(verifier_calls) == out.counters.verifier_calls[0]
  assert len(drafter_calls) < 7 * len(verifier_calls)  # It did stop early.


def test_a_token_cascade_calls_the_verifier_where_a_row_defers():
  model = tabular.step_model(V)
  drafter_calls, calls = [], []
  out = token_cascade.decode(
    counting(model, drafter_calls),
    counting(model, calls),
    *tables(1),
    INPUTS[:1],
    KEYS[:1],
    0.45,
    rule=deferral.chow,
    max_length=LENGTH,
    scaling=GREEDY,
  )
  jax.effects_barrier()
  n = int(out.lengths[0])
  deferred = np.flatnonzero(np.asarray(out.provenance[0, :n]) == 3)
  assert 0 < len(deferred) < n
  backlog = np.diff(deferred, prepend=-1)
  widths = [next(w for w in (1, 4, 16, LENGTH) if w >= b) for b in backlog]
  assert calls == widths
  assert len(set(widths)) > 1
  assert len(drafter_calls) == n == out.counters.drafter_steps[0]


def test_widths_end_with_the_longest_text():
  for longest in (1, 2, 4, 5, 16, 80, 128):
    widths = token_cascade._widths(longest)
    assert widths[0] == 1 and widths[-1] == longest
    assert widths == sorted(set(widths))


def test_the_verifier_rests_where_every_draft_is_kept():
  model = tabular.step_model(V)
  calls = []
  out = sequence_cascade.decode(
    model,
    counting(model, calls),
    *tables(1),
    INPUTS,
    KEYS,
    1.0,
    max_length=8,
  )
  jax.effects_barrier()
  assert calls == []
  assert not np.asarray(out.counters.verifier_calls).any()


@pytest.mark.parametrize('quantile', [None, 0.0, 0.3, 0.5, 1.0])
def test_confidence_is_that_of_the_text_alone(quantile):
  probs = np.random.default_rng(0).uniform(0.01, 1, (4, 6)).astype(np.float32)
  lengths = np.array([1, 2, 5, 6])
  found = sequence_cascade.confidence(
    jnp.where(np.arange(6) < lengths[:, None], probs, jnp.nan),
    jnp.asarray(lengths),
    quantile,
  )
  for row, n in enumerate(lengths):
    logs = np.log(probs[row, :n].astype(np.float64))
    expected = logs.mean() if quantile is None else np.quantile(logs, quantile)
    np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-6)


def test_a_rule_that_does_not_say_what_it_defers_is_refused():
  def bare(q, p, q_conf, p_conf, alpha):
    return 0.5 * q + 0.5 * p

  for rule in (deferral.lossy, deferral.lossy_exact, bare):
    for check in (deferral.check_defers, deferral.check_drafter_decides):
      with pytest.raises(ValueError, match='how much it defers'):
        check(rule)

  def squared(q, p, q_conf, p_conf, alpha):
    pi = 0.5 * q + 0.5 * p**2 / (p**2).sum(-1, keepdims=True).clip(1e-9)
    return base.Target(pi=pi, deferral=jnp.full(q.shape[:-1], 0.5))

  deferral.check_defers(squared)
  with pytest.raises(ValueError, match='pi of squared is not some of q plus'):
    deferral.check_drafter_decides(squared)
  for rule in (deferral.chow, deferral.chow_log, deferral.ensemble):
    deferral.check_drafter_decides(rule)
    deferral.check_drafter_decides(jax.jit(rule))
  with pytest.raises(ValueError, match='p_conf to decide'):
    deferral.check_drafter_decides(jax.jit(deferral.diff))


def test_a_rule_may_hold_arrays_of_the_vocabulary():
  favoured = jnp.where(jnp.arange(V) == 3, 0.5, 0.0)

  def biased_chow(q, p, q_conf, p_conf, alpha):
    defer = (q_conf + favoured).max(-1) < 1 - alpha
    return deferral.mix(q, p, defer)

  model = tabular.step_model(V)
  out = token_cascade.decode(
    model,
    model,
    *tables(1),
    INPUTS,
    KEYS,
    0.4,
    rule=biased_chow,
    max_length=4,
    scaling=distributions.Scaling(greedy=True),
  )
  assert (np.asarray(out.lengths) > 0).all()


def test_a_rule_is_tried_once_and_not_at_every_call():
  tried = []

  def counted(q, p, q_conf, p_conf, alpha):
    tried.append(alpha)
    return deferral.chow(q, p, q_conf, p_conf, alpha)

  deferral.check_drafter_decides(counted)
  first = len(tried)
  deferral.check_drafter_decides(counted)
  assert first and len(tried) == first


def test_a_rule_that_needs_the_verifier_is_refused():
  model = tabular.step_model(V)
  with pytest.raises(ValueError, match='diff reads p_conf to decide'):
    token_cascade.decode(
      model,
      model,
      *tables(1),
      INPUTS,
      KEYS,
      0.1,
      rule=deferral.diff,
      max_length=4,
    )
