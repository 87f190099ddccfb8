"""What a sweep runs over: methods, their settings and their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import hashlib
import itertools
import json
from typing import Any

import jax

from speccascade_jax import base
from speccascade_jax import verification as verification_lib

_LABELS = {
  'verifier_only': 'SpecDecode [lossless]',
  'lossy': 'SpecDecode [lossy]',
  'lossy_exact': 'SpecDecode [lossy, exact]',
  'drafter_only': 'SpecDecode [drafter only]',
  'chow': 'SpecCascade [Chow]',
  'chow_log': 'SpecCascade [ChowLog]',
  'diff': 'SpecCascade [Diff]',
  'diff_log': 'SpecCascade [DiffLog]',
  'opt': 'SpecCascade [OPT]',
  'opt_log': 'SpecCascade [OPTLog]',
  'token_v1': 'SpecCascade [TokenV1]',
  'token_v2': 'SpecCascade [TokenV2]',
  'token_v3': 'SpecCascade [TokenV3]',
}
_WITHOUT_ALPHA = ('verifier_only', 'drafter_only')
_VERIFICATIONS = {'verify_tokens': 'token', 'verify_block': 'block'}


def name_of(function: Any) -> str:
  """A name that stays the same from one process to the next.

  The package's own functions go by their bare name, a user's by module and
  name; the arguments frozen into a `functools.partial` are part of it.
  """
  if isinstance(function, functools.partial):
    arguments = [repr(value) for value in function.args]
    arguments += [f'{k}={v!r}' for k, v in sorted(function.keywords.items())]
    return f'{name_of(function.func)}({", ".join(arguments)})'
  module, name = function.__module__, function.__qualname__
  if module.split('.')[0] == __package__.split('.')[0]:
    return name
  return f'{module}.{name}'


@dataclasses.dataclass(frozen=True)
class Method:
  """A method of the paper, before it is given gammas and temperatures.

  Attributes:
    model: 'pair' decodes speculatively with `rule`; 'verifier' and 'drafter'
      decode alone and take neither rule nor alphas.
    rule: a `base.Rule`, for 'pair'.
    alphas: one curve's points. Empty for the rules without a parameter.
    verification: a `base.Verify`; token-wise unless said otherwise.
    label: the name in tables; the paper's name of the rule by default.
  """

  model: str = 'pair'
  rule: base.Rule | None = None
  alphas: Sequence[float] = ()
  verification: base.Verify = verification_lib.verify_tokens
  label: str | None = None

  def __post_init__(self):
    object.__setattr__(self, 'alphas', tuple(map(float, self.alphas)))
    if self.model not in ('pair', 'verifier', 'drafter'):
      raise ValueError(
        f'model is {self.model!r}; it must be pair, verifier or drafter.'
      )
    if self.model != 'pair':
      if self.rule is not None or self.alphas:
        raise ValueError(
          f'The {self.model} alone takes neither a rule nor alphas; got rule '
          f'{self.rule and name_of(self.rule)!r}, alphas {self.alphas}.'
        )
    elif self.rule is None:
      raise ValueError('A method with model="pair" needs a rule; got None.')
    elif (name_of(self.rule) in _WITHOUT_ALPHA) == bool(self.alphas):
      raise ValueError(
        f'Rule {name_of(self.rule)!r} with alphas {self.alphas}: '
        f'{", ".join(_WITHOUT_ALPHA)} take none, all others at least one.'
      )


@dataclasses.dataclass(frozen=True)
class RunPoint:
  """One point of a sweep; frozen and hashable.

  `alpha`, `gamma`, `rule` and `verification` are None where a model decodes
  alone, and `alpha` for the rules without a parameter.
  """

  label: str
  model: str
  rule: base.Rule | None
  verification: base.Verify | None
  alpha: float | None
  gamma: int | None
  temperature: float
  top_k: int | None = None
  top_p: float | None = None
  min_p: float | None = None
  trial: int = 0
  seed: int = 0

  def __post_init__(self):
    for name in ('alpha', 'temperature', 'top_p', 'min_p'):
      value = getattr(self, name)
      if value is not None:
        # 0 and 0.0 are the same setting and must have the same key.
        object.__setattr__(self, name, float(value))
    if self.temperature < 0:
      raise ValueError(f'temperature is {self.temperature}; 0 is the least.')
    if self.model == 'pair' and (self.gamma is None or self.gamma < 1):
      raise ValueError(f'gamma is {self.gamma}; {self.label} needs 1 or more.')
    if self.top_k is not None and self.top_k < 1:
      raise ValueError(f'top_k is {self.top_k}; it must be at least 1.')
    if self.top_p is not None and not 0 < self.top_p <= 1:
      raise ValueError(f'top_p is {self.top_p}; it must be in (0, 1].')
    if self.min_p is not None and not 0 <= self.min_p <= 1:
      raise ValueError(f'min_p is {self.min_p}; it must be in [0, 1].')

  def config(self) -> dict[str, Any]:
    """The operative config, as JSON: everything that a run depends on."""
    config = dataclasses.asdict(self)
    config['method'] = (
      'speculative' if self.model == 'pair' else 'autoregressive'
    )
    config['rule'] = self.rule and name_of(self.rule)
    if self.verification is not None:
      name = name_of(self.verification)
      config['verification'] = _VERIFICATIONS.get(name, name)
    return config

  def key(self, context: Mapping[str, Any]) -> str:
    """The name of the run's folder: a hash of config and context.

    Args:
      context: what else the outcome depends on (task, pair, lengths), JSON.

    Returns:
      12 hexadecimal digits, the same in every process. The label is left
      out: it names the run and does not change it.
    """
    config = {k: v for k, v in self.config().items() if k != 'label'}
    text = json.dumps([config, dict(context)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

  def settings(self) -> dict[str, Any]:
    """Keyword arguments of `Generator.generate`, lengths excepted.

    The key is common to all methods; the generator folds in the example.
    """
    settings = {
      'key': jax.random.fold_in(jax.random.key(self.seed), self.trial),
      'model': self.model,
      'temperature': self.temperature,
      'top_k': self.top_k,
      'top_p': self.top_p,
      'min_p': self.min_p,
    }
    if self.model == 'pair':
      settings |= {
        'rule': self.rule,
        'verification': self.verification,
        'gamma': self.gamma,
        # The rules without a parameter ignore it; it is traced in any case.
        'alpha': 0.0 if self.alpha is None else self.alpha,
      }
    return settings

  def program(self) -> tuple:
    """What is static under jit: equal programs share one compilation."""
    return (
      self.model,
      self.rule,
      self.verification,
      self.gamma,
      self.temperature == 0,
      self.top_k,
      self.top_p,
      self.min_p,
    )

  def company(self) -> tuple:
    """Runs with equal company are timed side by side and may be compared."""
    return (
      self.temperature,
      self.top_k,
      self.top_p,
      self.min_p,
      self.trial,
      self.seed,
    )


def _label(method: Method) -> str:
  if method.label:
    return method.label
  if method.rule is None:
    return method.model.capitalize()
  name = name_of(method.rule)
  label = _LABELS.get(name, f'SpecCascade [{name}]')
  verification = name_of(method.verification)
  if verification == 'verify_tokens':
    return label
  return f'{label}, {_VERIFICATIONS.get(verification, verification)}'


def expand(
  methods: Iterable[Method],
  *,
  gammas: Sequence[int],
  temperatures: Sequence[float],
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  trials: int = 1,
  seed: int = 0,
) -> list[RunPoint]:
  """The grid: temperatures x trials x methods x gammas x alphas.

  Models that decode alone appear once per temperature, whatever the gammas.

  Raises:
    ValueError: if a point appears twice or a setting is out of range.
  """
  points = []
  for temperature, trial, method in itertools.product(
    temperatures, range(trials), methods
  ):
    pair = method.model == 'pair'
    points += [
      RunPoint(
        label=_label(method),
        model=method.model,
        rule=method.rule,
        verification=method.verification if pair else None,
        alpha=alpha,
        gamma=gamma,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        trial=trial,
        seed=seed,
      )
      for gamma in (gammas if pair else (None,))
      for alpha in (method.alphas or (None,))
    ]
  if not points:
    raise ValueError('The grid is empty: give methods and temperatures.')
  seen = set()
  for point in points:
    key = point.key({})
    if key in seen:
      raise ValueError(
        f'{point.label} with alpha {point.alpha}, gamma {point.gamma}, '
        f'temperature {point.temperature} appears twice in the grid.'
      )
    seen.add(key)
  return points
