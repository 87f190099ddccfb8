"""Exact laws of one verification: toy models, and integrals over uniforms.

A verdict is a step function of its uniforms. The steps are found by bisection
over the 2^24 values of a float32 uniform, through the function under test and
nothing else, so that what comes out is the law of the function, not of a
formula that it is believed to follow.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from tests.references import distributions as naive_distributions
from tests.references import rules as naive_rules
from tests.references import sampler

GRID = 1 << 24  # Float32 uniforms are multiples of 1 / GRID.


@dataclasses.dataclass(frozen=True)
class Tables:
  """Two toy models with a distribution of their own for every history."""

  vocab_size: int
  histories: list[tuple[int, ...]]  # All of up to gamma tokens.
  q_logits: np.ndarray  # [histories, V]
  p_logits: np.ndarray  # [histories, V]

  @classmethod
  def random(cls, vocab_size: int, gamma: int, seed: int = 0) -> Tables:
    """Drafter and verifier that agree to some extent."""
    histories = [
      history
      for length in range(gamma + 1)
      for history in itertools.product(range(vocab_size), repeat=length)
    ]
    rng = np.random.default_rng(seed)
    shared, a, b = rng.standard_normal((3, len(histories), vocab_size))
    return cls(
      vocab_size,
      histories,
      (shared + 0.7 * a).astype(np.float32),
      (1.5 * shared + b).astype(np.float32),
    )

  def row(self, history: tuple[int, ...]) -> int:
    """Where a history stands."""
    v = self.vocab_size
    shorter = sum(v**length for length in range(len(history)))
    return shorter + sum(d * v**i for i, d in enumerate(history[::-1]))

  def scaled(self, temperature: float) -> tuple[base.Array, base.Array]:
    """The package's `q, p`, `[histories, V]`."""
    scaling = distributions.Scaling(greedy=temperature == 0.0)
    return tuple(
      distributions.scale(jnp.asarray(x), scaling, temperature or 1.0)
      for x in (self.q_logits, self.p_logits)
    )

  def target(self, rule: base.Rule, alpha: float, temperature: float):
    """The package's Target over all histories."""
    confident = (
      distributions.softmax(jnp.asarray(x))
      for x in (self.q_logits, self.p_logits)
    )
    call = jax.jit(functools.partial(deferral.apply, rule))
    return call(*self.scaled(temperature), *confident, jnp.float32(alpha))

  def naive_pi(
    self, name: str, alpha: float, temperature: float
  ) -> list[list[float]]:
    """The reference's pi over all histories, from the logits on."""
    rule = naive_rules.RULES[name]
    pi = []
    for q, p in zip(self.q_logits.tolist(), self.p_logits.tolist()):
      scaled = (naive_distributions.scaled(x, temperature) for x in (q, p))
      confident = (naive_distributions.softmax(x) for x in (q, p))
      pi.append(rule(*scaled, *confident, alpha))
    return pi

  def blocks(self, gamma: int) -> tuple[np.ndarray, np.ndarray]:
    """All blocks `[N, G]` and the rows they walk along `[N, G+1]`."""
    drafted = list(itertools.product(range(self.vocab_size), repeat=gamma))
    rows = [[self.row(d[:i]) for i in range(gamma + 1)] for d in drafted]
    return np.array(drafted), np.array(rows)


@dataclasses.dataclass(frozen=True)
class Cells:
  """What a verification does with N blocks in each of its C = 2^G cells."""

  thresholds: np.ndarray  # [N, G] the value of u_i at which the verdict steps.
  below: np.ndarray  # [C, G] bool: in cell c, is u_i below its threshold?
  mass: np.ndarray  # [N, C] volume of the cell.
  accepted: np.ndarray  # [N, C] accepted length there.
  next_law: np.ndarray  # [N, C, V] law of the next token there.
  provenance: np.ndarray  # [N, C, G+1]

  def accepted_law(self) -> np.ndarray:
    """`[N, G+1]`, the probability of every accepted length."""
    lengths = np.arange(self.thresholds.shape[1] + 1)
    same = self.accepted[:, :, None] == lengths
    return (self.mass[:, :, None] * same).sum(axis=1)


