"""The same weights through Hugging Face transformers, in the same process.

    pip install -r experiments/benchmarks/requirements.txt
    python -m experiments.benchmarks.hugging_face debian --num_prompts=20
    python -m experiments.benchmarks.hugging_face embedded --gamma=4

Greedy, batch 1, float32, each library at its default and on all cores: the
verifier alone against `generate`, lossless speculative decoding against
assisted generation. Both answer the same prompts in turn and are held to the
same tokens. transformers is handed token ids, this package texts.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile

import torch
import transformers

from experiments.benchmarks import compared as compared_pairs
from experiments.benchmarks import paired
from speccascade_jax.evaluation import environment

OURS, THEIRS = 'speccascade_jax', 'transformers'


class Assisted:
  """transformers with a pair in memory."""

  def __init__(self, folder: pathlib.Path, inputs: list[list[int]]):
    load = transformers.T5ForConditionalGeneration.from_pretrained
    self.verifier, self.drafter = (
      load(folder / name, dtype=torch.float32).eval()
      for name in ('verifier', 'drafter')
    )
    for model in (self.verifier, self.drafter):
      # A cache gets as many layers as the encoder has, and is indexed by the
      # decoder's.
      model.config.num_layers = model.config.num_decoder_layers
    self.inputs = [torch.tensor([ids]) for ids in inputs]
    self.calls = {'verifier': 0, 'drafter': 0}
    for name in self.calls:
      # The decoder's: the encoder runs once a text.
      decoder = getattr(self, name).decoder
      decoder.register_forward_hook(lambda *_, name=name: self._count(name))

  def _count(self, name: str) -> None:
    self.calls[name] += 1

  def alone(self, i: int) -> list[int]:
    """The verifier's greedy answer to prompt i."""
    return self._generate(i)

  def assisted(self, i: int, gamma: int, mask: bool) -> list[int]:
    """The same with `gamma` tokens drafted a round, and never fewer.

    Args:
      i: the prompt.
      gamma: tokens of a block.
      mask: pass `decoder_attention_mask`.
    """
    config = self.drafter.generation_config
    config.num_assistant_tokens = gamma
    config.num_assistant_tokens_schedule = 'constant'
    config.assistant_confidence_threshold = 0.0
    options = {'assistant_model': self.drafter}
    if mask:
      options['decoder_attention_mask'] = torch.ones((1, 1), dtype=torch.long)
    return self._generate(i, **options)

  def _generate(self, i: int, **options) -> list[int]:
    ids = self.inputs[i]
    with torch.inference_mode():
      answer = self.verifier.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=compared_pairs.MAX_LENGTH,
        do_sample=False,
        num_beams=1,
        **options,
      )
    return answer[0, 1:].tolist()  # Without the start token.


def compare(name: str, gamma: int, num_prompts: int, rounds: int) -> dict:
  """Times both libraries on a pair; the result as it is written."""
  compared = compared_pairs.load(name, num_prompts)
  with tempfile.TemporaryDirectory() as folder:
    compared_pairs.export(compared.pair, pathlib.Path(folder))
    theirs = Assisted(pathlib.Path(folder), compared.inputs)
  mask, rounds_of = _better_mask(theirs, gamma)
  verifier_calls = []

  def ours(i: int, model: str) -> list[int]:
    out = compared.pair.generate(
      [compared.prompts[i]],
      model=model,
      gamma=gamma,
      max_length=compared_pairs.MAX_LENGTH,
    )
    if model == 'pair':
      verifier_calls.append(int(out.stats['verifier_calls'][0]))
    return out.tokens[0, : out.lengths[0]].tolist()

  alone, drafted = 'verifier alone', f'gamma {gamma}'
  timings = paired.measure(
    {
      f'{OURS}, {alone}': lambda i: ours(i, 'verifier'),
      f'{THEIRS}, {alone}': theirs.alone,
      f'{OURS}, {drafted}': lambda i: ours(i, 'pair'),
      f'{THEIRS}, {drafted}': lambda i: theirs.assisted(i, gamma, mask),
    },
    num_prompts=num_prompts,
    rounds=rounds,
  )
  before = dict(theirs.calls)
  for i in range(num_prompts):
    theirs.assisted(i, gamma, mask)
  calls = {k: theirs.calls[k] - before[k] for k in before}
  ratios, checks = {}, {}
  for what in (alone, drafted):
    one, other = timings[f'{OURS}, {what}'], timings[f'{THEIRS}, {what}']
    ratios[f'{THEIRS} / {OURS}, {what}'] = paired.ratio(other, one)
    checks[f'same tokens, {what}'] = paired.same_answers(one, other)
  return {
    'title': f'{name}: {num_prompts} prompts, {rounds} rounds, float32, greedy',
    'device': environment.device(),
    'threads': {THEIRS: torch.get_num_threads(), OURS: paired.cores()},
    'versions': {
      **environment.versions(),
      'torch': torch.__version__,
      'transformers': transformers.__version__,
    },
    'commit': environment.commit(),
    'ms_per_token': {name: t.summary() for name, t in timings.items()},
    'ratios': ratios,
    'checks': {
      **checks,
      f'{OURS}, verifier calls': sum(verifier_calls[:num_prompts]),
      f'{THEIRS}, verifier calls': calls['verifier'],
      f'{THEIRS}, drafter calls': calls['drafter'],
      f'{THEIRS}, decoder_attention_mask passed': mask,
      f'{THEIRS}, calls with and without it (verifier, drafter)': rounds_of,
    },
  }


def _better_mask(theirs: Assisted, gamma: int) -> tuple[bool, dict]:
  """Whether assisted generation takes fewer calls with the decoder's mask.

  In some versions an encoder-decoder's assistant is fed its whole prefix again
  unless a mask is passed, which costs it rounds.
  """
  found = {}
  for mask in (True, False):
    before = dict(theirs.calls)
    theirs.assisted(0, gamma, mask)
    found[mask] = [theirs.calls[k] - before[k] for k in before]
  return found[True] <= found[False], {str(k): v for k, v in found.items()}


def main() -> None:
  """Compares, prints and writes."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('name', choices=compared_pairs.NAMES)
  parser.add_argument('--gamma', type=int, default=5)
  parser.add_argument('--num_prompts', type=int, default=1)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--output', type=pathlib.Path, help='a JSON file')
  args = parser.parse_args()
  torch.set_num_threads(paired.cores())
  transformers.logging.set_verbosity_error()
  result = compare(args.name, args.gamma, args.num_prompts, args.rounds)
  paired.write(args.output, result)


if __name__ == '__main__':
  main()
