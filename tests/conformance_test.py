"""What every method must do, whatever it is."""

import dataclasses
import math
import pathlib

import jax
import numpy as np
import pytest

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import loops
from speccascade_jax import pair as pairs
from speccascade_jax.launch import bindings
from speccascade_jax.launch import gin_setup
from tests import conformance

_ROOT = pathlib.Path(__file__).parents[1]


def _cases(slow=None):
  """Parametrizes a test with every case.

  By scope the tests of one case follow each other, on the same programs.

  Args:
    slow: of a method with two verifications, which one's test is marked slow:
      that of index `slow` with the first such method, then in turn. Tests
      that share no program take different ones.
  """
  cases, turn = [], slow
  for entry in conformance.CONFORMANCE:
    both = slow is not None and len(entry.verifications) == 2
    for i, verify in enumerate(entry.verifications):
      marks = [pytest.mark.slow] if both and i == turn else []
      cases.append(pytest.param(entry, verify, marks=marks))
    turn = 1 - turn if both else turn
  return pytest.mark.parametrize(
    ('entry', 'verify'), cases, ids=conformance.case_name, scope='module'
  )


every_case = _cases()
every_entry = pytest.mark.parametrize(
  'entry', conformance.CONFORMANCE, ids=conformance.case_name
)
_ALONE = {e.model: e for e in conformance.CONFORMANCE if e.model != 'pair'}


def check_complete(folder):
  listed = conformance.CONFORMANCE
  fragments = {path.stem for path in folder.glob('*.gin')}
  assert {e.fragment for e in listed} - {None} == fragments
  rules = {e.rule for e in listed if e.method == 'speculative'} - {None}
  assert rules == set(deferral.RULES)
  assert {e.method for e in listed} == set(loops.LOOPS) == set(pairs._DECODE)
  for entry in listed:
    assert set(entry.verifications) == set(verifications_of(entry)), entry.name
  options = {(e.method, name) for e in listed for name in dict(e.options)}
  assert options == {
    (name, option)
    for name, loop in loops.LOOPS.items()
    for option in loop.options
  }


def verifications_of(entry):
  """Every verification that is not refused."""
  if entry.model != 'pair' or not loops.LOOPS[entry.method].takes_verification:
    return [conformance.TOKENS]
  found = []
  for verify in bindings.VERIFICATIONS:
    try:
      loops.check(entry.method, entry.rule, verify, {})
    except ValueError:
      continue
    found.append(verify)
  return found


def test_the_list_is_complete():
  check_complete(_ROOT / 'gin/methods')


@pytest.mark.parametrize(
  'what', ['rule', 'loop', 'fragment', 'verification', 'option']
)
def test_what_is_missing_from_the_list_would_be_caught(
  what, monkeypatch, tmp_path
):
  for path in (_ROOT / 'gin/methods').glob('*.gin'):
    (tmp_path / path.name).write_text(path.read_text())
  check_complete(tmp_path)
  if what == 'rule':
    monkeypatch.setitem(deferral.RULES, lambda *args: args[0], None)
  elif what == 'loop':
    monkeypatch.setitem(loops.LOOPS, 'forgotten', loops.Loop())
  elif what == 'verification':
    listed = list(conformance.CONFORMANCE)
    at = next(i for i, e in enumerate(listed) if len(e.verifications) == 2)
    listed[at] = dataclasses.replace(
      listed[at], verifications=(conformance.TOKENS,)
    )
    monkeypatch.setattr(conformance, 'CONFORMANCE', listed)
  elif what == 'option':
    listed = [e for e in conformance.CONFORMANCE if 'quantile' not in e.name]
    monkeypatch.setattr(conformance, 'CONFORMANCE', listed)
  else:
    (tmp_path / 'forgotten.gin').touch()
  with pytest.raises(AssertionError):
    check_complete(tmp_path)


def build(*, method):
  """Stands for a command that takes a method."""


@pytest.mark.parametrize(
  'entry',
  [e for e in conformance.CONFORMANCE if e.fragment],
  ids=conformance.case_name,
)
def test_a_fragment_says_what_the_list_says(entry, monkeypatch):
  monkeypatch.chdir(_ROOT)
  flags = gin_setup.Flags(
    (f'gin/methods/{entry.fragment}.gin',),
    (f'build.method = @{entry.fragment}/Method()',),
  )
  method = gin_setup.build(build, flags)['method']
  assert (method.model, method.method) == (entry.model, entry.method)
  assert method.rule is entry.rule
  assert method.truncation == (entry.truncation or ((None, 0),))[0][0]
  assert (
    dict(method.options).keys()
    == dict(
      entry.options or ([('quantile', 0)] if 'seq' in entry.name else [])
    ).keys()
  )
  ends = entry.verifier_end, entry.drafter_end
  if entry.truncation or None in ends:
    return
  assert all(ends[0] <= alpha <= ends[1] for alpha in method.alphas)


