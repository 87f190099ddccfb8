"""The speculative loop: what it emits when nothing is random, and its books.

Its law under sampling is the subject of `laws_test`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax import verification
from speccascade_jax.decoding import autoregressive
from speccascade_jax.decoding import speculative
from speccascade_jax.models import protocol
from speccascade_jax.models import tabular

V = 5
GREEDY = distributions.Scaling(greedy=True)
INPUTS = jnp.array([[2, 3, 4], [3, 0, 0], [4, 4, 0]])
KEYS = jax.random.split(jax.random.key(7), 3)
VERIFIES = [verification.verify_tokens, verification.verify_block]


def params(seed, order=2, agree=0.0):
  """Two tables; `agree` of the drafter's comes from the verifier's."""
  make = lambda s: tabular.init_params(jax.random.key(s), V, order, 3, 2.0)
  verifier = make(seed)
  drafter = agree * verifier + (1 - agree) * make(seed + 1000)
  # EOS is made rare, so that texts reach over several blocks.
  return [table.at[..., 1].add(-1.0) for table in (drafter, verifier)]


def both_styles(test):
  return pytest.mark.parametrize('decoder_only', [False, True])(test)


def decode(drafter_params, verifier_params, model, **options):
  options = (
    dict(
      inputs=INPUTS,
      keys=KEYS,
      alpha=0.0,
      temperature=1.0,
      rule=deferral.verifier_only,
      gamma=3,
      max_length=12,
    )
    | options
  )
  return speculative.decode(
    model, model, drafter_params, verifier_params, **options
  )


def assert_same_text(actual, expected):
  np.testing.assert_array_equal(actual.lengths, expected.lengths)
  np.testing.assert_array_equal(actual.tokens, expected.tokens)


@both_styles
@pytest.mark.parametrize('verify', VERIFIES)
@pytest.mark.parametrize('gamma', [1, 2, 4])
def test_greedy_lossless_is_the_verifiers_greedy_text(
  decoder_only, verify, gamma
):
  model = tabular.step_model(V, decoder_only)
  rejected = 0
  for seed in range(4):
    drafter, verifier = params(seed, agree=0.6)
    expected = autoregressive.decode(
      model, verifier, INPUTS, KEYS, max_length=12, scaling=GREEDY
    )
    actual = decode(
      drafter, verifier, model, gamma=gamma, verify=verify, scaling=GREEDY
    )
    assert_same_text(actual, expected)
    rejected += int(actual.counters.resampled.sum())
  # The two models must disagree for this to mean anything.
  assert rejected > 0


@both_styles
@pytest.mark.parametrize('greedy', [False, True])
def test_never_deferring_keeps_every_draft(decoder_only, greedy):
  model = tabular.step_model(V, decoder_only)
  drafter, verifier = params(0)
  out = decode(
    drafter,
    verifier,
    model,
    rule=deferral.drafter_only,
    scaling=distributions.Scaling(greedy=greedy),
  )
  assert out.counters.resampled.tolist() == [0, 0, 0]
  assert out.counters.deferred.tolist() == [0, 0, 0]
  if greedy:
    alone = autoregressive.decode(
      model, drafter, INPUTS, KEYS, max_length=12, scaling=GREEDY
    )
    assert_same_text(out, alone)
    other = autoregressive.decode(
      model, verifier, INPUTS, KEYS, max_length=12, scaling=GREEDY
    )
    assert (other.tokens != alone.tokens).any()


def test_identical_models_keep_whole_blocks():
  model = tabular.step_model(V)
  _, verifier = params(3)
  verifier = verifier.at[..., 1].set(-1e9)  # No EOS: full length.
  out = decode(verifier, verifier, model, gamma=3, max_length=12)
  assert out.lengths.tolist() == [12] * 3
  assert out.counters.verifier_calls.tolist() == [3] * 3
  assert out.counters.drafter_steps.tolist() == [12] * 3
  assert out.counters.drafted.tolist() == [9] * 3
  assert out.counters.accepted.tolist() == [9] * 3
  expected = [base.Provenance.DRAFTER] * 3 + [base.Provenance.VERIFIER]
  assert out.provenance.tolist() == [expected * 3] * 3


@both_styles
def test_eos_inside_a_block_ends_the_row_there(decoder_only):
  """Both models spell 2 3 1 (EOS) and would go on with 4s behind it."""
  table = np.full((3, V + 1, V), -50.0, np.float32)
  table[:, :, 2] = 0.0
  table[:, 2] = [-50, -50, -50, 0, -50]
  table[:, 3] = [-50, 0, -50, -50, -50]
  table[:, 1] = [-50, -50, -50, -50, 0]
  table = jnp.asarray(table)
  model = tabular.step_model(V, decoder_only)
  inputs = jnp.array([[4], [4], [2]])
  out = decode(
    table, table, model, inputs=inputs, gamma=4, max_length=8, scaling=GREEDY
  )
  tail = [3, 1] if decoder_only else [2, 3, 1]
  for row, text in enumerate([[2, 3, 1], [2, 3, 1], tail]):
    assert out.tokens[row].tolist() == text + [0] * (8 - len(text))
    assert out.lengths[row] == len(text)
    # What was drafted behind the EOS is paid for, and counted nowhere else.
    assert out.counters.accepted[row] == len(text)
    assert out.counters.drafted[row] == 4


@pytest.mark.parametrize('max_length', [1, 2, 5, 7])
def test_length_limit_inside_a_block(max_length):
  model = tabular.step_model(V)
  drafter, verifier = params(5, agree=0.8)
  long = decode(drafter, verifier, model, max_length=12, scaling=GREEDY)
  short = decode(
    drafter, verifier, model, max_length=max_length, scaling=GREEDY
  )
  np.testing.assert_array_equal(short.tokens, long.tokens[:, :max_length])
  assert (short.lengths <= max_length).all()
  counters = short.counters
  by_verifier = (short.provenance == base.Provenance.VERIFIER).sum(axis=1)
  np.testing.assert_array_equal(
    counters.accepted + counters.resampled + by_verifier, short.lengths
  )


@both_styles
@pytest.mark.parametrize('verify', VERIFIES)
def test_a_row_alone_decodes_as_in_the_batch(decoder_only, verify):
  model = tabular.step_model(V, decoder_only)
  drafter, verifier = (t.at[..., 1].add(1.5) for t in params(11, agree=0.5))
  options = dict(rule=deferral.opt, alpha=0.3, verify=verify, trace=True)
  batch = decode(drafter, verifier, model, **options)
  assert len(set(batch.lengths.tolist())) > 1  # Rows end at different times.
  for row in range(3):
    # Without its padding, too: a narrower prompt must not change the text.
    width = int((INPUTS[row] != 0).sum())
    alone = decode(
      drafter,
      verifier,
      model,
      inputs=INPUTS[row : row + 1, :width],
      keys=KEYS[row : row + 1],
      **options,
    )
    jax.tree.map(
      lambda one, all_, row=row: np.testing.assert_allclose(
        one[0], all_[row], rtol=1e-6
      ),
      alone,
      batch,
    )


def test_tokens_of_the_books_are_the_tokens_of_the_text():
  model = tabular.step_model(V)
  drafter, verifier = params(2, agree=0.5)
  out = decode(drafter, verifier, model, rule=deferral.token_v3, alpha=0.4)
  for name, code in (
    ('accepted', base.Provenance.DRAFTER),
    ('resampled', base.Provenance.RESAMPLED),
  ):
    counted = getattr(out.counters, name)
    np.testing.assert_array_equal(counted, (out.provenance == code).sum(axis=1))
  past_end = np.arange(12) >= np.asarray(out.lengths)[:, None]
  assert (np.asarray(out.provenance == 0) == past_end).all()
  calls = np.asarray(out.counters.verifier_calls)
  np.testing.assert_array_equal(out.counters.drafter_steps, 4 * calls)
  np.testing.assert_array_equal(out.counters.drafted, 3 * calls)


@both_styles
def test_traced_probabilities_are_the_models_own(decoder_only):
  model = tabular.step_model(V, decoder_only)
  tables = params(8, agree=0.5)
  out = decode(
    *tables,
    model,
    rule=deferral.chow,
    alpha=0.5,
    trace=True,
    scaling=distributions.Scaling(top_k=3),
    temperature=0.7,
  )
  for row in range(3):
    prompt = [int(t) for t in INPUTS[row] if t] if decoder_only else [0]
    condition = 0 if decoder_only else int(INPUTS[row].sum() % 3)
    text = out.tokens[row, : out.lengths[row]].tolist()
    for i, token in enumerate(text):
      for table, traced in zip(
        tables, (out.drafter_probs, out.verifier_probs), strict=True
      ):
        law = tabular.next_probs(table, prompt + text[:i], condition)
        np.testing.assert_allclose(traced[row, i], law[token], rtol=1e-4)
    assert np.isnan(out.drafter_probs[row, len(text) :]).all()


def test_finished_batch_stops_early():
  """Calls are counted by the loop itself here: one callback a call."""
  model = tabular.step_model(V)
  calls = []

  def extend(params, cache, tokens, lengths):
    jax.debug.callback(lambda: calls.append(tokens.shape[1]))
    return model.extend(params, cache, tokens, lengths)

  counting = dataclasses.replace(model, extend=extend)
  _, verifier = params(0)
  verifier = verifier.at[..., 1].set(50.0)  # EOS at once.
  out = speculative.decode(
    model,
    counting,
    verifier,
    verifier,
    INPUTS,
    KEYS,
    0.0,
    rule=deferral.verifier_only,
    gamma=2,
    max_length=64,
  )
  jax.effects_barrier()
  assert out.lengths.tolist() == [1, 1, 1]
  assert calls == [3]


def test_sweeps_of_alpha_and_temperature_compile_once():
  model = tabular.step_model(V)
  drafter, verifier = params(1, agree=0.5)
  traces = []

  def counted_rule(q, p, q_conf, p_conf, alpha):
    traces.append(1)
    return deferral.opt(q, p, q_conf, p_conf, alpha)

  texts = set()
  for alpha in (-np.inf, -0.5, 0, 0.5, np.inf):
    for temperature in (0.5, 1, 2.0):
      out = decode(
        drafter,
        verifier,
        model,
        rule=counted_rule,
        alpha=alpha,
        temperature=temperature,
      )
      texts.add(np.asarray(out.tokens).tobytes())
  assert sum(traces) == 1
  assert len(texts) > 3  # alpha and temperature did reach the loop.


def without_rollback(model: protocol.StepModel) -> protocol.StepModel:
  """A model that never writes a slot twice, as if nothing were taken back."""

  def extend(params, cache, tokens, lengths):
    logits, new = model.extend(params, cache, tokens, lengths)
    written = cache.tokens != -1
    stale = jnp.where(written, cache.tokens, new.tokens)
    return logits, dataclasses.replace(new, tokens=stale)

  def start(params, inputs, max_length, widest=1):
    begin = model.start(params, inputs, max_length, widest)
    empty = jnp.full_like(begin.cache.tokens, -1)
    return dataclasses.replace(
      begin, cache=dataclasses.replace(begin.cache, tokens=empty)
    )

  return dataclasses.replace(model, start=start, extend=extend)


@pytest.mark.parametrize('broken', ['drafter', 'verifier'])
def test_would_catch_a_cache_that_is_not_rolled_back(broken):
  """The greedy equivalence fails once rejected tokens stay in a cache."""
  model = tabular.step_model(V)
  stale = without_rollback(model)
  differs = 0
  for seed in range(4):
    drafter, verifier = params(seed, order=3, agree=0.6)
    # With the drafter broken, its own text is what must change.
    rule = deferral.verifier_only
    out = speculative.decode(
      stale if broken == 'drafter' else model,
      stale if broken == 'verifier' else model,
      drafter,
      verifier,
      INPUTS,
      KEYS,
      0.0,
      rule=rule,
      gamma=3,
      max_length=12,
      scaling=GREEDY,
    )
    sound = decode(drafter, verifier, model, scaling=GREEDY)
    if broken == 'drafter':
      # A lossless text never shows it, but its acceptances do.
      assert_same_text(out, sound)
      differs += int((out.provenance != sound.provenance).any())
    else:
      differs += int((out.tokens != sound.tokens).any())
  assert differs > 0


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    (dict(gamma=0), 'gamma must be a positive integer, got 0'),
    (dict(max_length=0), 'max_length must be a positive integer, got 0'),
    (dict(gamma=True), 'gamma must be a positive integer, got True'),
    (dict(max_length=3.0), 'max_length must be a positive integer, got 3.0'),
    (dict(alpha=float('nan')), 'alpha must be a number, got nan'),
    (dict(alpha=True), 'alpha must be a number, got True'),
    (dict(alpha='0.1'), "alpha must be a number, got '0.1'"),
    (dict(alpha=jnp.zeros(1)), r'alpha must be a number, got Array\(\[0'),
    (dict(temperature=-1.0), 'temperature must be positive and finite'),
    (dict(temperature=np.ones(1)), r'temperature must be a number, got array'),
    (dict(temperature=0.0), 'greedy=True'),
    (dict(keys=KEYS[:2]), 'inputs have 3 rows, keys have shape'),
    (dict(keys=jnp.zeros((3, 2), jnp.uint32)), 'typed PRNG keys'),
    (dict(inputs=jnp.ones((3, 2))), r'token ids of shape \[B, S\]'),
  ],
)
def test_bad_input_is_named_before_anything_compiles(wrong, message):
  model = tabular.step_model(V)
  with pytest.raises(ValueError, match=message):
    decode(*params(0), model, **wrong)


@pytest.mark.parametrize('name', ['alpha', 'temperature'])
@pytest.mark.parametrize('wrong', [jnp.ones(1), jnp.array(True)])
def test_traced_settings_are_checked_too(name, wrong):
  model = tabular.step_model(V)
  traced = jax.jit(lambda value: decode(*params(0), model, **{name: value}))
  with pytest.raises(ValueError, match=f'{name} must be a number, got .*Trac'):
    traced(wrong)


def test_numpy_settings_and_equal_partials_share_one_program():
  traces = []

  def rule(q, p, q_conf, p_conf, alpha, *, least):
    traces.append(1)
    return deferral.mix(q, p, q_conf.max(-1) < least - alpha)

  model = tabular.step_model(V)

  def run(**options):
    inline = functools.partial(rule, least=0.9)
    verify = functools.partial(verification.verify_tokens)
    options = dict(rule=inline, verify=verify, alpha=0.1) | options
    return decode(*params(0), model, **options)

  first = run(gamma=3, max_length=12)
  again = run(gamma=np.int64(3), max_length=np.int32(12), alpha=np.float64(0.1))
  integral = jax.jit(lambda alpha: run(alpha=alpha))
  assert sum(traces) == 1
  assert_same_text(first, again)
  # Rules always see a floating alpha.
  assert_same_text(integral(jnp.int32(0)), run(alpha=0.0))


def test_models_of_different_vocabularies_are_refused():
  with pytest.raises(ValueError, match='vocab_size is 4 in the drafter and 5'):
    speculative.decode(
      tabular.step_model(4),
      tabular.step_model(5),
      *params(0),
      INPUTS,
      KEYS,
      0.0,
      rule=deferral.opt,
      gamma=2,
      max_length=4,
    )
