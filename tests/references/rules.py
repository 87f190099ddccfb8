"""The paper's table of target distributions, one position at a time.

Each rule takes four lists over the vocabulary and alpha, and returns pi. The
lossy ones are written as the procedure that defines them, accept or redraw,
not as the closed form of its law.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import math

from tests.references import distributions

Probs = Sequence[float]
Rule = Callable[[Probs, Probs, Probs, Probs, float], list[float]]


def _choose(defer: bool, q: Probs, p: Probs) -> list[float]:
  r = float(defer)
  return [(1.0 - r) * a + r * b for a, b in zip(q, p)]


def _choose_tokens(defer: Sequence[bool], q: Probs, p: Probs) -> list[float]:
  eta = math.fsum(a for a, r in zip(q, defer) if r)
  return [a * (1 - r) + b * eta for a, b, r in zip(q, p, defer)]


def verifier_only(q, p, q_conf, p_conf, alpha):
  return list(p)


def drafter_only(q, p, q_conf, p_conf, alpha):
  return list(q)


def chow(q, p, q_conf, p_conf, alpha):
  return _choose(max(q_conf) < 1 - alpha, q, p)


def chow_log(q, p, q_conf, p_conf, alpha):
  return _choose(distributions.entropy(q_conf) > alpha, q, p)


def diff(q, p, q_conf, p_conf, alpha):
  return _choose(max(q_conf) < max(p_conf) - alpha, q, p)


def diff_log(q, p, q_conf, p_conf, alpha):
  h_q, h_p = map(distributions.entropy, (q_conf, p_conf))
  return _choose(h_q > h_p + alpha, q, p)


def opt(q, p, q_conf, p_conf, alpha):
  cost = alpha * distributions.total_variation(p, q)
  return _choose(max(q_conf) < max(p_conf) - cost, q, p)


def opt_log(q, p, q_conf, p_conf, alpha):
  cost = alpha * distributions.total_variation(p, q)
  h_q, h_p = map(distributions.entropy, (q_conf, p_conf))
  return _choose(h_q > h_p + cost, q, p)


def token_v1(q, p, q_conf, p_conf, alpha):
  return _choose_tokens([x < max(p_conf) - alpha for x in q_conf], q, p)


def token_v2(q, p, q_conf, p_conf, alpha):
  return _choose_tokens([x < max(p_conf) - alpha for x in p_conf], q, p)


def token_v3(q, p, q_conf, p_conf, alpha):
  limit = (1 - alpha) * max(p_conf)
  return _choose_tokens([x < limit for x in p_conf], q, p)


def lossy(q, p, q_conf, p_conf, alpha):
  return accept_or_redraw(q, p, alpha, beta=1.0)


def lossy_exact(q, p, q_conf, p_conf, alpha):
  return accept_or_redraw(q, p, alpha, lemma_2_beta(q, p, alpha))


def typical(q, p, q_conf, p_conf, alpha):
  epsilon = max(0.0, 1 - alpha)
  limit = min(
    epsilon, math.sqrt(epsilon) * math.exp(-distributions.entropy(p_conf))
  )
  return keep_or_redraw(q, p, [alpha >= 1 or x > limit for x in p_conf])


def bild_fixed(q, p, q_conf, p_conf, alpha):
  return keep_or_redraw(q, p, [bild_keeps(x, alpha) for x in p_conf])


def bild_keeps(chance: float, rollback: float) -> bool:
  """Whether BiLD keeps a token to which the verifier gives this chance."""
  return (-math.log(chance) if chance > 0 else math.inf) <= rollback


def keep_or_redraw(q: Probs, p: Probs, keep: Sequence[bool]) -> list[float]:
  """Drafted tokens where `keep`, else one from p."""
  rejected = math.fsum(a for a, k in zip(q, keep) if not k)
  return [a * k + rejected * b for a, b, k in zip(q, p, keep)]


def ensemble(q, p, q_conf, p_conf, alpha):
  weight = 1 - alpha  # The verifier's lambda.
  return [(1 - weight) * a + weight * b for a, b in zip(q, p)]


def accept_or_redraw(q: Probs, p: Probs, alpha: float, beta: float):
  """What lossy speculative decoding emits at one position."""
  keep = [
    1.0 if alpha >= 1 or a == 0 else min(1.0, b / ((1 - alpha) * a))
    for a, b in zip(q, p)
  ]
  rejected = math.fsum(a * (1 - k) for a, k in zip(q, keep))
  pi = [a * k for a, k in zip(q, keep)]
  redraw = [max(0.0, b / beta - a) for a, b in zip(q, p)]
  if sum(redraw) > 0:
    redrawn = distributions.normalised(redraw)
    pi = [x + rejected * y for x, y in zip(pi, redrawn)]
  return pi


def lemma_2_beta(q: Probs, p: Probs, alpha: float) -> float:
  """The beta with `sum_v max(min(q, p / (1 - alpha)), p / beta) = 1`."""

  def excess(beta: float) -> float:
    kept = [a if alpha >= 1 else min(a, b / (1 - alpha)) for a, b in zip(q, p)]
    return math.fsum(max(k, b / beta) for k, b in zip(kept, p)) - 1.0

  low, high = max(1 - alpha, 1e-12), 1e12
  for _ in range(200):
    middle = math.sqrt(low * high)
    low, high = (middle, high) if excess(middle) > 0 else (low, middle)
  return high


RULES: dict[str, Rule] = {
  rule.__name__: rule
  for rule in (
    verifier_only,
    drafter_only,
    chow,
    chow_log,
    diff,
    diff_log,
    opt,
    opt_log,
    token_v1,
    token_v2,
    token_v3,
    lossy,
    lossy_exact,
    typical,
    bild_fixed,
    ensemble,
  )
}