def integrate(
  verify: base.Verify,
  drafted: np.ndarray,
  q: base.Array,
  target: base.Target,
) -> Cells:
  """Takes the integral of `verify` over all its uniforms.

  Args:
    verify: the function under test.
    drafted: `[N, G]`.
    q: `[N, G+1, V]`.
    target: over `[N, G+1, V]`.
  """
  gamma = drafted.shape[1]
  below = np.array(list(itertools.product((True, False), repeat=gamma)))
  steps, tokens, accepted, provenance = _integrate(
    verify, below, drafted, q, target
  )
  thresholds = np.asarray(steps, np.float64) / GRID
  mass = np.where(below, thresholds[:, None], 1 - thresholds[:, None])
  cumulative = np.asarray(tokens, np.float64) / GRID
  return Cells(
    thresholds=thresholds,
    below=below,
    mass=mass.prod(axis=-1),
    accepted=np.asarray(accepted),
    next_law=np.diff(cumulative, axis=-1, prepend=0.0),
    provenance=np.asarray(provenance),
  )


@functools.partial(jax.jit, static_argnames='verify')
def _integrate(verify, below, drafted, q, target):
  blocks, gamma = drafted.shape
  size = q.shape[-1]

  def repeat(count):
    def each(x):
      return jnp.repeat(x, count, axis=0)

    return each(drafted), each(q), jax.tree.map(each, target)

  # Where u_i alone decides whether i tokens are kept: everything before it
  # is kept if it can be, everything behind it is not if it need not be.
  inputs = repeat(gamma)
  i, j = jnp.indices((gamma, gamma))

  def long_enough(u):
    rest = jnp.where(j < i, 0, GRID - 1)
    u = jnp.where(i == j, u.reshape(-1, gamma, 1), rest) / GRID
    verdict = verify(*inputs, u.reshape(-1, gamma), jnp.zeros(blocks * gamma))
    return verdict.accepted.reshape(-1, gamma) > jnp.arange(gamma)

  steps = _bisect(long_enough, (blocks, gamma))

  # The middle of every cell: at its border another compilation may round a
  # threshold to the other side. Empty cells get a point of some other cell.
  middle = jnp.where(below, steps[:, None], steps[:, None] + GRID) // 2
  points = jnp.minimum(middle, GRID - 1) / GRID  # [N, C, G]
  cells = len(below)

  def at_cells(u_next):
    count = cells * u_next.shape[-1]
    u = jnp.repeat(points.reshape(-1, gamma), u_next.shape[-1], axis=0)
    return verify(*repeat(count), u, u_next.reshape(-1) / GRID)

  def small_enough(u):
    tokens = at_cells(u).next_token.reshape(-1, cells, size)
    return tokens <= jnp.arange(size)

  tokens = _bisect(small_enough, (blocks, cells, size))
  verdict = at_cells(jnp.zeros((blocks, cells, 1), jnp.int32))
  accepted = verdict.accepted.reshape(blocks, cells)
  return (
    steps,
    tokens,
    accepted,
    verdict.provenance.reshape(*points.shape[:2], -1),
  )


def _bisect(
  holds: Callable[[base.Array], base.Array], shape: tuple[int, ...]
) -> base.Array:
  """For how many of the GRID uniforms, from 0 on, `holds`; elementwise."""

  def halve(_, bounds):
    low, high = bounds  # Holds below low, does not from high on.
    middle = (low + high) // 2
    good = holds(middle)
    done = low == high
    return (
      jnp.where(good & ~done, middle + 1, low),
      jnp.where(good | done, high, middle),
    )

  low = jnp.zeros(shape, jnp.int32)
  return jax.lax.fori_loop(0, 25, halve, (low, low + GRID))[0]


def emitted_law(
  cells: Cells,
  drafted: np.ndarray,
  block_mass: np.ndarray,
  next_dist: Callable[[sampler.Text], list[float]],
) -> dict[sampler.Text, float]:
  """The law of G + 1 tokens when a verification emits the first of them.

  Args:
    cells: the verification, for all blocks.
    drafted: `[N, G]` the blocks.
    block_mass: `[N]` their probabilities.
    next_dist: samples the tokens that are still missing.
  """
  gamma = drafted.shape[1]
  begun: dict[sampler.Text, float] = {}
  joint = block_mass[:, None, None] * cells.mass[..., None] * cells.next_law
  for n, c, token in zip(*np.nonzero(joint)):
    text = (*drafted[n, : cells.accepted[n, c]].tolist(), int(token))
    begun[text] = begun.get(text, 0.0) + joint[n, c, token]
  law: dict[sampler.Text, float] = {}
  for text, mass in begun.items():
    rest = (
      sampler.sequential_law(
        lambda more, text=text: next_dist(text + more), gamma + 1 - len(text)
      )
      if len(text) <= gamma
      else {(): 1.0}
    )
    for more, chance in rest.items():
      law[text + more] = law.get(text + more, 0.0) + mass * chance
  return law
