"""Large shapes on one GPU: this package, and transformers beside it.

    pip install '.[cuda]' -r experiments/benchmarks/requirements.txt
    python -m experiments.benchmarks.gpu --output=build/gpu.json

Random bfloat16 weights, batch 1, greedy: T5 v1.1 small drafting for XL, Gemma 2
2B for 9B, at acceptances of 0.6, 0.8 and 0.95 (see `scripted`). Each library
runs in a process of its own, one after the other; transformers decodes with its
default cache, with a static cache (which it compiles) and assisted. The floor
of a call is the bytes of its weights over the bandwidth that this run measures.

`--pairs tiny_t5 tiny_gemma` is quick on any machine and says nothing of speed.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import scripted
from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax.checkpoints import hf_configs
from speccascade_jax.decoding import autoregressive
from speccascade_jax.decoding import speculative
from speccascade_jax.evaluation import environment
from speccascade_jax.launch import model_names
from speccascade_jax.models import families

PAIRS = {
  't5': ('t5_1_1_small', 't5_1_1_xl'),
  'gemma': ('gemma_2_2b', 'gemma_2_9b'),
  'tiny_t5': ('t5_debian_drafter', 't5_debian_verifier'),
  'tiny_gemma': ('gemma_debian_drafter', 'gemma_debian_verifier'),
}
ACCEPTANCES = (0.6, 0.8, 0.95)
INPUT_LENGTH, MAX_LENGTH = 64, 128
_GREEDY = distributions.Scaling(greedy=True)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What both libraries are asked.

  Attributes:
    pair: a name of `PAIRS`.
    gamma: tokens drafted a round.
    rounds: timed repetitions; medians are reported.
    dtype: of weights and activations.
  """

  pair: str
  gamma: int
  rounds: int
  dtype: str

  def configs(self) -> list[families.Config]:
    """Drafter's and verifier's shape."""
    return [
      dataclasses.replace(model_names.config(name), dtype=self.dtype)
      for name in PAIRS[self.pair]
    ]

  def inputs(self) -> np.ndarray:
    """`[1, S]`; nothing in it is special."""
    return np.random.default_rng(0).integers(
      3, self.configs()[0].vocab_size, (1, INPUT_LENGTH)
    )


def ours(settings: Settings) -> dict:
  """Milliseconds per token, per call and per round, and their floors."""
  models, params = [], []
  for seed, config in enumerate(settings.configs()):
    models.append(families.step_model(config))
    params.append(_random_params(config, seed))
  inputs = jnp.asarray(settings.inputs(), jnp.int32)
  keys = jax.random.split(jax.random.key(0), 1)
  verifier = scripted.step_model(models[1])
  common = {'max_length': MAX_LENGTH, 'scaling': _GREEDY}
  drafter = scripted.drafter(models[0])
  alone = {
    name: _ms_per_token(
      lambda model=model, params=params: autoregressive.decode(
        model, params, inputs, keys, **common
      ),
      settings.rounds,
    )
    for name, model, params in (
      ('drafter', drafter, scripted.told(params[0], 1.0)),
      ('verifier', verifier, params[1]),
    )
  }
  bandwidth = _bandwidth()
  floors = {
    name: 1e3 * _decoded_bytes(of) / bandwidth
    for name, of in zip(('drafter', 'verifier'), params, strict=True)
  }
  round_floor = (settings.gamma + 1) * floors['drafter'] + floors['verifier']
  found = {
    'device': environment.device(),
    'versions': environment.versions(),
    'bandwidth_gb_per_s': bandwidth / 1e9,
    'drafter_floor_ms': floors['drafter'],
    'verifier_floor_ms': floors['verifier'],
    'round_floor_ms': round_floor,
  }
  for name in floors:
    found[f'{name}_ms_per_token'] = alone[name]['ms_per_token']
    found[f'{name}_compile_s'] = alone[name]['compile_s']
    found[f'{name}_floor_ratio'] = alone[name]['ms_per_token'] / floors[name]
  found['acceptance'] = {}
  for acceptance in ACCEPTANCES:
    share = scripted.told(params[0], acceptance)
    timed = _ms_per_token(
      lambda share=share: speculative.decode(
        drafter,
        verifier,
        share,
        params[1],
        inputs,
        keys,
        alpha=0.0,
        rule=deferral.verifier_only,
        gamma=settings.gamma,
        **common,
      ),
      settings.rounds,
    )
    calls = int(timed.pop('out').counters.verifier_calls[0])
    round_ms = timed['ms_per_token'] * MAX_LENGTH / calls
    found['acceptance'][str(acceptance)] = {
      **timed,
      'verifier_calls': calls,
      'round_ms': round_ms,
      'round_floor_ratio': round_ms / round_floor,
      'speedup': alone['verifier']['ms_per_token'] / timed['ms_per_token'],
    }
  memory = jax.devices()[0].memory_stats()
  if memory is not None:  # A CPU does not say.
    found['peak_memory_gb'] = memory['peak_bytes_in_use'] / 1e9
  return found


