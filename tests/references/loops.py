"""The greedy loops of the sequential baselines, one row at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from tests.references import rules
from tests.references import sampler

Models = Callable[[sampler.Text], tuple[Sequence[float], Sequence[float]]]


@dataclasses.dataclass
class Row:
  """A text and what it cost; `authors` has D, V or R for every token."""

  text: list[int] = dataclasses.field(default_factory=list)
  authors: str = ''
  drafter_steps: int = 0
  verifier_calls: int = 0
  drafted: int = 0


def _best(probs: Sequence[float]) -> int:
  return list(probs).index(max(probs))


def token_cascade(models: Models, defers, length: int, eos: int) -> Row:
  """Algorithm 2; `defers(q)` decides, `models: x_<t -> q, p` unscaled."""
  row = Row()
  while len(row.text) < length and eos not in row.text:
    q, p = models(tuple(row.text))
    row.drafter_steps += 1
    if defers(q):
      row.verifier_calls += 1
      row.text.append(_best(p))
      row.authors += 'V'
    else:
      row.drafted += 1
      row.text.append(_best(q))
      row.authors += 'D'
  return row


def bild(
  models: Models,
  fallback: float,
  rollback: float,
  gamma: int,
  length: int,
  eos: int,
) -> Row:
  """Big Little Decoder with blocks of at most gamma tokens."""
  row = Row()
  while len(row.text) < length and eos not in row.text:
    draft: list[int] = []
    while True:
      q, _ = models((*row.text, *draft))
      row.drafter_steps += 1
      if max(q) < fallback or len(draft) == gamma:
        break
      draft.append(_best(q))
    row.drafted += len(draft)
    row.verifier_calls += 1
    authors = ''
    new: list[int] = []
    for token in draft:
      _, p = models((*row.text, *new))
      if not rules.bild_keeps(p[token], rollback):
        authors += 'R'
        new.append(_best(p))
        break
      authors += 'D'
      new.append(token)
    else:
      _, p = models((*row.text, *new))
      authors += 'V'
      new.append(_best(p))
    if eos in new:
      new = new[: new.index(eos) + 1]
    new = new[: length - len(row.text)]
    row.text += new
    row.authors += authors[: len(new)]
  return row
