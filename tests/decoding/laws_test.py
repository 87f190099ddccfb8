"""The specification: what the loops emit has the law of sampling pi.

Every rule runs through the real loop, on tabular models whose sequential law
is enumerated by the naive references, and 100,000 texts are held against it by
a chi-square test. Texts end at an EOS or at the limit, both of which fall
inside blocks; gamma, batch size, temperature, style of model and verification
vary from case to case so that every rule meets every value of each. By default
every rule is held against its law twice, and meets two of the four gammas; the
other gammas of each rule are marked slow.
"""

from collections.abc import Callable
import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax import verification
from speccascade_jax.decoding import autoregressive
from speccascade_jax.decoding import speculative
from speccascade_jax.models import tabular
from tests.references import blocks as naive_blocks
from tests.references import rules as naive_rules
from tests.references import sampler

V, EOS, LENGTH, DRAWS = 4, 1, 4, 100_000
# Far below what 100,000 draws of a wrong law leave (the would-catch tests),
# far above the chance that any of some 200 right ones fails.
LEAST_P_VALUE = 1e-5

# Where neither end of a rule's range is in force.
ALPHAS = {
  deferral.chow: 0.6,
  deferral.chow_log: 1.1,
  deferral.diff: 0.1,
  deferral.diff_log: 0.1,
  deferral.opt: 0.3,
  deferral.opt_log: 0.6,
  deferral.token_v1: 0.1,
  deferral.token_v2: 0.2,
  deferral.token_v3: 0.5,
  deferral.lossy: 0.4,
  deferral.lossy_exact: 0.4,
  deferral.typical: 0.8,
  deferral.bild_fixed: 1.2,
  deferral.ensemble: 0.4,
}
# With bonus tokens from p, the law of a text depends on where blocks begin.
WIDE = (deferral.lossy, deferral.typical, deferral.bild_fixed)
INPUTS = jnp.array([[2, 3, 3], [3, 0, 0], [2, 2, 0]])


@dataclasses.dataclass(frozen=True)
class Case:
  """One way to run the loop; the defaults are what would-catch tests break."""

  rule: base.Rule = deferral.verifier_only
  gamma: int = 3
  batch: int = 3
  temperature: float = 1.0
  decoder_only: bool = False
  verify: base.Verify = verification.verify_tokens
  drafter: Callable = tabular.step_model
  verifier: Callable = tabular.step_model

  @property
  def alpha(self) -> float:
    return ALPHAS.get(self.rule, 0.0)

  @property
  def scaling(self) -> distributions.Scaling:
    return distributions.Scaling(greedy=self.temperature == 0)


@functools.cache
def tables(decoder_only: bool) -> tuple[base.Array, base.Array]:
  """Drafter of order 1, verifier of order 2: histories matter to both."""
  conditions = 1 if decoder_only else 3
  drafter = tabular.init_params(jax.random.key(1), V, 1, conditions)
  verifier = tabular.init_params(jax.random.key(2), V, 2, conditions)
  return drafter, verifier


def scaled(probs: np.ndarray, temperature: float) -> np.ndarray:
  if temperature == 0:
    return np.eye(len(probs))[probs.argmax()]
  powers = probs ** (1 / temperature)
  return powers / powers.sum()


def naive_models(case: Case, row: int):
  """`text -> q, p` scaled and unscaled, of one row."""
  ids = [int(i) for i in INPUTS[row]]
  prompt = tuple(i for i in ids if i) if case.decoder_only else (0,)
  condition = 0 if case.decoder_only else sum(ids) % 3

  def models(text):
    q, p = (
      tabular.next_probs(table, prompt + text, condition)
      for table in tables(case.decoder_only)
    )
    return scaled(q, case.temperature), scaled(p, case.temperature), q, p

  return models


def sequential_law(case: Case, row: int) -> dict[sampler.Text, float]:
  """The law of sampling pi one token at a time, by the references alone."""
  models = naive_models(case, row)
  rule = naive_rules.RULES[case.rule.__name__]
  return sampler.sequential_law(
    lambda text: rule(*models(text), case.alpha), LENGTH, EOS
  )


def law_of(case: Case, row: int) -> dict[sampler.Text, float]:
  """The law of a text: that of pi, or where blocks matter, of the blocks."""
  if case.rule not in WIDE:
    return sequential_law(case, row)
  judge = naive_blocks.JUDGES[case.rule.__name__]
  return naive_blocks.text_law(
    naive_models(case, row),
    lambda q, p, p_conf: judge(q, p, p_conf, case.alpha),
    case.gamma,
    LENGTH,
    EOS,
  )


