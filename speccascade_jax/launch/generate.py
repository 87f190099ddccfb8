"""`speccascade generate`: text from the command line or a file.

    speccascade generate 'It is a text editor.' --rule=opt --alpha=0.2 \\
      --prefix='translate English to German: ' --trace=trace.html

Everything can be said in gin as well (`generate.alpha = 0.2`); a flag is one
more binding and wins. Texts go to stdout, one a line, the rest to stderr.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import pathlib
import sys
from typing import Any

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import pair as pairs
from speccascade_jax import verification as verification_lib
from speccascade_jax.evaluation import methods
from speccascade_jax.launch import gin_setup
from speccascade_jax.launch import inputs
from speccascade_jax.reports import trace as trace_lib

_FUNCTIONS = ('rule', 'verification')  # `@name` in gin; the rest are values.
# Flag -> (type, help).
_KNOBS = {
  'pair': (str, 'name of a shipped pair, or give the next three'),
  'drafter': (str, 'checkpoint of the small model, in any format'),
  'verifier': (str, 'checkpoint of the large model; it may come alone'),
  'vocabulary': (str, 'unless it lies with the checkpoints'),
  'drafter_weights': (str, "int8: a byte each; else of the pair's dtype"),
  'verifier_weights': (str, 'likewise'),
  'model': (str, 'pair, or drafter / verifier to decode with one alone'),
  'method': (str, 'speculative, token_cascade, sequence_cascade, bild, ...'),
  'fallback': (float, 'of bild: draft no further below this confidence'),
  'quantile': (float, 'of sequence_cascade: of the token log-probabilities'),
  'rule': (str, 'deferral rule: opt, chow, token_v3, my_module.my_rule, ...'),
  'alpha': (float, "the rule's trade-off; larger trusts the drafter more"),
  'gamma': (int, 'tokens drafted a round'),
  'verification': (str, 'verify_tokens or verify_block'),
  'temperature': (float, '0 is greedy'),
  'top_k': (int, 'keep the k likeliest tokens'),
  'top_p': (float, 'keep the smallest set of tokens of this mass'),
  'min_p': (float, "keep tokens of this fraction of the likeliest's"),
  'eta': (float, 'keep tokens that are likely, or typical for the entropy'),
  'seed': (int, 'of the randomness'),
  'max_length': (int, 'most tokens to write'),
  'stop': (str, 'text that ends an output; several in gin alone'),
  'batch_size': (int, 'texts at once'),
  'prefix': (str, "put before every text, as in 'translate ...: '"),
  'trace': (str, 'HTML file that shows who wrote which token'),
}


def generate(
  *,
  texts: Sequence[str],
  pair: inputs.PairName | None = None,
  drafter: str | None = None,
  verifier: str | None = None,
  vocabulary: str | None = None,
  drafter_weights: str | None = None,
  verifier_weights: str | None = None,
  model: str | None = None,
  method: str = 'speculative',
  fallback: float | None = None,
  quantile: float | None = None,
  rule: base.Rule | None = None,
  alpha: float = 0.0,
  gamma: int = 4,
  verification: base.Verify = verification_lib.verify_tokens,
  temperature: float = 0.0,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  eta: float | None = None,
  seed: int = 0,
  max_length: int = 128,
  stop: str | Sequence[str] = (),
  confidence_temperatures: Sequence[float] | None = None,
  batch_size: int = 8,
  prefix: str = '',
  trace: str | None = None,
) -> list[str]:
  """Prints one generated text an input, and returns them."""
  if batch_size < 1:
    raise ValueError(f'batch_size is {batch_size}; it must be at least 1.')
  if not texts:
    raise ValueError('There is no text to work on: give TEXT or --input=FILE.')
  if trace is not None and not pathlib.Path(trace).parent.is_dir():
    # Said now rather than after all the work.
    raise ValueError(f'trace is {trace!r}, but there is no such folder.')
  if rule is None and method == 'speculative':
    rule = deferral.verifier_only  # So that the trace can name it.
  given = {'drafter': drafter, 'verifier': verifier, 'vocabulary': vocabulary}
  paths = {name: path for name, path in given.items() if path is not None}
  if pair is not None and paths:
    raise ValueError(f'Give pair={pair!r}, or {", ".join(paths)}, not both.')
  named = inputs.with_weights(
    pair or paths or 'debian',
    {'drafter_weights': drafter_weights, 'verifier_weights': verifier_weights},
  )
  loaded = inputs.load_pair(named)
  if model is None:
    model = pairs.PAIR if loaded.drafter is not None else pairs.VERIFIER
  knobs: dict[str, Any] = dict(
    method=method,
    fallback=fallback,
    quantile=quantile,
    rule=rule,
    alpha=alpha,
    gamma=gamma,
    temperature=temperature,
    model=model,
    verification=verification,
    top_k=top_k,
    top_p=top_p,
    min_p=min_p,
    eta=eta,
    max_length=max_length,
    stop=inputs.stop_sequences(stop),
    confidence_temperatures=confidence_temperatures,
  )
  sources = [prefix + text for text in texts]
  rows: list[trace_lib.Row] = []
  for start in range(0, len(sources), batch_size):
    batch = sources[start : start + batch_size]
    # A last batch of another size would be compiled anew; its rows are filled
    # up, and the numbers of the rows keep each text's randomness its own.
    fill = min(batch_size, len(sources)) - len(batch)
    out = loaded.generate(
      batch + batch[-1:] * fill,
      key=seed,
      row_ids=[*range(start, start + len(batch) + fill)],
      trace=trace is not None,
      **knobs,
    )
    for i, source in enumerate(batch):
      rows.append(_row(loaded, out, i, source))
      # A text of several lines stays one line of the output.
      print(' '.join(out.texts[i].splitlines()), flush=True)
  _summarise(rows, model)
  if trace is not None:
    settings = {'pair': inputs.pair_name(named), 'seed': seed} | {
      k: methods.name_of(v) if callable(v) else v for k, v in knobs.items()
    }
    path = pathlib.Path(trace)
    path.write_text(trace_lib.render(rows, settings, model), encoding='utf-8')
    print(f'Who wrote which token: {path}', file=sys.stderr)
  return [row.text for row in rows]


def _row(
  loaded: pairs.Pair, out: pairs.Output, i: int, source: str
) -> trace_lib.Row:
  n = int(out.lengths[i])
  probs = (out.drafter_probs, out.verifier_probs)
  drafter, verifier = (None if p is None else p[i, :n].tolist() for p in probs)
  return trace_lib.Row(
    source=source,
    text=out.texts[i],
    pieces=loaded.pieces(out.tokens[i, :n].tolist()),
    provenance=out.provenance[i, :n].tolist(),
    drafter_probs=drafter,
    verifier_probs=verifier,
    counters={name: float(values[i]) for name, values in out.stats.items()},
  )


def _summarise(rows: Sequence[trace_lib.Row], model: str) -> None:
  tokens = sum(len(row.pieces) for row in rows)
  line = f'{len(rows)} text{"s" * (len(rows) > 1)}, {tokens} tokens'
  calls = sum(row.counters['verifier_calls'] for row in rows)
  if model == pairs.PAIR and calls:
    kept = sum(row.counters['accepted'] for row in rows)
    line += (
      f', {tokens / calls:.2f} a verifier call, {kept / tokens:.0%} of them '
      'by the drafter'
    )
  print(line, file=sys.stderr)


def _read(args: argparse.Namespace) -> list[str]:
  if args.input is None:
    return args.text
  if args.text:
    raise ValueError(
      f'Give TEXT or --input={args.input}, not both; got {args.text!r}.'
    )
  try:
    if args.input == '-':
      content = sys.stdin.read()
    else:
      content = pathlib.Path(args.input).read_text(encoding='utf-8')
  except (OSError, UnicodeError) as error:
    raise ValueError(f'--input={args.input} cannot be read: {error}') from error
  return [line for line in content.split('\n') if line.strip()]


def main(argv: Sequence[str]) -> None:
  """The command; `argv` are the arguments behind its name."""
  parser = argparse.ArgumentParser(
    'speccascade generate', description='Generate text with a pair of models.'
  )
  parser.add_argument('text', nargs='*', metavar='TEXT', help='input texts')
  parser.add_argument(
    '--input', metavar='FILE', help='read texts, one a line; - is stdin'
  )
  for name, (kind, text) in _KNOBS.items():
    parser.add_argument(f'--{name}', type=kind, metavar=name.upper(), help=text)
  args, flags = gin_setup.parse_args(parser, argv)
  given = {k: v for k in _KNOBS if (v := getattr(args, k)) is not None}
  bindings = (
    f'generate.{name} = ' + (f'@{v}' if name in _FUNCTIONS else repr(v))
    for name, v in given.items()
  )
  flags = gin_setup.Flags(
    flags.files, (*flags.bindings, *bindings), flags.search_paths
  )
  gin_setup.run(generate, flags, texts=_read(args))
