"""What sampling adds to a step of a drafter, truncations included.

    python experiments/benchmarks/sampling_share.py

Prints a Markdown table: milliseconds of a drafter's step without sampling (the
token is fixed in advance), and what `sampling.sample` adds to it, in percent of
the step. Three drafters in float32 at batch size 1: the one that ships, and
random weights in the shape of T5 v1.1 small with its own vocabulary and with
one of Gemma 3's size. Steps are timed inside one jitted loop, so that the cost
of a call does not count; variants take turns, and medians are shown.
"""

from __future__ import annotations

import statistics
import time

import jax
import jax.numpy as jnp

import speccascade_jax as sc
from speccascade_jax import distributions
from speccascade_jax.decoding import sampling
from speccascade_jax.models import families
from speccascade_jax.models.t5 import config as t5_config
from speccascade_jax.models.t5 import step_model

STEPS = 64  # A loop; the same for every variant.
REPEATS = 15
VARIANTS = {
  'greedy': distributions.Scaling(greedy=True),
  'T = 1': distributions.Scaling(),
  'top-k 40': distributions.Scaling(top_k=40),
  'top-p 0.9': distributions.Scaling(top_p=0.9),
  'min-p 0.05': distributions.Scaling(min_p=0.05),
}


def drafters():
  """Yields (name, step functions, parameters)."""
  shipped = sc.load_pair('debian').drafter
  yield 'shipped', shipped.step, shipped.params
  for vocab_size in (32_128, 262_144):
    config = t5_config.T5Config(
      vocab_size=vocab_size,
      emb_dim=512,
      num_heads=6,
      head_dim=64,
      mlp_dim=1024,
      num_encoder_layers=8,
      num_decoder_layers=8,
      mlp_activations=('gelu', 'linear'),
      logits_via_embedding=False,
    )
    params = families.init(config, jax.random.key(0))
    yield 'T5 small', step_model.step_model(config), params


def loop(step, params, scaling):
  """A jitted loop of STEPS steps; None leaves the sampling out."""
  inputs = jnp.full((1, 64), 5, jnp.int32)
  keys = jax.random.split(jax.random.key(1), 1)

  @jax.jit
  def run(params):
    start = step.start(params, inputs, STEPS)

    def body(i, carry):
      cache, token, _ = carry
      lengths = jnp.full((1,), i)
      logits, cache = step.extend(params, cache, token[:, None], lengths)
      logits = logits[:, 0]
      if scaling is not None:
        u = sampling.uniforms(keys, i, 1)[:, 0]
        token = sampling.sample(logits, u, scaling, jnp.float32(1.0))
      # The logits stay alive, so that the head is computed in any case.
      return cache, token, logits

    carry = (start.cache, start.token, jnp.zeros((1, step.vocab_size)))
    return jax.lax.fori_loop(0, STEPS, body, carry)[1:]

  jax.block_until_ready(run(params))
  return lambda: jax.block_until_ready(run(params))


def main() -> None:
  """Prints the table."""
  print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}, float32')
  print('| drafter | V | step, ms |', ' | '.join(VARIANTS), '|')
  print('|:--|' + '--:|' * (len(VARIANTS) + 2))
  for name, step, params in drafters():
    runs = {'bare': loop(step, params, None)}
    for variant, scaling in VARIANTS.items():
      runs[variant] = loop(step, params, scaling)
    times = {variant: [] for variant in runs}
    for _ in range(REPEATS):
      for variant, run in runs.items():
        start = time.perf_counter()
        run()
        times[variant].append(1e3 * (time.perf_counter() - start) / STEPS)
    bare = statistics.median(times['bare'])
    # Paired: what one round of turns has in common cancels.
    shares = [
      statistics.median(
        100.0 * (t / b - 1.0) for t, b in zip(times[v], times['bare'])
      )
      for v in VARIANTS
    ]
    cells = ' | '.join(f'{share:+.0f} %' for share in shares)
    print(
      f'| {name} | {step.vocab_size:,} | {bare:.2f} | {cells} |', flush=True
    )


if __name__ == '__main__':
  main()