def loop_texts(case: Case, draws: int) -> list[list[sampler.Text]]:
  """`draws` texts from the loop, listed by row of the batch.

  Batches of `case.batch` rows, many of them at once: vmap runs each batch of
  the same loop, with the same rows side by side.
  """
  drafter = case.drafter(V, case.decoder_only)
  verifier = case.verifier(V, case.decoder_only)
  params = tables(case.decoder_only)
  inputs = INPUTS[: case.batch]

  @jax.jit
  @jax.vmap
  def run(keys):
    out = speculative.decode(
      drafter,
      verifier,
      *params,
      inputs,
      keys,
      case.alpha,
      case.temperature,
      rule=case.rule,
      gamma=case.gamma,
      max_length=LENGTH,
      verify=case.verify,
      scaling=case.scaling,
    )
    return out.tokens, out.lengths

  batches = -(-draws // case.batch)
  keys = jax.random.split(jax.random.key(5), (batches, case.batch))
  tokens, lengths = jax.device_get(run(keys))
  return [
    as_texts(tokens[:, row], lengths[:, row]) for row in range(case.batch)
  ]


def as_texts(tokens: np.ndarray, lengths: np.ndarray) -> list[sampler.Text]:
  return [tuple(text[:n]) for text, n in zip(tokens.tolist(), lengths.tolist())]


def assert_law(texts: list[sampler.Text], law: dict[sampler.Text, float]):
  """Chi-square of the texts against their law; rare outcomes share a cell."""
  counts = dict.fromkeys(law, 0)
  for text in texts:
    assert text in counts, f'{text} has no probability at all.'
    counts[text] += 1
  expected = np.array([law[text] * len(texts) for text in law])
  observed = np.array([counts[text] for text in law])
  rare = expected < 10
  if rare.any():
    expected = np.append(expected[~rare], expected[rare].sum())
    observed = np.append(observed[~rare], observed[rare].sum())
  if len(expected) > 1:
    p_value = stats.chisquare(
      observed, expected * observed.sum() / expected.sum()
    ).pvalue
    assert p_value > LEAST_P_VALUE, f'chi-square p-value {p_value:.2g}'


def assert_loop_law(case: Case, draws: int = DRAWS):
  for row, texts in enumerate(loop_texts(case, draws)):
    assert_law(texts, law_of(case, row))


def cases() -> list[Case]:
  """Two of every rule that differ in all else, and a greedy one."""
  tokens, block = verification.verify_tokens, verification.verify_block
  result = []
  for i, rule in enumerate(deferral.RULES):
    # Gammas 1 and 3 or 2 and 4; the rest counts through its combinations.
    first = Case(
      rule=rule,
      gamma=1 + i % 4,
      batch=(1, 3)[i // 4 % 2],
      temperature=(1.0, 0.5)[(i // 2 + i // 4) % 2],
      decoder_only=bool((i + i // 4) % 2),
      verify=tokens,
    )
    second = dataclasses.replace(
      first,
      gamma=1 + (i + 2) % 4,
      batch=4 - first.batch,
      temperature=1.5 - first.temperature,
      decoder_only=not first.decoder_only,
      # The wider interface is refused by block verification.
      verify=tokens if rule in WIDE else block,
    )
    greedy = dataclasses.replace(
      (first, second)[i % 2], batch=3, temperature=0.0
    )
    result += [first, second, greedy]
  return result


def more_cases() -> list[Case]:
  """Every rule with gamma 1 .. 4, the rest in turn."""
  verifies = (verification.verify_tokens, verification.verify_block)
  result = [
    Case(
      rule=rule,
      gamma=gamma,
      batch=(1, 3)[(i // 2 + gamma // 2) % 2],
      temperature=(1.0, 0.5)[(gamma + i) % 2],
      decoder_only=bool((i + gamma // 3) % 2),
      verify=verifies[(gamma // 2 + i) % 2 if rule not in WIDE else 0],
    )
    for i, rule in enumerate(deferral.RULES)
    for gamma in (1, 2, 3, 4)
  ]
  return [case for case in result if case not in cases()]


def name(case: Case) -> str:
  style = 'decoder' if case.decoder_only else 'encdec'
  return (
    f'{case.rule.__name__}-g{case.gamma}-b{case.batch}-t{case.temperature}'
    f'-{style}-{case.verify.__name__}'
  )


@pytest.mark.parametrize('case', cases(), ids=name)
def test_the_loop_emits_the_law_of_pi(case):
  assert_loop_law(case, DRAWS if case.temperature else 6)


@pytest.mark.slow
@pytest.mark.parametrize('case', more_cases(), ids=name)
def test_the_loop_emits_the_law_of_pi_at_every_gamma(case):
  assert_loop_law(case)


def test_the_cases_cover_what_the_loop_can_be_asked_for():
  """Each rule with each value, and each pair of values of two settings."""
  settings = {
    'gamma': (1, 2, 3, 4),
    'batch': (1, 3),
    'temperature': (1.0, 0.5),
    'decoder_only': (False, True),
    'verify': (verification.verify_tokens, verification.verify_block),
  }
  drawn = [case for case in cases() if case.temperature]

  def met(cases, *names):
    return {tuple(getattr(case, name) for name in names) for case in cases}

  for rule in deferral.RULES:
    own = [case for case in drawn if case.rule is rule]
    assert len(met(own, 'gamma')) == 2
    for name in settings.keys() - {'gamma'}:
      if rule not in WIDE or name != 'verify':
        assert met(own, name) == {(value,) for value in settings[name]}
  for names in itertools.combinations(settings, 2):
    every = itertools.product(*(settings[name] for name in names))
    assert met(drawn, *names) == set(every), names
  for rule in deferral.RULES:
    every = [c for c in (*drawn, *more_cases()) if c.rule is rule]
    assert met(every, 'gamma') == {(1,), (2,), (3,), (4,)}


@pytest.mark.parametrize('decoder_only', [False, True])
def test_a_model_alone_emits_its_own_law(decoder_only):
  case = Case(decoder_only=decoder_only)
  _, verifier = tables(decoder_only)
  out = autoregressive.decode(
    tabular.step_model(V, decoder_only),
    verifier,
    jnp.tile(INPUTS[1:2], (DRAWS, 1)),
    jax.random.split(jax.random.key(6), DRAWS),
    max_length=LENGTH,
  )
  texts = as_texts(np.asarray(out.tokens), np.asarray(out.lengths))
  assert_law(texts, sequential_law(case, 1))


def test_the_rules_are_tested_where_they_decide_something():
  """At these alphas every rule's law is neither q's nor p's."""
  ends = (deferral.drafter_only, deferral.verifier_only)
  for rule in ALPHAS.keys() - set(WIDE):
    mixed = []
    for row in range(3):
      law, *others = (
        sequential_law(Case(rule=each), row) for each in (rule, *ends)
      )
      mixed.append(min(sampler.distance(law, end) for end in others))
    assert max(mixed) > 0.01, rule.__name__


@pytest.mark.parametrize('rule', WIDE, ids=lambda rule: rule.__name__)
def test_blocks_matter_to_the_rules_that_prescribe_the_token_behind(rule):
  by_gamma, by_pi = [], []
  for row in range(3):
    short, long = (law_of(Case(rule=rule, gamma=g), row) for g in (1, 3))
    by_gamma.append(sampler.distance(short, long))
    by_pi.append(sampler.distance(short, sequential_law(Case(rule=rule), row)))
  assert min(max(by_gamma), max(by_pi)) > 1e-3


def _stale(model_fn):
  """A model whose slots, once written, are never overwritten."""

  @functools.cache
  def step_model(*args):
    model = model_fn(*args)

    def start(params, inputs, max_length, widest=1):
      begin = model.start(params, inputs, max_length, widest)
      # -1 marks a slot as free; the prompt's own are not.
      slot = jnp.arange(begin.cache.tokens.shape[2])
      free = slot >= begin.lengths[:, None]
      tokens = jnp.where(free[:, None, :, None], -1, begin.cache.tokens)
      cache = dataclasses.replace(begin.cache, tokens=tokens)
      return dataclasses.replace(begin, cache=cache)

    def extend(params, cache, tokens, lengths):
      _, new = model.extend(params, cache, tokens, lengths)
      kept = jnp.where(cache.tokens == -1, new.tokens, cache.tokens)
      stale = dataclasses.replace(new, tokens=kept)
      rows = jnp.arange(tokens.shape[0])[:, None]
      slots = lengths[:, None] + jnp.arange(tokens.shape[1])
      reread = kept[:, 0, :, 0].at[rows, slots].get(mode='clip')
      return model.extend(params, stale, reread, lengths)[0], stale

    return dataclasses.replace(model, start=start, extend=extend)

  return step_model


def _residual_from_p(drafted, q, target, u_accept, u_next):
  """Token-wise verification of OPT that redraws as if the target were p."""
  wrong = dataclasses.replace(target, residual=target.pi)
  return verification.verify_tokens(drafted, q, wrong, u_accept, u_next)


def _without_last_drafter_step(drafted, q, target, u_accept, u_next):
  """The shortcut of taking the drafter's law from the position before."""
  stale = target.pi.at[:, -1].set(target.pi[:, -2])
  wrong = dataclasses.replace(target, pi=stale)
  return verification.verify_tokens(drafted, q, wrong, u_accept, u_next)


@pytest.mark.parametrize(
  'broken',
  [
    Case(verifier=_stale(tabular.step_model)),
    Case(verifier=_stale(tabular.step_model), decoder_only=True),
    Case(drafter=_stale(tabular.step_model), rule=deferral.drafter_only),
    Case(rule=deferral.token_v3, verify=_residual_from_p),
    Case(rule=deferral.opt, verify=_without_last_drafter_step),
  ],
  ids=['verifier cache', 'prompt', 'drafter cache', 'residual', 'last step'],
)
def test_would_catch(broken):
  if broken.drafter is not tabular.step_model:
    # A drafter alone rejects nothing and never rolls back: make it.
    broken = dataclasses.replace(broken, rule=deferral.token_v1)
  with pytest.raises(AssertionError, match='chi-square|no probability'):
    assert_loop_law(broken)
