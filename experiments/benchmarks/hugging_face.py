"""The same weights through Hugging Face transformers, in the same process.

    pip install -r experiments/benchmarks/requirements.txt
    python -m experiments.benchmarks.hugging_face debian --num_prompts=20
    python -m experiments.benchmarks.hugging_face embedded --gamma 4 8 20

Greedy, batch 1, float32, each library at its default and on all cores: the
verifier alone against `generate`, lossless speculative decoding against
assisted generation. Both answer the same prompts in turn and are held to the
same tokens. transformers is handed token ids, this package texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
      # Which the export asks to do without where the decoder is deeper.
      model.config.use_cache = model.generation_config.use_cache = True
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
      mask: pass `decoder_attention_mask`; without it, in some versions, the
        drafter is fed its whole prefix again, which costs rounds.
    """
    config = self.drafter.generation_config
    config.num_assistant_tokens = gamma
    config.num_assistant_tokens_schedule = 'constant'
    config.assistant_confidence_threshold = 0.0
    options = {'assistant_model': self.drafter}
    if mask:
      options['decoder_attention_mask'] = torch.ones((1, 1), dtype=torch.long)
    return self._generate(i, **options)

  def count_calls(self, num_prompts: int, gamma: int, mask: bool) -> list[int]:
    """The verifier's and the drafter's calls for all prompts."""
    before = list(self.calls.values())
    for i in range(num_prompts):
      self.assisted(i, gamma, mask)
    return [a - b for a, b in zip(self.calls.values(), before, strict=True)]

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


def compare(
  name: str,
  gammas: Sequence[int],
  num_prompts: int,
  rounds: int,
  mask: bool = True,
) -> dict:
  """Times both libraries on a pair; the result as it is written."""
  compared = compared_pairs.load(name, num_prompts)
  with tempfile.TemporaryDirectory() as folder:
    compared_pairs.export(compared.pair, pathlib.Path(folder))
    theirs = Assisted(pathlib.Path(folder), compared.inputs)

  def ours(i: int, **options):
    return compared.pair.generate(
      [compared.prompts[i]], max_length=compared_pairs.MAX_LENGTH, **options
    )

  def tokens(out) -> list[int]:
    return out.tokens[0, : out.lengths[0]].tolist()

  alone = 'verifier alone'
  sides = {
    f'{OURS}, {alone}': lambda i: tokens(ours(i, model='verifier')),
    f'{THEIRS}, {alone}': theirs.alone,
  }
  calls = {}
  for gamma in gammas:
    sides |= {
      f'{OURS}, gamma {gamma}': lambda i, g=gamma: tokens(ours(i, gamma=g)),
      f'{THEIRS}, gamma {gamma}': lambda i, g=gamma: theirs.assisted(
        i, g, mask
      ),
    }
    stats = [ours(i, gamma=gamma).stats for i in range(num_prompts)]
    calls[f'gamma {gamma}'] = {
      OURS: [
        int(sum(s[n][0] for s in stats))
        for n in ('verifier_calls', 'drafter_steps')
      ],
      THEIRS: theirs.count_calls(num_prompts, gamma, mask),
    }
  company = paired.Company()
  timings = paired.measure(sides, num_prompts=num_prompts, rounds=rounds)
  ratios, same = {}, {}
  for what in (alone, *calls):
    one, other = timings[f'{OURS}, {what}'], timings[f'{THEIRS}, {what}']
    ratios[f'{THEIRS} / {OURS}, {what}'] = paired.ratio(other, one)
    same[f'same tokens, {what}'] = paired.same_answers(one, other)
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
    'cores_used_by_others': company.used(),
    'ms_per_token': {name: t.summary() for name, t in timings.items()},
    'decoder_attention_mask': mask,
    'ratios': ratios,
    'checks': same
    | {f'verifier and drafter calls, {k}': v for k, v in calls.items()},
  }


def main() -> None:
  """Compares, prints and writes."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('name', choices=compared_pairs.NAMES)
  parser.add_argument(
    '--gamma',
    type=int,
    nargs='*',
    default=[5],
    help='tokens of a block; any number of them, none for the verifier alone',
  )
  parser.add_argument('--num_prompts', type=int, default=1)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument(
    '--without_mask',
    action='store_true',
    help='do not pass decoder_attention_mask to assisted generation',
  )
  parser.add_argument('--output', type=pathlib.Path, help='a JSON file')
  args = parser.parse_args()
  torch.set_num_threads(paired.cores())
  transformers.logging.set_verbosity_error()
  result = compare(
    args.name, args.gamma, args.num_prompts, args.rounds, not args.without_mask
  )
  paired.write(args.output, result)


if __name__ == '__main__':
  main()
