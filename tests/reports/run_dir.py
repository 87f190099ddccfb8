"""Writes a run directory as `speccascade sweep` leaves it, with likely figures.

The curves come from a small model of a cascade: a share `d` of the positions
is deferred, a share of those is rejected, and quality goes from the drafter's
to the verifier's as d goes from 0 to 1.
"""

from __future__ import annotations

import json
import math
import pathlib
import random

_ALPHAS = {
  'lossy': (0.3, 0.6, 0.9),
  'chow': (0.3, 0.5, 0.7),
  'diff': (0.0, 0.2, 0.4),
  'opt': (0.0, 0.2, 0.4),
  'token_v3': (0.5, 0.8, 0.95),
}
_LABELS = {
  'verifier_only': 'SpecDecode [lossless]',
  'lossy': 'SpecDecode [lossy]',
  'chow': 'SpecCascade [Chow]',
  'diff': 'SpecCascade [Diff]',
  'opt': 'SpecCascade [OPT]',
  'token_v3': 'SpecCascade [TokenV3]',
}
# How good a rule is at deferring where it matters.
_SKILL = {'lossy': 0.2, 'chow': 0.3, 'diff': 0.8, 'opt': 1.2, 'token_v3': 0.9}
_VERIFIER_MS, _DRAFTER_MS, _TOKENS = 61.3, 8.4, 24.6

SOURCES = (
  'translate English to German: It is a text editor.',
  'translate English to German: A <b>bold</b> claim & "more".',
  'translate English to German: Tools to build packages from source.',
)


def build(
  path: pathlib.Path,
  *,
  temperatures=(0.0, 1.0),
  gammas=(4,),
  trials=1,
  metrics=('bleu', 'chrf'),
  rules=tuple(_ALPHAS),
  references=('verifier', 'drafter'),
  unfinished=(),
  num_examples=100,
  replicates=0,
) -> pathlib.Path:
  """Writes a run directory below `path` and returns it.

  Args:
    path: made if it does not exist.
    temperatures: of the grid, as are gammas, trials, rules.
    gammas: see there.
    trials: number of repetitions.
    metrics: the first one is the primary metric.
    rules: of the curves; the lossless rule is always there.
    references: models that decode alone.
    unfinished: numbers of runs (in the order of display) without a summary.
    num_examples: lines of a finished run.
    replicates: of the bootstrap; 0 writes none, as older sweeps did.
  """
  configs = list(_configs(temperatures, gammas, trials, rules, references))
  keys = [f'{i:012x}' for i in range(1, len(configs) + 1)]
  path.mkdir(parents=True, exist_ok=True)
  header = {
    'task': 'debian_en_de',
    'pair': 'debian',
    'command': 'sweep',
    'gin_files': [],
    'pair_digest': '0123456789abcdef-float32',
    'split': 'test',
    'input_length': 96,
    'max_length': 80,
    'device': '2 x Intel(R) Xeon(R) Processor @ 2.70GHz',
    'seed': 0,
    'num_examples': num_examples,
    'metrics': list(metrics),
    'primary_metric': metrics[0],
    'created': '2026-01-15T09:30:00+00:00',
    'versions': {'python': '3.11.2', 'jax': '0.10.2', 'sacrebleu': '2.5.1'},
    'commit': '4850eba0c0ffee00000000000000000000000000',
    'host': 'laptop',
    'runs': keys,
  }
  _write(path / 'sweep.json', header)
  (path / 'operative_config.gin').write_text(
    '# Parameters for sweep:\n'
    '# ' + '=' * 77 + '\n'
    "sweep.task = 'debian_en_de'\n"
    f'sweep.temperatures = {tuple(temperatures)!r}\n'
  )
  sources = [
    {'example': i, 'source': s, 'target': f'Ziel Nummer {i}.'}
    for i, s in enumerate(SOURCES)
  ]
  _write_lines(path / 'examples.jsonl', sources)
  for number, (key, config) in enumerate(zip(keys, configs, strict=True)):
    folder = path / 'runs' / key
    folder.mkdir(parents=True)
    _write(folder / 'config.json', config)
    half = number in unfinished
    done = num_examples // 3 if half else num_examples
    rows = [_row(i, config) for i in range(done)]
    _write_lines(folder / 'examples.jsonl', rows)
    if not half:
      summary = _summary(config, metrics, num_examples)
      if replicates:
        found = _replicates(summary, replicates, number)
        _write(folder / 'replicates.json', found)
      _write(folder / 'summary.json', summary)
  return path


def edit(path: pathlib.Path, **changes) -> None:
  """Replaces values in a JSON file; None removes nothing, it is null."""
  content = json.loads(path.read_text())
  _write(path, content | changes)


