"""The law of a text whose blocks matter: drafting, judging and the token after.

Where what follows a kept block is not drawn like what replaces a token, the
law of a text depends on where its blocks begin, so it is walked through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import math
from typing import NamedTuple

from tests.references import distributions
from tests.references import rules
from tests.references import sampler

Probs = Sequence[float]


class Judgement(NamedTuple):
  """What is done with a drafted token at one position."""

  keep: list[float]  # [V] chance that it is kept.
  redraw: list[float]  # [V] law of what replaces it.
  bonus: list[float]  # [V] law of the token behind a kept block.


def lossy(q: Probs, p: Probs, p_conf: Probs, alpha: float) -> Judgement:
  """Lossy speculative decoding with beta = 1."""
  keep = [
    1.0 if alpha >= 1 or a == 0 else min(1.0, b / ((1 - alpha) * a))
    for a, b in zip(q, p)
  ]
  rest = [max(0.0, b - a) for a, b in zip(q, p)]
  redraw = distributions.normalised(rest) if sum(rest) > 0 else list(q)
  return Judgement(keep, redraw, list(p))


def typical(q: Probs, p: Probs, p_conf: Probs, alpha: float) -> Judgement:
  """Medusa's typical acceptance, epsilon = 1 - alpha."""
  epsilon = 1 - alpha
  surprise = distributions.entropy(p_conf)
  limit = min(epsilon, math.sqrt(epsilon) * math.exp(-surprise))
  return Judgement([float(x > limit) for x in p_conf], list(p), list(p))


def bild(q: Probs, p: Probs, p_conf: Probs, alpha: float) -> Judgement:
  """BiLD, rolling back where -log p exceeds alpha."""
  keep = [float(rules.bild_keeps(x, alpha)) for x in p_conf]
  return Judgement(keep, list(p), list(p))


JUDGES: dict[str, Callable[[Probs, Probs, Probs, float], Judgement]] = {
  'lossy': lossy,
  'typical': typical,
  'bild_fixed': bild,
}


def text_law(
  models: Callable[[sampler.Text], tuple[Probs, Probs, Probs, Probs]],
  judge: Callable[[Probs, Probs, Probs], Judgement],
  gamma: int,
  length: int,
  eos: int,
  fallback: float = 0.0,
) -> dict[sampler.Text, float]:
  """The law of a finished text.

  Args:
    models: `x_<t -> q, p` scaled and unscaled, in this order.
    judge: `q, p, p_conf -> Judgement`.
    gamma: a block drafts at most so many tokens,
    length: texts end here at the latest,
    eos: or behind this token.
    fallback: and a block ends where `max q_conf` is below this.
  """
  law: dict[sampler.Text, float] = {}

  def emit(text: sampler.Text, mass: float, drafted: int) -> None:
    if mass <= 0.0:
      return
    if text and (text[-1] == eos or len(text) == length):
      law[text] = law.get(text, 0.0) + mass
      return
    q, p, q_conf, p_conf = models(text)
    keep, redraw, bonus = judge(q, p, p_conf)
    if drafted == gamma or max(q_conf) < fallback:
      for token, chance in enumerate(bonus):
        emit((*text, token), mass * chance, 0)
      return
    rejected = math.fsum(a * (1 - k) for a, k in zip(q, keep))
    for token in range(len(q)):
      emit((*text, token), mass * q[token] * keep[token], drafted + 1)
      emit((*text, token), mass * rejected * redraw[token], 0)

  emit((), 1.0, 0)
  return law