def theirs(settings: Settings) -> dict:
  """The same through transformers."""
  # Here, so that the other process does without PyTorch.
  import torch
  import transformers

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  dtype = getattr(torch, settings.dtype)
  configs = settings.configs()
  networks = []
  for config in configs:
    shape = transformers.AutoConfig.for_model(**hf_configs.write(config))
    kind = (
      transformers.AutoModelForSeq2SeqLM
      if shape.is_encoder_decoder
      else transformers.AutoModelForCausalLM
    )
    with torch.device(device):
      network = kind.from_config(shape, dtype=dtype).eval()
    if shape.is_encoder_decoder:
      # A cache gets as many layers as the encoder has, and is indexed by the
      # decoder's.
      network.config.num_layers = network.config.num_decoder_layers
      # Which `hf_configs` does without where the decoder is deeper.
      network.config.use_cache = network.generation_config.use_cache = True
    networks.append(network)
  drafter, verifier = networks
  size = configs[1].vocab_size
  ids = torch.tensor(settings.inputs(), device=device)
  calls = [0]

  def overrule(acceptance):
    hook = scripted.hook(size, acceptance)
    return drafter.register_forward_hook(hook, with_kwargs=True)

  def count(*_):
    calls[0] += 1

  verifier.register_forward_hook(scripted.hook(size), with_kwargs=True)
  verifier.register_forward_hook(count)

  def generate(**options):
    with torch.inference_mode():
      answer = verifier.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=MAX_LENGTH,
        min_new_tokens=MAX_LENGTH,
        do_sample=False,
        **options,
      )
    return answer[0, -MAX_LENGTH:].tolist()  # On the host: it has been done.

  found = {
    'device': torch.cuda.get_device_name() if device == 'cuda' else 'cpu',
    'versions': {
      'torch': torch.__version__,
      'transformers': transformers.__version__,
    },
  }
  for name, options in (
    ('verifier', {}),
    ('verifier_static_cache', {'cache_implementation': 'static'}),
  ):
    try:
      timed = _ms_per_token(lambda o=options: generate(**o), settings.rounds)
      found[f'{name}_ms_per_token'] = timed['ms_per_token']
    except Exception as error:  # What does not compile is part of the result.
      found[f'{name}_error'] = f'{type(error).__name__}: {error}'
  config = drafter.generation_config
  config.num_assistant_tokens = settings.gamma
  config.num_assistant_tokens_schedule = 'constant'
  config.assistant_confidence_threshold = 0.0
  options = {'assistant_model': drafter}
  if verifier.config.is_encoder_decoder:
    # Or the assistant is fed its whole prefix again in some versions.
    mask = torch.ones((1, 1), dtype=torch.long, device=device)
    options['decoder_attention_mask'] = mask
  found['acceptance'] = {}
  for acceptance in ACCEPTANCES:
    handle = overrule(acceptance)
    timed = _ms_per_token(lambda: generate(**options), settings.rounds)
    timed.pop('out')
    calls[0] = 0
    generate(**options)
    handle.remove()
    found['acceptance'][str(acceptance)] = timed | {'verifier_calls': calls[0]}
  return found


def _random_params(config: families.Config, seed: int) -> base.Params:
  """Normal with a deviation of 0.02, tensor by tensor.

  `families.init` as one program would need them all in float32 at once.
  """
  leaves, tree = jax.tree.flatten(
    jax.eval_shape(functools.partial(families.init, config), jax.random.key(0))
  )
  draw = jax.jit(
    lambda key, shape: 0.02 * jax.random.normal(key, shape, config.dtype),
    static_argnums=1,
  )
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  drawn = [draw(key, leaf.shape) for key, leaf in zip(keys, leaves)]
  return jax.block_until_ready(jax.tree.unflatten(tree, drawn))