@_cases(slow=0)
def test_the_ends_of_the_range_are_the_models_greedy_texts(entry, verify):
  alone = {name: conformance.generate(e) for name, e in _ALONE.items()}
  assert not conformance.same_text(alone['drafter'], alone['verifier'])
  for name in ('verifier', 'drafter'):
    end = getattr(entry, f'{name}_end')
    if end is None:
      continue
    out = conformance.generate(dataclasses.replace(entry, alpha=end), verify)
    assert conformance.same_text(out, alone[name]), name


@pytest.mark.parametrize(
  'entry',
  [e for e in conformance.CONFORMANCE if e.drafter_end is None],
  ids=conformance.case_name,
)
def test_without_a_drafter_end_whole_blocks_are_kept_at_most(entry):
  """The verifier still has the word behind each block."""
  if entry.alpha == 0.0:
    pytest.skip('It has no alpha.')
  end = 1.0 if entry.rule in (deferral.lossy, deferral.typical) else math.inf
  entry = dataclasses.replace(entry, alpha=end)
  if entry.method == 'bild':
    entry = dataclasses.replace(entry, options=(('fallback', 0.0),))
  out = conformance.generate(entry)
  drafter, verifier = base.Provenance.DRAFTER, base.Provenance.VERIFIER
  block = [drafter, drafter, drafter, verifier]
  for row in range(3):
    n = out.lengths[row]
    assert out.provenance[row, :n].tolist() == (block * 4)[:n]


@_cases(slow=1)
def test_a_row_alone_is_that_row_in_a_ragged_batch(entry, verify):
  batch = conformance.generate(entry, verify, temperature=1.0)
  assert len(set(batch.lengths.tolist())) > 1
  # While the one goes on the other is finished.
  for row in (int(batch.lengths.argmin()), int(batch.lengths.argmax())):
    alone = conformance.generate(entry, verify, rows=(row,), temperature=1.0)
    for name in ('tokens', 'lengths', 'provenance'):
      np.testing.assert_array_equal(
        getattr(alone, name)[0], getattr(batch, name)[row], name
      )
    for name in ('drafter_probs', 'verifier_probs'):
      np.testing.assert_allclose(
        getattr(alone, name)[0], getattr(batch, name)[row], rtol=1e-5
      )
    for name, values in alone.stats.items():
      np.testing.assert_allclose(
        values[0], batch.stats[name][row], rtol=1e-5, err_msg=name
      )


@every_case
def test_the_books_add_up(entry, verify):
  out = conformance.generate(entry, verify, temperature=1.0)
  stats = out.stats
  by = {code: (out.provenance == code).sum(axis=1) for code in base.Provenance}
  np.testing.assert_array_equal(stats['accepted'], by[base.Provenance.DRAFTER])
  np.testing.assert_array_equal(
    stats['resampled'], by[base.Provenance.RESAMPLED]
  )
  judged = entry.model == 'pair' and loops.LOOPS[entry.method].judges
  assert judged or not stats['resampled'].any()
  inside = np.arange(out.tokens.shape[1]) < out.lengths[:, None]
  np.testing.assert_array_equal(out.provenance != 0, inside)
  assert not out.tokens[~inside].any()
  is_eos = (out.tokens == conformance.EOS) & inside
  last = np.take_along_axis(is_eos, out.lengths[:, None] - 1, 1)[:, 0]
  np.testing.assert_array_equal(is_eos.sum(axis=1), last)
  assert (last | (out.lengths == out.tokens.shape[1])).all()
  if entry.rule in (deferral.lossy, deferral.lossy_exact):
    assert np.isnan(stats['deferred']).all()  # They do not define one.
  else:
    assert (stats['deferred'] <= out.lengths + 1e-4).all()
  assert (stats['drafted'] >= stats['accepted']).all()
  verified = by[base.Provenance.VERIFIER] + by[base.Provenance.RESAMPLED]
  assert (stats['verifier_calls'] * 1 >= (verified > 0)).all()


@every_entry
def test_the_limit_cuts_a_greedy_text(entry):
  if entry.rule == deferral.ensemble or entry.method == 'sequence_cascade':
    pytest.skip('A coin is tossed, or the whole text decides.')
  long = conformance.generate(entry)
  short = conformance.generate(entry, max_length=5)
  np.testing.assert_array_equal(short.tokens, long.tokens[:, :5])


@every_case
def test_a_sweep_over_alpha_compiles_once(entry, verify):
  first = dataclasses.replace(entry, alpha=0.25)  # No stored result's.
  conformance.generate(first, verify, temperature=1.1)
  compiled = []

  def listen(event, seconds, **_):
    if event == '/jax/core/compile/backend_compile_duration':
      compiled.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    for alpha in (0.15, 0.35, 0.95):
      other = dataclasses.replace(entry, alpha=alpha)
      conformance.generate(other, verify, temperature=0.9)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert not compiled


@every_entry
def test_alpha_is_between_the_models(entry):
  """Otherwise the tests above would show little."""
  if entry.alpha == 0.0:
    return
  stats = conformance.generate(entry, temperature=1.0).stats
  # The lossy rules define no deferral; what they replace shows as much.
  lossy = entry.rule in (deferral.lossy, deferral.lossy_exact)
  assert stats['resampled' if lossy else 'deferred'].sum() > 0
  assert stats['accepted'].sum() > 0
