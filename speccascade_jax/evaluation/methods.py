"""What a sweep runs over: methods, their settings and their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import operator
from typing import Any

import jax

from speccascade_jax import base
from speccascade_jax import distributions
from speccascade_jax import loops
from speccascade_jax import scalars
from speccascade_jax import verification as verification_lib

# How the paper writes a rule.
_TITLES = {
  'chow': 'Chow',
  'chow_log': 'ChowLog',
  'diff': 'Diff',
  'diff_log': 'DiffLog',
  'opt': 'OPT',
  'opt_log': 'OPTLog',
  'token_v1': 'TokenV1',
  'token_v2': 'TokenV2',
  'token_v3': 'TokenV3',
  'ensemble': 'Ensemble',
}
# Rules whose speculative execution is no cascade.
_LABELS = {
  'verifier_only': 'SpecDecode [lossless]',
  'lossy': 'SpecDecode [lossy]',
  'lossy_exact': 'SpecDecode [lossy, exact]',
  'drafter_only': 'SpecDecode [drafter only]',
  'typical': 'SpecDecode [typical]',
  'bild_fixed': 'BiLD*',
}
_LOOP_LABELS = {
  'speculative': 'SpecCascade [{}]',
  'token_cascade': 'TokenCascade [{}]',
  'oracle_cascade': 'OracleCascade [{}]',
  'sequence_cascade': 'SeqCascade [Chow]',
  'bild': 'BiLD',
}
# Truncations that a method may have of its own.
TRUNCATIONS = {'top_k': 'TopK', 'top_p': 'TopP', 'min_p': 'MinP', 'eta': 'Eta'}
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
    model: 'pair'; 'verifier' and 'drafter' decode alone and take neither rule
      nor method.
    rule: a `base.Rule`, for the methods that take one.
    alphas: one curve's points. Empty for the rules without a parameter.
    verification: a `base.Verify`; token-wise unless said otherwise.
    label: the name in tables; the paper's name of the method by default.
    method: how the pair decodes, a name of `loops.LOOPS`.
    options: of that loop, such as {'fallback': 0.5}; see there.
    truncation: 'top_k', 'top_p', 'min_p' or 'eta': the curve's points are
      strengths of this truncation, in place of alphas. They go before the
      sweep's own, and the runs are compared with the sweep's verifier.
    confidence_temperatures: the drafter's and the verifier's, as
      `speccascade calibrate` finds them, see `Pair.generate`; (1, 1) leaves
      them as they are whatever the sweep's are.
  """

  model: str = 'pair'
  rule: base.Rule | None = None
  alphas: Sequence[float] = ()
  verification: base.Verify = verification_lib.verify_tokens
  label: str | None = None
  method: str = 'speculative'
  options: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
  truncation: str | None = None
  confidence_temperatures: Sequence[float] | None = None

  def __post_init__(self):
    object.__setattr__(self, 'alphas', _numbers(self.alphas))
    scalars.check_confidence_temperatures(self.confidence_temperatures)
    if self.model not in ('pair', 'verifier', 'drafter'):
      raise ValueError(
        f'model is {self.model!r}; it must be pair, verifier or drafter.'
      )
    if self.model == 'pair':
      if self.rule is None and self.method == 'speculative':
        raise ValueError('A method with model="pair" needs a rule; got None.')
      options = loops.check(
        self.method,
        self.rule,
        self.verification,
        self.options,
        calibrated=self.confidence_temperatures is not None,
      )
      object.__setattr__(self, 'options', options)
    elif (
      self.method != 'speculative'
      or self.options
      or self.confidence_temperatures
    ):
      raise ValueError(
        f'The {self.model} decodes alone and takes neither a method nor '
        f'options; got {self.method!r}, {dict(self.options)}, '
        f'{self.confidence_temperatures}.'
      )
    self._check_alphas()

  def _check_alphas(self):
    rule = self.rule and name_of(self.rule)
    if any(map(math.isnan, self.alphas)):
      raise ValueError(f'alphas are {self.alphas}; each must be a number.')
    if self.truncation is not None:
      if self.truncation not in TRUNCATIONS:
        raise ValueError(
          f'truncation is {self.truncation!r}; it must be one of '
          f'{", ".join(TRUNCATIONS)}.'
        )
      without = _WITHOUT_ALPHA if self.model == 'pair' else (None,)
      if not self.alphas or rule not in without:
        raise ValueError(
          f'With truncation {self.truncation!r} the alphas are its strengths: '
          'give some, and a rule that has no alpha of its own '
          f'({", ".join(_WITHOUT_ALPHA)}) or a model alone; got {self.alphas}, '
          f'{rule!r}.'
        )
    elif self.model != 'pair':
      if self.rule is not None or self.alphas:
        raise ValueError(
          f'The {self.model} alone takes neither a rule nor alphas; got rule '
          f'{rule!r}, alphas {self.alphas}.'
        )
    elif (rule in _WITHOUT_ALPHA) == bool(self.alphas):
      raise ValueError(
        f'{f"Rule {rule!r}" if rule else self.method} with alphas '
        f'{self.alphas}: {", ".join(_WITHOUT_ALPHA)} take none, all others at '
        'least one.'
      )


