"""Which way of drawing a token, and of truncating, costs least?

    python experiments/benchmarks/sampling.py

Prints a Markdown table of the best time of a jitted call in microseconds, for
vocabularies of 4,096 to 262,144 tokens and 1 or 8 rows. The choice that it led
to stands in `speccascade_jax/distributions.py`.
"""

from __future__ import annotations

from collections.abc import Callable
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np

from speccascade_jax import distributions

VOCABULARIES = (4_096, 32_128, 262_144)
ROWS = (1, 8)
SECONDS = 1.0  # Of repeating each call.


def search_cumsum(weights, u):
  """Inverse CDF over the whole vocabulary at once."""
  cumulative = jnp.cumsum(weights, axis=-1)
  mass = u * cumulative[:, -1]
  return jax.vmap(lambda c, m: jnp.searchsorted(c, m, side='right'))(
    cumulative, mass
  )


def gumbel(weights, key):
  """The arg max of log weights plus Gumbel noise for every token."""
  noise = jax.random.gumbel(key, weights.shape)
  return jnp.argmax(jnp.log(weights) + noise, axis=-1)


def sorted_top_p(probs, mass=0.9):
  """Top-p as it is usually written, with a sort of the vocabulary."""
  order = jnp.sort(probs, axis=-1)[:, ::-1]
  needed = (jnp.cumsum(order, axis=-1) < mass).sum(axis=-1, keepdims=True)
  threshold = jnp.take_along_axis(order, needed, axis=-1)
  kept = jnp.where(probs >= threshold, probs, 0.0)
  return kept / kept.sum(axis=-1, keepdims=True)


def scale(**truncation) -> Callable:
  """`distributions.scale` with that truncation, at temperature 1."""
  scaling = distributions.Scaling(**truncation)
  return lambda logits: distributions.scale(logits, scaling, 1.0)


def best_us(function: Callable, *args) -> float:
  """The best time of a jitted call in microseconds, compilation excluded."""
  function = jax.jit(function)
  jax.block_until_ready(function(*args))
  times = []
  end = time.perf_counter() + SECONDS
  while time.perf_counter() < end or len(times) < 5:
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    times.append(time.perf_counter() - start)
  return 1e6 * min(times)


def main() -> None:
  """Prints the table."""
  device = jax.devices()[0]
  print(f'{device.device_kind} ({platform.processor()}), jax {jax.__version__}')
  rng = np.random.default_rng(0)
  names = (
    'draw',
    'cumsum + search',
    'Gumbel arg max',
    'softmax',
    'top-k 40',
    'top-p 0.9',
    'top-p by sorting',
  )
  print('| V | rows |', ' | '.join(names), '|')
  print('|' + '---:|' * (len(names) + 2))
  for size in VOCABULARIES:
    for rows in ROWS:
      logits = jnp.asarray(3.0 * rng.standard_normal((rows, size)), 'float32')
      probs = distributions.softmax(logits)
      u = jnp.asarray(rng.random(rows), 'float32')
      calls = (
        (distributions.draw, probs, u),
        (search_cumsum, probs, u),
        (gumbel, probs, jax.random.key(0)),
        (scale(), logits),
        (scale(top_k=40), logits),
        (scale(top_p=0.9), logits),
        (lambda logits: sorted_top_p(scale()(logits)), logits),
      )
      figures = ' | '.join(f'{best_us(*call):,.0f}' for call in calls)
      print(f'| {size:,} | {rows} | {figures} |', flush=True)


if __name__ == '__main__':
  main()
