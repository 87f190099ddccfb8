"""The same weights through CTranslate2, float32 on a CPU.

    pip install -r experiments/benchmarks/requirements.txt
    python -m experiments.benchmarks.ctranslate2_t5 random

The verifier alone, greedy, batch 1, all cores. CTranslate2 runs in a process of
its own with its oneDNN backend (CT2_USE_MKL=0), which is the faster one on AMD,
and answers in turn with this package. It is handed tokens, this package texts.
It does not draft for an encoder-decoder.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from experiments.benchmarks import compared as compared_pairs
from experiments.benchmarks import paired
from speccascade_jax import pair as pairs
from speccascade_jax.evaluation import environment

OURS, THEIRS = 'speccascade_jax', 'CTranslate2'


class Tokens:
  """What a converter asks of a tokenizer; the piece for a token is its id."""

  pad_token, eos_token, unk_token = '0', '1', '2'

  def __init__(self, size: int):
    self._size = size

  def get_vocab(self) -> dict[str, int]:
    return {str(i): i for i in range(self._size)}

  def convert_ids_to_tokens(self, token: int) -> str:
    return str(token)


class Worker:
  """CTranslate2 with a converted model, in a process of its own."""

  def __init__(self, folder: pathlib.Path, inputs: list[list[int]], mkl: bool):
    self._process = subprocess.Popen(
      [sys.executable, '-m', __spec__.name, '--worker', str(folder)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=os.environ | {'CT2_USE_MKL': str(int(mkl))},
    )
    self._inputs = inputs
    self.about = self._read()

  def answer(self, i: int) -> list[int]:
    """The greedy answer to prompt i."""
    print(json.dumps(self._inputs[i]), file=self._process.stdin, flush=True)
    return self._read()

  def close(self) -> None:
    """Ends the process."""
    self._process.stdin.close()
    self._process.wait()

  def _read(self):
    line = self._process.stdout.readline()
    if not line:
      raise RuntimeError('CTranslate2 ended; its message stands above.')
    return json.loads(line)


def convert(model: pairs.Model, folder: pathlib.Path) -> pathlib.Path:
  """Writes the model for CTranslate2, by way of a Hugging Face folder."""
  # Here, so that a worker does without PyTorch and its threads.
  from ctranslate2.converters import transformers as converters
  import transformers

  transformers.logging.set_verbosity_error()
  exported, converted = folder / 'hugging_face', folder / 'ctranslate2'
  compared_pairs.export_model(model, exported)
  config = transformers.AutoConfig.from_pretrained(exported)
  network = transformers.T5ForConditionalGeneration.from_pretrained(exported)
  spec = converters.T5Loader()(network, Tokens(config.vocab_size))
  spec.validate()
  spec.optimize(quantization='float32')
  converted.mkdir()
  spec.save(str(converted))
  return converted


def work(folder: str) -> None:
  """Answers the token ids of each line with a line of token ids."""
  import ctranslate2

  translator = ctranslate2.Translator(
    folder,
    device='cpu',
    compute_type='float32',
    inter_threads=1,
    intra_threads=paired.cores(),
  )
  about = {'version': ctranslate2.__version__, 'threads': paired.cores()}
  print(json.dumps(about), flush=True)
  for line in sys.stdin:
    result = translator.translate_batch(
      [[str(token) for token in json.loads(line)]],
      beam_size=1,
      max_decoding_length=compared_pairs.MAX_LENGTH,
      return_end_token=True,
    )
    print(json.dumps([int(t) for t in result[0].hypotheses[0]]), flush=True)


def compare(name: str, num_prompts: int, rounds: int, mkl: bool) -> dict:
  """Times both libraries on a pair's verifier; the result as written."""
  compared = compared_pairs.load(name, num_prompts)
  with tempfile.TemporaryDirectory() as folder:
    converted = convert(compared.pair.verifier, pathlib.Path(folder))
    worker = Worker(converted, compared.inputs, mkl)

  def ours(i: int) -> list[int]:
    out = compared.pair.generate(
      [compared.prompts[i]],
      model='verifier',
      max_length=compared_pairs.MAX_LENGTH,
    )
    return out.tokens[0, : out.lengths[0]].tolist()

  company = paired.Company()
  timings = paired.measure(
    {OURS: ours, THEIRS: worker.answer}, num_prompts=num_prompts, rounds=rounds
  )
  others = company.used()  # While the worker still is one of our own.
  worker.close()
  one, other = timings[OURS], timings[THEIRS]
  return {
    'title': f'{name}, verifier alone: {num_prompts} prompts, {rounds} rounds, '
    f'float32, greedy, {"MKL" if mkl else "oneDNN"}',
    'device': environment.device(),
    'threads': {THEIRS: worker.about['threads'], OURS: paired.cores()},
    'versions': {
      **environment.versions(),
      'ctranslate2': worker.about['version'],
    },
    'commit': environment.commit(),
    'cores_used_by_others': others,
    'ms_per_token': {name: t.summary() for name, t in timings.items()},
    'ratios': {f'{THEIRS} / {OURS}': paired.ratio(other, one)},
    'checks': {'same tokens': paired.same_answers(one, other)},
  }


def main() -> None:
  """Compares, prints and writes."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('name', nargs='?', choices=compared_pairs.NAMES)
  parser.add_argument('--num_prompts', type=int, default=1)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--mkl', action='store_true', help='its other backend')
  parser.add_argument('--output', type=pathlib.Path, help='a JSON file')
  parser.add_argument('--worker', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    work(args.worker)
    return
  if args.name is None:
    parser.error('the name of a pair is missing')
  result = compare(args.name, args.num_prompts, args.rounds, args.mkl)
  paired.write(args.output, result)


if __name__ == '__main__':
  main()