@dataclasses.dataclass(frozen=True)
class RunPoint:
  """One point of a sweep; frozen and hashable.

  `alpha`, `gamma`, `rule` and `verification` are None where a method has none,
  and `alpha` for the rules without a parameter. With a `truncation`, alpha is
  its strength; `top_k` and so on are those of the sweep.
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
  eta: float | None = None
  method: str = 'speculative'
  options: tuple[tuple[str, float | None], ...] = ()
  truncation: str | None = None
  confidence_temperatures: tuple[float, float] | None = None

  def __post_init__(self):
    for name in ('alpha', 'temperature', 'top_p', 'min_p', 'eta'):
      value = getattr(self, name)
      if value is not None:
        # 0 and 0.0 are the same setting and must have the same key.
        object.__setattr__(self, name, float(value))
    for name in ('gamma', 'top_k', 'trial', 'seed'):
      value = getattr(self, name)
      if value is not None:
        # NumPy's integers have no JSON.
        object.__setattr__(self, name, operator.index(value))
    if not 0 <= self.temperature < math.inf:
      raise ValueError(
        f'temperature is {self.temperature}; it must be 0 or more, and finite.'
      )
    blocks = self.model == 'pair' and loops.LOOPS[self.method].drafts_blocks
    if blocks and (self.gamma is None or self.gamma < 1):
      raise ValueError(f'gamma is {self.gamma}; {self.label} needs 1 or more.')
    if self.truncation == 'top_k' and self.alpha != int(self.alpha or 0):
      raise ValueError(f'top_k is {self.alpha}; it must be a whole number.')
    for truncations in (self._truncations(), self.truncations()):
      distributions.Scaling(**truncations)  # Refuses what means nothing.

  def __str__(self):
    """'SpecCascade [OPT] T=1 alpha=0.2 gamma=5', for people."""
    settings = [self.label, f'T={self.temperature:g}']
    if self.alpha is not None:
      settings.append(f'{self.truncation or "alpha"}={self.alpha:g}')
    if self.gamma is not None:
      settings.append(f'gamma={self.gamma}')
    return ' '.join(settings)

  def _truncations(self) -> dict[str, Any]:
    return {name: getattr(self, name) for name in TRUNCATIONS}

  def truncations(self) -> dict[str, Any]:
    """Strength of every truncation, the method's own in place."""
    if self.truncation is None:
      return self._truncations()
    strength = (
      int(self.alpha or 0) if self.truncation == 'top_k' else self.alpha
    )
    return self._truncations() | {self.truncation: strength}

  @property
  def is_reference(self) -> bool:
    """Whether this is the verifier alone that its company compares with."""
    return self.model == 'verifier' and self.truncation is None

  def config(self) -> dict[str, Any]:
    """The operative config, as JSON: everything that a run depends on."""
    config = dataclasses.asdict(self)
    # What a run does not have is not in its config, lest the runs of older
    # sweeps get other keys.
    absent = ('eta', 'options', 'truncation', 'confidence_temperatures')
    for name in absent:
      if not config[name]:
        del config[name]
    if self.options:
      config['options'] = dict(self.options)
    if self.model != 'pair':
      config['method'] = 'autoregressive'
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
      **self.truncations(),
    }
    if self.model == 'pair':
      ignored = self.alpha is None or self.truncation is not None
      settings |= {
        'method': self.method,
        'rule': self.rule,
        # The rules without a parameter ignore it; it is traced in any case.
        'alpha': 0.0 if ignored else self.alpha,
        **dict(self.options),
      }
      if self.confidence_temperatures is not None:
        name = 'confidence_temperatures'
        settings[name] = self.confidence_temperatures
      if self.verification is not None:
        settings['verification'] = self.verification
      if self.gamma is not None:
        settings['gamma'] = self.gamma
    return settings

  def program(self) -> tuple:
    """What is static under jit: equal programs share one compilation."""
    return (
      self.model,
      self.rule,
      self.verification,
      self.gamma,
      self.temperature == 0,
      self.method,
      self.options,
      *self.truncations().values(),
      self.confidence_temperatures is None,
    )

  def company(self) -> tuple:
    """Runs with equal company are timed side by side and may be compared."""
    return (
      self.temperature,
      self.top_k,
      self.top_p,
      self.min_p,
      self.eta,
      self.trial,
      self.seed,
    )


