"""How many calls of the models a run will make, before it is made.

At most: a text goes up to its last token, and no drafted token is kept. As
expected: of N drafted tokens each is kept with the same probability a, so that
a round of gamma tokens gives `1 + a + ... + a^gamma` (Leviathan et al., 2023,
eq. 1) and a text of n tokens takes n over that many rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
import math

from speccascade_jax import loops
from speccascade_jax.evaluation import cost_model
from speccascade_jax.evaluation import methods


@dataclasses.dataclass(frozen=True)
class Calls:
  """Of one text; means where they are expected ones."""

  drafter_steps: float
  verifier_calls: float
  output_tokens: float

  def __add__(self, other: Calls) -> Calls:
    return Calls(
      self.drafter_steps + other.drafter_steps,
      self.verifier_calls + other.verifier_calls,
      self.output_tokens + other.output_tokens,
    )

  def __mul__(self, count: float) -> Calls:
    return Calls(
      self.drafter_steps * count,
      self.verifier_calls * count,
      self.output_tokens * count,
    )


NONE = Calls(0.0, 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Measured:
  """A run that has been made, and what it came to.

  Attributes:
    config: `RunPoint.config` of it.
    texts: the calls of each.
    max_length: most output tokens that a text could have.
    acceptance_rate: of its drafted tokens; None where none is judged.
  """

  config: Mapping[str, object]
  texts: Sequence[Calls]
  max_length: int
  acceptance_rate: float | None

  def tells_of(self, max_length: int) -> bool:
    """Whether texts of up to `max_length` tokens are known by these.

    Longer ones are not, unless all of these ended by themselves.
    """
    return max_length <= self.max_length or all(
      text.output_tokens < self.max_length for text in self.texts
    )

  def mean(self, max_length: int) -> Calls:
    """Of a text that ends at `max_length` tokens at the latest.

    A longer one is taken to have spread its calls evenly over its tokens.
    """
    total = NONE
    for text in self.texts:
      share = min(1.0, max_length / max(text.output_tokens, 1.0))
      total += text * share
    return total * (1 / len(self.texts))


def at_most(point: methods.RunPoint, max_length: int) -> Calls:
  """The most calls that a text of up to `max_length` tokens can take."""
  length = float(max_length)
  if point.model != 'pair':
    drafting = point.model == 'drafter'
    return Calls(length * drafting, length * (not drafting), length)
  return Calls(length * _steps_a_round(point), length, length)


def expected(
  point: methods.RunPoint, measured: Iterable[Measured], max_length: int
) -> Calls | None:
  """The calls of a text, as runs like it have taken them.

  Args:
    point: of the run.
    measured: runs of the same pair on texts of the same kind.
    max_length: most output tokens.

  Returns:
    Those of a run with these very settings; else at the acceptance rate of
    the run that differs in gamma alone; else None.
  """
  measured = [run for run in measured if run.tells_of(max_length)]
  wanted = _settings(point.config())
  for run in measured:
    if _settings(run.config) == wanted:
      return run.mean(max_length)
  if point.gamma is None or not loops.LOOPS[point.method].judges:
    return None
  near = [
    run
    for run in measured
    if run.acceptance_rate is not None
    and _settings(run.config, 'gamma') == _settings(point.config(), 'gamma')
  ]
  if not near:
    return None
  like = min(near, key=lambda run: abs(_gamma(run) - (point.gamma or 0)))
  length = like.mean(max_length).output_tokens
  assert like.acceptance_rate is not None  # Such were looked for.
  return at_acceptance(point, like.acceptance_rate, length)


def at_acceptance(
  point: methods.RunPoint, acceptance_rate: float, length: float
) -> Calls:
  """The calls of a text of `length` tokens if drafted ones are kept so often.

  Raises:
    ValueError: if the rate is none.
  """
  if not 0 <= acceptance_rate <= 1:
    raise ValueError(
      f'acceptance_rate is {acceptance_rate!r}; it must be from 0 to 1.'
    )
  gamma = point.gamma or 0
  tokens_a_round = sum(acceptance_rate**i for i in range(gamma + 1))
  rounds = length / tokens_a_round
  return Calls(rounds * _steps_a_round(point), rounds, length)


def milliseconds(
  calls: Calls,
  point: methods.RunPoint,
  times: Mapping[str, float],
  *,
  max_length: int,
) -> float | None:
  """What they take by the cost model.

  Args:
    calls: of one text.
    point: of the run.
    times: see `base.Timed`. For a width that was not timed the next one that
      was is taken.
    max_length: most output tokens.

  Returns:
    None if no call as wide as the run needs was timed.
  """
  timed = cost_model.timed_widths(times)
  filled = dict(times)
  for width in cost_model.widths([point], max_length=max_length):
    wider = [w for w in timed if w >= width]
    if not wider:
      return None
    filled[f'verifier_{width}'] = times[f'verifier_{min(wider)}']
  return cost_model.milliseconds(
    dataclasses.asdict(calls), point, filled, max_length=max_length
  )


def _steps_a_round(point: methods.RunPoint) -> int:
  return 1 if point.gamma is None else point.gamma + 1


def _settings(config: Mapping[str, object], *but: str) -> Mapping[str, object]:
  """What decides how many calls there are; draws of all seeds are alike."""
  left_out = ('label', 'trial', 'seed', *but)
  # What is stored has taken the detour through JSON.
  plain = json.loads(json.dumps(dict(config)))
  return {k: v for k, v in plain.items() if k not in left_out}


def _gamma(run: Measured) -> float:
  gamma = run.config.get('gamma')
  return gamma if isinstance(gamma, int) else math.inf
