"""A sweep through the real thing: a tiny T5 pair with random weights."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from speccascade_jax import deferral
from speccascade_jax import loading
from speccascade_jax.checkpoints import native
from speccascade_jax.evaluation import base
from speccascade_jax.evaluation import evaluator
from speccascade_jax.evaluation import methods
from speccascade_jax.evaluation import sweep
from tests.evaluation import scripted
from tests.evaluation import tiny_pair

_LENGTHS = {'input_length': 12, 'max_length': 10}
_TEXTS = ('a text editor', 'tool for files', 'library', 'a game of cards')


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  return loading.load_pair(**tiny_pair.save(tmp_path_factory.mktemp('pair')))


class Counting:
  """Passes calls on and notes how many programs XLA compiled for each."""

  def __init__(self, pair):
    self._pair = pair
    self._compiled = 0
    self.calls = []
    jax.monitoring.register_event_duration_secs_listener(self._listen)

  def _listen(self, event, seconds, **_):
    self._compiled += event == '/jax/core/compile/backend_compile_duration'

  def call_times(self, widths, **lengths):
    return self._pair.call_times(widths, **lengths)

  def generate(self, texts, **settings):
    before = self._compiled
    output = self._pair.generate(texts, **settings)
    self.calls.append((settings, self._compiled - before))
    return output


def _examples():
  return [
    base.Example(example=5 * i, source=text, target=text)
    for i, text in enumerate(_TEXTS)
  ]


def _points():
  return methods.expand(
    [
      methods.Method(model='verifier'),
      methods.Method(model='drafter'),
      methods.Method(rule=deferral.verifier_only),
      methods.Method(rule=deferral.opt, alphas=(0.0, 0.2, 0.6)),
      methods.Method(rule=deferral.lossy, alphas=(0.3,)),
    ],
    gammas=(3,),
    temperatures=(0.0, 0.5, 1.0),
  )


@pytest.fixture(scope='module')
def swept(pair, tmp_path_factory):
  run_dir = tmp_path_factory.mktemp('sweep')
  generator = Counting(pair)
  arguments = {**scripted.SWEEP, **_LENGTHS}
  points = _points()
  fns = [scripted.agreement]
  sweep.sweep(generator, _examples(), points, fns, run_dir, **arguments)
  return generator, run_dir


def _runs(run_dir):
  for path in sorted(run_dir.glob('runs/*/config.json')):
    rows = (path.parent / 'examples.jsonl').read_text().splitlines()
    summary = json.loads((path.parent / 'summary.json').read_text())
    yield json.loads(path.read_text()), [json.loads(r) for r in rows], summary


def test_the_digest_is_of_what_the_pair_computes_with(pair, tmp_path):
  paths = tiny_pair.save(tmp_path)
  assert loading.load_pair(**paths).digest == pair.digest
  assert loading.load_pair(**paths, dtype='bfloat16').digest != pair.digest
  found = {pair.digest}
  for name in ('drafter', 'verifier'):
    # The same name and shapes, trained once more.
    config, params = native.load(paths[name])
    native.save(paths[name], config, jax.tree.map(lambda x: x + 1e-3, params))
    found.add(loading.load_pair(**paths).digest)
  config, params = native.load(paths['verifier'])
  config = dataclasses.replace(config, dropout_rate=0.5)
  native.save(paths['verifier'], config, params)
  found.add(loading.load_pair(**paths).digest)
  vocabulary = tmp_path / 'spiece.model'
  vocabulary.write_bytes(pathlib.Path(paths['vocabulary']).read_bytes())
  copied = paths | {'vocabulary': vocabulary}
  assert loading.load_pair(**copied).digest in found
  # A protobuf's later fields are merged: an empty one changes bytes alone.
  vocabulary.write_bytes(vocabulary.read_bytes() + b'\x12\x00')
  found.add(loading.load_pair(**copied).digest)
  assert len(found) == 5


def test_alphas_and_temperatures_of_a_sweep_compile_once(swept):
  generator, _ = swept
  first = {}
  for settings, compiled in generator.calls:
    program = (
      settings['model'],
      settings.get('rule'),
      settings['temperature'] == 0,
    )
    if program in first:
      assert compiled == 0, settings
    first.setdefault(program, compiled)
  # Verifier, drafter, lossless, OPT and lossy, each greedy and sampled.
  assert len(first) == 10
  assert all(compiled > 0 for compiled in first.values())


def test_greedy_lossless_text_is_the_verifier_s(swept):
  _, run_dir = swept
  text = {
    (c['model'], c['rule']): [row['prediction'] for row in rows]
    for c, rows, _ in _runs(run_dir)
    if c['temperature'] == 0 and c['alpha'] is None
  }
  assert text['pair', 'verifier_only'] == text['verifier', None]
  assert text['drafter', None] != text['verifier', None]


def test_counters_add_up(swept):
  _, run_dir = swept
  for config, rows, summary in _runs(run_dir):
    assert summary['num_examples'] == len(rows) == len(_TEXTS)
    for row in rows:
      assert 1 <= row['output_tokens'] <= _LENGTHS['max_length']
      if config['model'] == 'pair':
        assert row['drafted'] == 3 * row['verifier_calls']
        assert row['accepted'] + row['resampled'] <= row['output_tokens']
    if config['model'] == 'verifier':
      assert summary['relative_latency'] == 1.0
      assert summary['acceptance_rate'] is None
      assert summary['block_efficiency'] == 1.0
    if config['rule'] == 'verifier_only':
      assert summary['deferral_rate'] == 1.0
    if config['rule'] == 'lossy':
      assert {row['deferred'] for row in rows} == {None}
      assert summary['deferral_rate'] is None
      assert summary['acceptance_rate'] is not None


@pytest.mark.parametrize('model', ['drafter', 'verifier', 'pair'])
def test_stats_and_summaries_leave_out_the_same_rates(swept, pair, model):
  _, run_dir = swept
  summaries = [
    summary
    for config, _, summary in _runs(run_dir)
    if config['model'] == model and config['rule'] in (None, 'lossy')
  ]
  out = pair.generate(
    list(_TEXTS),
    rule=deferral.lossy,
    alpha=0.3,
    gamma=3,
    model=model,
    **_LENGTHS,
  )
  names = ('acceptance_rate', 'rejection_rate', 'deferral_rate')
  for summary in summaries:
    for name in (*names, 'block_efficiency'):
      undefined = np.isnan(out.stats[name]).all()
      assert undefined == (summary[name] is None), name


def test_calls_are_timed_for_the_cost_model(swept):
  _, run_dir = swept
  times = json.loads((run_dir / 'call_times.json').read_text())['ms']
  assert set(times) == {
    *('drafter_start', 'drafter_1'),
    *('verifier_start', 'verifier_1', 'verifier_4'),
  }
  assert min(times.values()) > 0
  for config, _, summary in _runs(run_dir):
    assert summary['modelled_latency_ms'] > 0
    if config['model'] == 'verifier':
      assert summary['modelled_relative_latency'] == 1.0


def test_a_batch_draws_what_the_sweep_drew_row_by_row(swept, pair):
  """Sampled text depends on seed, trial and example, not on the batch."""
  _, run_dir = swept
  rows = next(
    rows
    for c, rows, _ in _runs(run_dir)
    if (c['alpha'], c['temperature']) == (0.2, 1.0)
  )
  (point,) = [p for p in _points() if (p.alpha, p.temperature) == (0.2, 1.0)]
  found = evaluator.evaluate(
    pair,
    _examples(),
    [scripted.agreement],
    batch_size=3,
    **_LENGTHS,
    **point.settings(),
  )
  expected = {row['example']: row['prediction'] for row in rows}
  assert found.predictions == [expected[e.example] for e in _examples()]
