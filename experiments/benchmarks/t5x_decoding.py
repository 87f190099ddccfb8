"""The same weights through T5X's own network and decoding.

    pip install '.[t5x]'
    python -m experiments.benchmarks.t5x_decoding random

The verifier alone, greedy, batch 1, float32: T5X's `predict_batch_with_aux` of
its T5 with `temperature_sample` at temperature 0, jitted once, against this
package's loop, in turn in one process. T5X is handed token ids, this package
texts.
"""

from __future__ import annotations

import argparse
import pathlib

from flax import traverse_util
import jax
import numpy as np
from t5x import decoding
from t5x import models
from t5x.examples.t5 import network

from experiments.benchmarks import compared as compared_pairs
from experiments.benchmarks import paired
from speccascade_jax import pair as pairs
from speccascade_jax.evaluation import environment
from speccascade_jax.models import products

OURS, THEIRS = 'speccascade_jax', 'T5X'

_SHAPE = (
  *('vocab_size', 'emb_dim', 'num_heads', 'head_dim', 'mlp_dim'),
  *('num_encoder_layers', 'num_decoder_layers', 'mlp_activations'),
  'logits_via_embedding',
)


def answering(model: pairs.Model, inputs: list[list[int]], eos_id: int):
  """T5X's answer to prompt i, as a function of i."""
  config = network.T5Config(
    **{name: getattr(model.config, name) for name in _SHAPE}, dropout_rate=0.0
  )
  theirs = models.EncoderDecoderModel(
    module=network.Transformer(config),
    input_vocabulary=None,
    output_vocabulary=None,
    optimizer_def=None,
    decode_fn=decoding.temperature_sample,
  )

  @jax.jit
  def predict(params, encoder_input_tokens):
    batch = {
      'encoder_input_tokens': encoder_input_tokens,
      # Read for its width alone.
      'decoder_input_tokens': np.zeros((1, compared_pairs.MAX_LENGTH), 'int32'),
    }
    return theirs.predict_batch_with_aux(
      params,
      batch,
      decoder_params={
        'temperature': 0.0,
        'eos_id': eos_id,
        'decode_rng': jax.random.PRNGKey(0),
      },
    )[0]

  # Under T5X's names, and as it lays them out.
  flat = traverse_util.flatten_dict(model.params, sep='/')
  params = jax.device_put(
    traverse_util.unflatten_dict(products.named(flat), sep='/')
  )
  # One width for all, and so one program; this package has a few widths.
  width = max(map(len, inputs))

  def answer(i: int) -> list[int]:
    row = np.zeros((1, width), np.int32)
    row[0, : len(inputs[i])] = inputs[i]
    tokens = np.asarray(predict(params, row))[0].tolist()
    end = tokens.index(eos_id) + 1 if eos_id in tokens else len(tokens)
    return tokens[:end]

  return answer


def compare(name: str, num_prompts: int, rounds: int) -> dict:
  """Times both libraries on a pair's verifier; the result as written."""
  compared = compared_pairs.load(name, num_prompts)
  pair = compared.pair

  def ours(i: int) -> list[int]:
    out = pair.generate(
      [compared.prompts[i]],
      model='verifier',
      max_length=compared_pairs.MAX_LENGTH,
    )
    return out.tokens[0, : out.lengths[0]].tolist()

  eos_id = pair.vocabulary.eos_id
  theirs = answering(pair.verifier, compared.inputs, eos_id)
  company = paired.Company()
  timings = paired.measure(
    {OURS: ours, THEIRS: theirs}, num_prompts=num_prompts, rounds=rounds
  )
  one, other = timings[OURS], timings[THEIRS]
  return {
    'title': f'{name}, verifier alone: {num_prompts} prompts, {rounds} rounds, '
    'float32, greedy',
    'device': environment.device(),
    'versions': environment.versions(),
    'commit': environment.commit(),
    'cores_used_by_others': company.used(),
    'ms_per_token': {name: t.summary() for name, t in timings.items()},
    'ratios': {f'{THEIRS} / {OURS}': paired.ratio(other, one)},
    'checks': {'same tokens': paired.same_answers(one, other)},
  }


def main() -> None:
  """Compares, prints and writes."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('name', choices=compared_pairs.NAMES)
  parser.add_argument('--num_prompts', type=int, default=1)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--output', type=pathlib.Path, help='a JSON file')
  args = parser.parse_args()
  result = compare(args.name, args.num_prompts, args.rounds)
  paired.write(args.output, result)


if __name__ == '__main__':
  main()