def _configs(temperatures, gammas, trials, rules, references):
  for temperature in temperatures:
    for trial in range(trials):
      common = {
        'temperature': temperature,
        'top_k': None,
        'top_p': None,
        'min_p': None,
        'trial': trial,
        'seed': 0,
      }
      for model in references:
        yield {
          'label': model.capitalize(),
          'model': model,
          'rule': None,
          'verification': None,
          'alpha': None,
          'gamma': None,
          'method': 'autoregressive',
          **common,
        }
      for rule in ('verifier_only', *rules):
        for gamma in gammas:
          for alpha in _ALPHAS.get(rule, (None,)):
            yield {
              'label': _LABELS[rule],
              'model': 'pair',
              'rule': rule,
              'verification': 'token',
              'alpha': alpha,
              'gamma': gamma,
              'method': 'speculative',
              **common,
            }


def _summary(config, metrics, num_examples):
  sampled = config['temperature'] > 0
  low, high = (9.1, 14.2) if sampled else (17.8, 24.6)
  wobble = (
    0.05
    * (config['trial'] + 1)
    * math.sin(7.0 * (config['alpha'] or 0) + config['temperature'])
  )
  spec = config['model'] == 'pair'
  rejection = deferral = acceptance = efficiency = None
  if not spec:
    quality = high if config['model'] == 'verifier' else low
    ms = _VERIFIER_MS if config['model'] == 'verifier' else _DRAFTER_MS
    calls = _TOKENS if config['model'] == 'verifier' else 0.0
  elif config['alpha'] is None:
    quality, deferral, rejection = high, 1.0, 0.37 if sampled else 0.29
  else:
    alphas = _ALPHAS[config['rule']]
    rank = alphas.index(config['alpha'])
    deferral = (0.62, 0.41, 0.19)[rank]
    skill = _SKILL[config['rule']]
    rejection = deferral * (0.52 - 0.1 * skill + (0.1 if sampled else 0))
    share = min(1.0, deferral ** (1 / (1 + 2 * skill)))
    quality = low + (high - low) * share + skill * deferral * 1.3 + wobble
  if spec:
    gamma = config['gamma']
    acceptance = 1 - rejection
    efficiency = (1 - acceptance ** (gamma + 1)) / rejection
    calls = _TOKENS / efficiency
    ms = calls * (_VERIFIER_MS / _TOKENS * 1.25) + calls * (gamma + 1) * (
      _DRAFTER_MS / _TOKENS
    )
  names = {'bleu': 1.0, 'chrf': 2.1, 'rouge2': 0.9}
  return {
    'quality': {m: quality * names.get(m, 1.0) for m in metrics},
    'signatures': {
      'bleu': 'nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.5.1'
    },
    'latency_ms_mean': ms,
    'latency_ms_p50': 0.9 * ms,
    'latency_ms_p95': 2.1 * ms,
    'tokens_per_s': _TOKENS / ms * 1e3,
    'compile_s': 3.2,
    'warmup_ms': 1.1 * ms,
    'relative_latency': ms / _VERIFIER_MS,
    'relative_latency_interval': None,
    'timed_apart': 0,
    'modelled_latency_ms': 0.95 * ms,
    'modelled_relative_latency': ms / _VERIFIER_MS,
    'modelled_relative_latency_interval': None,
    'quality_interval': {},
    'relative_latency_sem': 0.0 if ms == _VERIFIER_MS else 0.012,
    'acceptance_rate': acceptance,
    'rejection_rate': rejection,
    'deferral_rate': deferral,
    'block_efficiency': efficiency,
    'verifier_calls_per_example': calls,
    'drafter_steps_per_example': calls * 5,
    'num_examples': num_examples,
    'num_truncated': 0,
  }


def _replicates(summary, count, number):
  """Spread that the runs share, and a little of each run's own."""
  common, own = random.Random(0), random.Random(number)
  shared = [common.gauss(0, 1.2) for _ in range(count)]
  apart = 0.0 if summary['relative_latency'] == 1 else 1.0
  ratios = [own.gauss(1, 0.02 * apart) for _ in range(count)]
  found = {
    name: [summary[name] * ratio for ratio in ratios]
    for name in ('relative_latency', 'modelled_relative_latency')
  }
  return found | {
    'quality': {
      name: [value + s + own.gauss(0, 0.3 * apart) for s in shared]
      for name, value in summary['quality'].items()
    }
  }


def _row(example, config):
  return {
    'example': example,
    'prediction': f'{config["label"]} sagt <i>{example}</i>.',
    'latency_ms': 23.1,
    'output_tokens': 25,
    'drafter_steps': 30,
    'verifier_calls': 6,
    'drafted': 24,
    'accepted': 17,
    'resampled': 5,
    'deferred': 7.0,
  }


def _write(path, content):
  path.write_text(json.dumps(content, indent=2) + '\n')


def _write_lines(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
