"""The ways of decoding with a pair: their names, and what each one takes.

`Pair.generate(method=...)` and `evaluation.methods.Method` both go by this
table, so that a combination that means nothing is refused in the same words,
and before anything is loaded or compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import scalars
from speccascade_jax import verification as verification_lib


@dataclasses.dataclass(frozen=True)
class Loop:
  """What a way of decoding takes, and what can be said of its outcome.

  Attributes:
    takes_rule: it asks a deferral rule; the others have one of their own,
      with an alpha of its own.
    drafts_blocks: it takes a gamma.
    judges: drafted tokens are kept or rejected one by one, so that it has an
      acceptance rate.
    takes_verification: how they are judged can be chosen.
    options: further keywords and what they are by default.
  """

  takes_rule: bool = True
  drafts_blocks: bool = False
  judges: bool = False
  takes_verification: bool = False
  options: Mapping[str, float | None] = dataclasses.field(default_factory=dict)


LOOPS: dict[str, Loop] = {
  'speculative': Loop(drafts_blocks=True, judges=True, takes_verification=True),
  'token_cascade': Loop(),
  'oracle_cascade': Loop(),
  'sequence_cascade': Loop(takes_rule=False, options={'quantile': None}),
  'bild': Loop(
    takes_rule=False, drafts_blocks=True, judges=True, options={'fallback': 0.6}
  ),
}


_CHECKS = {
  'quantile': scalars.check_quantile,
  'fallback': scalars.check_fallback,
}


def check(
  method: str,
  rule: base.Rule | None,
  verification: base.Verify,
  options: Mapping[str, Any],
  calibrated: bool = False,
) -> dict[str, Any]:
  """All options of a loop, those that are not given by default.

  Args:
    method: a name of `LOOPS`.
    rule: None for the loops that take none.
    verification: `verify_tokens` where there is no choice.
    options: those that are given.
    calibrated: confidences are to have temperatures.

  A rule of the user's own is tried by the loop itself, which knows V.

  Raises:
    ValueError: if these do not go together, or an option is out of range.
  """
  if method not in LOOPS:
    raise ValueError(f'method is {method!r}; it must be {_either(LOOPS)}.')
  if rule is not None and not callable(rule):
    raise ValueError(
      f'rule is {rule!r}; it must be a function, such as speccascade_jax.opt.'
    )
  loop = LOOPS[method]
  if loop.takes_rule and rule is None:
    raise ValueError(f'{method} needs a deferral rule; got None.')
  if not loop.takes_rule and rule is not None:
    raise ValueError(
      f'{method} takes no rule, got {getattr(rule, "__name__", rule)!r}: it '
      'has one of its own, with alpha as its threshold.'
    )
  if (
    not loop.takes_verification
    and verification is not verification_lib.verify_tokens
  ):
    name = getattr(verification, '__name__', verification)
    raise ValueError(f'{method} takes no verification, got {name!r}.')
  for name in options:
    if name not in loop.options:
      owners = [m for m, other in LOOPS.items() if name in other.options]
      raise ValueError(
        f'{method} takes no {name}'
        + (f'; it is an option of {_either(owners)}.' if owners else '.')
      )
  if rule in deferral.RULES:
    if method == 'token_cascade':
      deferral.check_drafter_decides(rule)
    elif method == 'oracle_cascade':
      deferral.check_defers(rule)
    if verification is verification_lib.verify_block:
      verification_lib.check_law_alone(deferral.example_target(rule))
  if calibrated and not reads_confidences(rule):
    raise ValueError(
      f'{getattr(rule, "__name__", rule)} looks at no confidences, so that '
      'confidence_temperatures change nothing: leave them out.'
    )
  given = {name: _CHECKS[name](value) for name, value in options.items()}
  return {**loop.options, **given}


def reads_confidences(rule: base.Rule | None) -> bool:
  """Whether a way of decoding can be moved by `confidence_temperatures`.

  What takes no rule goes by confidences of its own. A rule of the user's is
  taken to read them: it may want a vocabulary's size to be tried at.
  """
  if rule not in deferral.RULES:
    return True
  return deferral.reads_confidences(rule)


def _either(names) -> str:
  *most, last = names
  return f'{", ".join(most)} or {last}' if most else last