def _ms_per_token(decode, rounds: int) -> dict:
  """Median of the timed rounds, and the last answer."""
  start = time.perf_counter()
  jax.block_until_ready(decode())
  compiled = time.perf_counter() - start
  seconds = []
  for _ in range(rounds):
    start = time.perf_counter()
    out = jax.block_until_ready(decode())
    seconds.append(time.perf_counter() - start)
  ms = 1e3 * statistics.median(seconds) / MAX_LENGTH
  return {
    'ms_per_token': ms,
    'ms_per_token_min': 1e3 * min(seconds) / MAX_LENGTH,
    'ms_per_token_max': 1e3 * max(seconds) / MAX_LENGTH,
    'compile_s': compiled - min(seconds),
    'out': out,
  }


def _decoded_bytes(params) -> int:
  """Bytes of the weights that every decoder step reads."""
  decoder = jax.tree.leaves(params['decoder'])
  if 'logits_dense' not in params['decoder']:
    decoder += jax.tree.leaves(params['token_embedder'])  # The tied head.
  return sum(leaf.size * leaf.dtype.itemsize for leaf in decoder)


def _bandwidth() -> float:
  """Bytes per second of a matrix-vector product that reads 1 GiB once."""
  on_cpu = jax.default_backend() == 'cpu'
  side = 8192 if on_cpu else 16384
  matrix = jnp.ones((side, side), jnp.float32)
  product = jax.jit(lambda m, x: m @ x)
  vector = jnp.ones((side,), jnp.float32)
  jax.block_until_ready(product(matrix, vector))
  seconds = []
  for _ in range(20):
    start = time.perf_counter()
    jax.block_until_ready(product(matrix, vector))
    seconds.append(time.perf_counter() - start)
  return matrix.nbytes / min(seconds)


def _in_a_process(side: str, settings: Settings) -> dict:
  """Runs one side; its memory is free again afterwards."""
  with tempfile.NamedTemporaryFile(suffix='.json') as file:
    asked = json.dumps(dataclasses.asdict(settings))
    own = [sys.executable, '-m', __spec__.name]
    ran = subprocess.run([*own, '--side', side, asked, file.name])
    if ran.returncode:
      return {'error': f'exit status {ran.returncode}'}
    return json.loads(pathlib.Path(file.name).read_text())


def main() -> None:
  """Runs all of it, and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    '--pairs', nargs='+', choices=PAIRS, default=['t5', 'gemma']
  )
  parser.add_argument('--gamma', type=int, default=5)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--dtype', default='bfloat16')
  parser.add_argument('--output', type=pathlib.Path, help='a JSON file')
  parser.add_argument('--side', nargs=3, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.side:
    side, asked, path = args.side
    found = {'ours': ours, 'theirs': theirs}[side](
      Settings(**json.loads(asked))
    )
    pathlib.Path(path).write_text(json.dumps(found))
    return
  results = {pair: {} for pair in args.pairs}
  for side in ('ours', 'theirs'):
    for pair in args.pairs:
      settings = Settings(pair, args.gamma, args.rounds, args.dtype)
      results[pair][side] = _in_a_process(side, settings)
      # After each: what has been measured is kept whatever becomes of the rest.
      if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=2) + '\n')
  for pair, sides in results.items():
    _print(pair, args.gamma, **sides)


def _print(pair: str, gamma: int, ours: dict, theirs: dict) -> None:
  drafter, verifier = PAIRS[pair]
  where = ours.get('device') or theirs.get('device')
  print(f'\n{drafter} drafting {gamma} for {verifier}, {where}')
  print('| ms/token | speccascade_jax | of the floor | transformers |')
  print('|---|---:|---:|---:|')
  static = theirs.get('verifier_static_cache_ms_per_token')
  print(
    f'| verifier alone | {_figure(ours.get("verifier_ms_per_token"))} '
    f'| {_figure(ours.get("verifier_floor_ratio"))} '
    f'| {_figure(theirs.get("verifier_ms_per_token"))}, static cache '
    f'{_figure(static)} |'
  )
  for acceptance in map(str, ACCEPTANCES):
    own = ours.get('acceptance', {}).get(acceptance, {})
    other = theirs.get('acceptance', {}).get(acceptance, {})
    print(
      f'| acceptance {acceptance} | {_figure(own.get("ms_per_token"))} '
      f'| {_figure(own.get("round_floor_ratio"))} '
      f'| {_figure(other.get("ms_per_token"))} |'
    )


def _figure(value: float | None) -> str:
  return 'failed' if value is None else format(value, '.3g')


if __name__ == '__main__':
  main()
