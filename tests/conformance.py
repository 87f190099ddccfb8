"""Every method that ships, in one table, and a pair to run them on.

What all methods must do is tested by walking through this list; a rule, a loop
or a fragment of gin/methods that is missing from it fails `conformance_test`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import pair as pairs
from speccascade_jax import verification
from speccascade_jax.models import tabular

V, EOS = 6, 1
TOKENS, BLOCK = verification.verify_tokens, verification.verify_block
# They prescribe the token behind a block: no block verification, and with
# everything kept there is still a token of the verifier's a round.
WIDE = (deferral.lossy, deferral.typical, deferral.bild_fixed)


@dataclasses.dataclass(frozen=True)
class Entry:
  """A method, where alpha leaves it between the models, and its ends."""

  fragment: str | None  # Name in gin/methods, if it has one.
  alpha: float = 0.0
  verifier_end: float | None = None  # Greedily the verifier's text; None: no.
  drafter_end: float | None = None  # Greedily the drafter's text.
  rule: base.Rule | None = None
  method: str = 'speculative'
  model: str = 'pair'
  verifications: tuple[base.Verify, ...] = (TOKENS,)
  options: tuple[tuple[str, Any], ...] = ()
  truncation: tuple[tuple[str, float], ...] = ()

  @property
  def name(self) -> str:
    told = self.rule.__name__ if self.rule else ' '.join(dict(self.options))
    return self.fragment or f'{self.method} {told}'

  def settings(self, verify: base.Verify) -> dict[str, Any]:
    """Keywords of `Pair.generate`."""
    settings = dict(model=self.model, alpha=self.alpha, **dict(self.truncation))
    if self.model == 'pair':
      settings |= dict(method=self.method, rule=self.rule, **dict(self.options))
      settings |= dict(verification=verify, gamma=3)
    return settings


def _speculative(fragment, rule, alpha=0.0) -> Entry:
  ends = deferral.RULES[rule] or (0.0, 0.0)
  wide = rule in WIDE
  return Entry(
    fragment,
    alpha,
    # Below the closed ends, where the comparisons are strict.
    verifier_end=ends[0] - 1e-3 if rule != deferral.drafter_only else None,
    drafter_end=None if wide or rule == deferral.verifier_only else ends[1],
    rule=rule,
    verifications=(TOKENS,) if wide else (TOKENS, BLOCK),
  )


def _truncated(name, strength) -> Entry:
  return Entry(
    name,
    verifier_end=0.0,
    rule=deferral.verifier_only,
    verifications=(TOKENS, BLOCK),
    truncation=((name, strength),),
  )


def _token_cascade(fragment, rule, alpha, drafter_end) -> Entry:
  return Entry(fragment, alpha, -1e-3, drafter_end, rule, 'token_cascade')


CONFORMANCE = [
  Entry('verifier', verifier_end=0.0, model='verifier'),
  Entry('drafter', drafter_end=0.0, model='drafter'),
  _speculative('lossless', deferral.verifier_only),
  _speculative(None, deferral.drafter_only),
  _speculative('chow', deferral.chow, 0.5),
  _speculative('chow_log', deferral.chow_log, 1.0),
  _speculative('diff', deferral.diff, 0.1),
  _speculative('diff_log', deferral.diff_log, 0.1),
  _speculative('opt', deferral.opt, 0.2),
  _speculative('opt_log', deferral.opt_log, 0.3),
  _speculative('token_v1', deferral.token_v1, 0.2),
  _speculative('token_v2', deferral.token_v2, 0.2),
  _speculative('token_v3', deferral.token_v3, 0.5),
  _speculative('lossy', deferral.lossy, 0.4),
  _speculative('lossy_exact', deferral.lossy_exact, 0.4),
  _speculative('typical', deferral.typical, 0.5),
  _speculative('bild_fixed', deferral.bild_fixed, 1.5),
  _speculative('ensemble', deferral.ensemble, 0.4),
  _truncated('top_k', 2),
  _truncated('top_p', 0.7),
  _truncated('min_p', 0.3),
  _truncated('eta', 0.2),
  _token_cascade('token_cascade_chow', deferral.chow, 0.5, 1.0),
  _token_cascade('token_cascade_chow_log', deferral.chow_log, 1.2, math.inf),
  Entry('oracle_cascade', 0.1, -1.001, 1.0, deferral.diff, 'oracle_cascade'),
  Entry('seq_cascade', 0.65, -1e-3, 1.0, method='sequence_cascade'),
  Entry(
    *(None, 0.65, -1e-3, 1.0),
    method='sequence_cascade',
    options=(('quantile', 0.4),),
  ),
  Entry('bild', 1.5, -1e-3, method='bild', options=(('fallback', 0.45),)),
]

# Every method with every verification that it can be judged by.
CASES = [(entry, v) for entry in CONFORMANCE for v in entry.verifications]


def case_name(case) -> str:
  return case.__name__ if callable(case) else case.name


class Words:
  """A vocabulary of numbers: '2 5 3' is the text of the tokens 2, 5 and 3."""

  eos_id = EOS

  def encode(self, text: str) -> list[int]:
    return [int(word) for word in text.split()]

  def decode(self, tokens) -> str:
    return ' '.join(str(int(token)) for token in tokens)


@functools.cache
def pair() -> pairs.Pair:
  """Tabular models that agree to some extent; EOS is rare."""
  verifier = tabular.init_params(jax.random.key(1), V, 2, 3, 2.0)
  other = tabular.init_params(jax.random.key(2), V, 2, 3, 2.0)
  drafter = 0.5 * verifier + 0.5 * other
  step = tabular.step_model(V)
  return pairs.Pair(
    *(
      pairs.Model(step, table.at[..., EOS].add(-1.0), None)
      for table in (drafter, verifier)
    ),
    Words(),
  )


TEXTS = ('2 3', '4', '3 3 5')


def generate(
  entry: Entry,
  verify: base.Verify = TOKENS,
  rows: tuple[int, ...] = (0, 1, 2),
  max_length: int = 13,
  temperature: float = 0.0,
) -> pairs.Output:
  """What the pair writes, traced; the same call is made once."""
  return _generate(entry, verify, rows, max_length, temperature)


# Apart from `generate`, because a cache takes `f(x)` and `f(x, TOKENS)` for
# different calls.
@functools.cache
def _generate(entry, verify, rows, max_length, temperature):
  return pair().generate(
    [TEXTS[row] for row in rows],
    key=3,
    temperature=temperature,
    max_length=max_length,
    input_length=4,
    row_ids=list(rows),
    trace=True,
    **entry.settings(verify),
  )


def same_text(a: pairs.Output, b: pairs.Output) -> bool:
  return np.array_equal(a.tokens, b.tokens)