def _label(method: Method) -> str:
  if method.label:
    return method.label
  title = method.truncation and TRUNCATIONS[method.truncation]
  if method.model != 'pair':
    alone = method.model.capitalize()
    return f'{title} [{method.model}]' if title else alone
  name = name_of(method.rule) if method.rule else ''
  label = _LOOP_LABELS[method.method].format(_TITLES.get(name, name))
  if method.method == 'speculative':
    label = _LABELS.get(name, label)
  if title:
    label = label.replace('SpecDecode', title)
  usual = loops.LOOPS[method.method].options
  for option, value in method.options.items():
    if value != usual[option]:
      label += f', {option} {value:g}'
  if method.confidence_temperatures is not None:
    label += ', calibrated'
  verification = name_of(method.verification)
  if verification == 'verify_tokens':
    return label
  return f'{label}, {_VERIFICATIONS.get(verification, verification)}'


def _pair_of(temperatures: Sequence[float] | None):
  if temperatures is None:
    return None
  drafter, verifier = map(float, temperatures)
  return drafter, verifier


def _calibrated(method: Method, temperatures: Sequence[float] | None) -> Method:
  """The method with the sweep's temperatures, if it can have any."""
  own = method.confidence_temperatures
  alone = method.model != 'pair'
  if own is not None or alone or not loops.reads_confidences(method.rule):
    return method
  return dataclasses.replace(method, confidence_temperatures=temperatures)


def expand(
  methods: Iterable[Method],
  *,
  gammas: Sequence[int],
  temperatures: Sequence[float],
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  eta: float | None = None,
  confidence_temperatures: Sequence[float] | None = None,
  trials: int = 1,
  seed: int = 0,
) -> list[RunPoint]:
  """The grid: temperatures x trials x methods x gammas x alphas.

  `confidence_temperatures` are those of all methods that look at confidences
  and have none of their own.

  What drafts no blocks appears once per temperature, whatever the gammas.

  Raises:
    ValueError: if a point appears twice or a setting is out of range.
  """
  points = []
  scalars.check_confidence_temperatures(confidence_temperatures)
  methods = [_calibrated(m, confidence_temperatures) for m in methods]
  for temperature, trial, method in itertools.product(
    temperatures, range(trials), methods
  ):
    loop = loops.LOOPS[method.method] if method.model == 'pair' else None
    points += [
      RunPoint(
        label=_label(method),
        model=method.model,
        rule=method.rule,
        verification=method.verification
        if loop and loop.takes_verification
        else None,
        alpha=alpha,
        gamma=gamma,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        trial=trial,
        seed=seed,
        eta=eta,
        method=method.method,
        options=tuple(sorted(method.options.items())),
        truncation=method.truncation,
        confidence_temperatures=_pair_of(method.confidence_temperatures),
      )
      for gamma in (gammas if loop and loop.drafts_blocks else (None,))
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


def _numbers(alphas: Sequence[float]) -> tuple[float, ...]:
  try:
    if isinstance(alphas, str):
      raise TypeError
    return tuple(map(float, alphas))
  except (TypeError, ValueError):
    raise ValueError(
      f'alphas is {alphas!r}; it must be a list of numbers, such as (0.2,).'
    ) from None
