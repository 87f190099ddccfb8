"""A judge that knows the truth: what it is asked about comes from its logits.

Every text is a row of positions, whose tokens were drawn from
`softmax(logits)`. The drafter reports `factor * logits`: it is calibrated at
factor 1, and at temperature `factor` otherwise; the verifier always reports the
logits.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import calibrating

TOKENS, V = 40, 6
IDENTITY = {
  **{'task': 'synthetic', 'pair': 'none', 'pair_digest': '0123'},
  **{'split': 'validation', 'held_out_split': 'test'},
}


def examples(count: int, first: int = 0) -> list[base.Example]:
  """Sources are their own numbers, by which the judge finds the logits."""
  return [
    base.Example(example=3 * i, source=str(first + i), target=f'text {i}')
    for i in range(count)
  ]


@dataclasses.dataclass
class Judgement:
  confidence: np.ndarray
  surprisal: np.ndarray
  correct: np.ndarray
  there: np.ndarray
  truncated: np.ndarray


@dataclasses.dataclass
class Judge:
  """Stops with an error at the call that is number `dies_at`."""

  factor: float = 1.0
  dies_at: int | None = None
  calls: list[dict] = dataclasses.field(default_factory=list)

  def logits(self, source: str) -> tuple[np.ndarray, np.ndarray]:
    """`[TOKENS, V]` of a text, and the tokens `[TOKENS]` drawn from them."""
    rng = np.random.default_rng(int(source))
    logits = 2.0 * rng.standard_normal((TOKENS, V))
    # By Gumbel's trick.
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(-1)

  def judge(self, texts, targets, *, model, temperatures, **settings):
    if len(self.calls) == self.dies_at:
      raise KeyboardInterrupt
    self.calls.append(
      dict(settings, texts=texts, model=model, temperatures=temperatures)
    )
    factor = self.factor if model == 'drafter' else 1.0
    logits, tokens = (np.stack(x) for x in zip(*map(self.logits, texts)))
    scaled = factor * logits / np.reshape(temperatures, (-1, 1, 1, 1))
    top = scaled.max(-1, keepdims=True)
    total = top[..., 0] + np.log(np.exp(scaled - top).sum(-1))
    own = np.take_along_axis(scaled, tokens[None, ..., None], -1)[..., 0]
    # Ragged: the last `number % 5` positions are not of the text.
    lengths = np.array([TOKENS - int(text) % 5 for text in texts])
    return Judgement(
      confidence=np.exp(top[..., 0] - total),
      surprisal=total - own,
      correct=logits.argmax(-1) == tokens,
      there=np.arange(TOKENS) < lengths[:, None],
      truncated=np.array([text == '1' for text in texts]),
    )


def calibrate(judge, path, count=6, **changes):
  """Runs `calibrating.calibrate` on a few texts; returns its summary."""
  settings = dict(
    identity=IDENTITY,
    input_lengths=(8, 9),
    max_length=TOKENS,
    ends=True,
    batch_size=4,
    bins=15,
    seed=0,
    replicates=20,
    operative_config='# gin',
    progress=False,
  )
  return calibrating.calibrate(
    judge,
    examples(count),
    examples(count, first=10_000),
    path,
    **{**settings, **changes},
  )
