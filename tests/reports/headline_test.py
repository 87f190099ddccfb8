"""The headline table: polylines by hand, replicates, natural ends, formats."""

import csv
import io
import json

import pytest

from speccascade_jax.reports import headline
from speccascade_jax.reports import headline_tables
from speccascade_jax.reports import intervals
from speccascade_jax.reports import runs
from speccascade_jax.reports import series
from tests.reports import run_dir


@pytest.mark.parametrize(
  ('points', 'floor', 'expected'),
  [
    # Monotone: half way between the second and the third.
    ([(0.8, 25.0), (0.6, 24.0), (0.4, 20.0)], 22.0, 0.5),
    # A measured point counts, on the floor as well.
    ([(0.8, 25.0), (0.6, 24.0), (0.4, 20.0)], 24.0, 0.6),
    ([(0.8, 25.0), (0.6, 24.0)], 25.0, 0.8),
    # Not monotone in quality: the curve comes back up at low cost.
    ([(0.9, 25.0), (0.7, 20.0), (0.5, 26.0), (0.3, 18.0)], 24.0, 0.45),
    # Not monotone in cost: the best is inside, at a vertex.
    ([(0.9, 25.0), (0.5, 25.0), (0.7, 25.0), (0.8, 10.0)], 25.0, 0.5),
    # Level at the floor.
    ([(0.9, 24.0), (0.5, 24.0)], 24.0, 0.5),
    ([(0.8, 25.0), (0.6, 24.0)], 25.5, None),
    ([(0.7, 24.0)], 24.0, 0.7),
    ([(0.7, 23.9)], 24.0, None),
    ([], 24.0, None),
  ],
)
def test_the_least_cost_on_a_polyline(points, floor, expected):
  found = headline.least(points, floor)
  assert found == (None if expected is None else pytest.approx(expected))
  # A curve has no direction.
  assert headline.least(points[::-1], floor) == found


def _build(path, figures, *, replicates=None, rules=('opt',), **settings):
  """A run directory whose runs have these (latency, quality), in order."""
  run_dir.build(path, temperatures=(0.0,), rules=rules, **settings)
  keys = json.loads((path / 'sweep.json').read_text())['runs']
  for number, (key, (latency, quality)) in enumerate(
    zip(keys, figures, strict=True)
  ):
    run_dir.edit(
      path / 'runs' / key / 'summary.json',
      quality={'bleu': quality, 'chrf': 2 * quality},
      relative_latency=latency,
      modelled_relative_latency=latency / 2,
    )
    if replicates:
      own = replicates[number]
      stored = {
        'quality': {'bleu': [q for _, q in own]},
        'relative_latency': [x for x, _ in own],
      }
      file = path / 'runs' / key / 'replicates.json'
      file.write_text(json.dumps(stored))
  return runs.load(path)


# Verifier, drafter, lossless, and OPT at three alphas.
_FIGURES = [(1, 24), (0.1, 18), (0.8, 23), (0.7, 25), (0.5, 23), (0.3, 20)]


def test_a_row_by_hand(tmp_path):
  lossless, opt = headline.find(_build(tmp_path, _FIGURES))
  assert (lossless.points, lossless.ends) == (1, ())
  assert lossless.latency['relative_latency'].value is None
  assert lossless.quality['relative_latency'].value == 23
  # The lossless point is where the curve of OPT begins.
  assert (opt.points, opt.ends) == (4, ('SpecDecode [lossless]',))
  assert opt.reference == 24
  assert opt.latency['relative_latency'].value == pytest.approx(0.6)
  assert opt.latency['modelled_relative_latency'].value == pytest.approx(0.3)
  assert opt.quality['relative_latency'].value == 25
  assert opt.gain['relative_latency'].value == 1
  assert opt.latency['relative_latency'].interval is None
  assert headline_tables.show(opt.latency['relative_latency']) == '0.60'
  assert (
    headline_tables.show(lossless.latency['relative_latency']) == 'not reached'
  )


def test_best_quality_may_lie_between_the_points(tmp_path):
  figures = [*_FIGURES[:2], (2.0, 23), (1.4, 26), (0.6, 22), (0.3, 20)]
  lossless, opt = headline.find(_build(tmp_path, figures))
  # Nothing beyond the ends: the one point is too slow.
  assert lossless.quality['relative_latency'].value is None
  assert opt.quality['relative_latency'].value == pytest.approx(24.0)
  # By the cost model all of it is fast enough.
  assert opt.quality['modelled_relative_latency'].value == 26


def test_only_a_rule_that_ends_there_has_the_end(tmp_path):
  sweep = _build(tmp_path, _FIGURES, rules=('token_v3',))
  _, v3 = headline.find(sweep)
  assert (v3.points, v3.ends) == (3, ())


def test_every_replicate_answers_anew(tmp_path):
  """Ten replicates; in the last four the verifier is out of reach."""
  verifier = [(1.0, 24.0)] * 6 + [(1.0, 30.0)] * 4
  shift = [0.01 * r for r in range(10)]
  replicates = [
    verifier,
    *([(x + s, q) for s in shift] for x, q in _FIGURES[1:]),
  ]
  sweep = _build(tmp_path, _FIGURES, replicates=replicates)
  _, opt = headline.find(sweep)
  latency = opt.latency['relative_latency']
  assert latency.reached == 0.6
  assert latency.interval.low == pytest.approx(0.6 + 0.025 * 9 * 0.01)
  assert latency.interval.high == float('inf')
  assert headline_tables.show(latency) == '0.60 [0.60, -] 60%'
  gain = opt.gain['relative_latency']
  assert gain.reached == 1
  assert gain.interval == intervals.Interval(-5.0, 1.0)
  assert headline_tables.show(gain, '+.2f') == '+1.00 [-5.00, 1.00]'
  # There are none by the cost model.
  assert opt.latency['modelled_relative_latency'].reached is None


def test_a_method_that_is_the_verifier_gains_exactly_nothing(tmp_path):
  own = [(1.0, 20.0 + 0.37 * r) for r in range(40)]
  same = [(0.8, q) for _, q in own]
  figures = [(1.0, 24.0), (0.1, 18.0), (0.8, 24.0)]
  sweep = _build(
    tmp_path, figures, rules=(), replicates=[own, [(0.1, 1.0)] * 40, same]
  )
  (lossless,) = headline.find(sweep)
  gain = lossless.gain['relative_latency']
  assert gain.value == 0 and gain.interval == intervals.Interval(0.0, 0.0)
  latency = lossless.latency['relative_latency']
  assert latency.value == 0.8 and latency.reached == 1
  assert latency.interval == intervals.Interval(0.8, 0.8)


def test_trials_are_averaged_before_the_curve_is_read(tmp_path):
  path = run_dir.build(
    tmp_path, temperatures=(0.0,), trials=3, rules=('opt',), replicates=30
  )
  rows = headline.find(runs.load(path))
  assert [row.label for row in rows] == [
    *('SpecDecode [lossless]', 'SpecCascade [OPT]'),
  ]
  assert rows[1].latency['relative_latency'].interval is not None


def test_no_verifier_is_no_headline(tmp_path):
  sweep = runs.load(
    run_dir.build(tmp_path, temperatures=(0.0,), references=('drafter',))
  )
  assert headline.find(sweep) == []
  assert headline_tables.text([], 'bleu') == ''


def test_text_markdown_and_csv_say_the_same(tmp_path):
  sweep = _build(tmp_path, _FIGURES, replicates=[[f] * 5 for f in _FIGURES])
  rows = headline.find(sweep)
  text = headline_tables.text(rows, 'bleu')
  assert max(map(len, text.splitlines())) <= 80
  assert 'T = 0, wall clock' in text and 'T = 0, cost model' in text
  (line, _) = (x for x in text.splitlines() if '[OPT]  ' in x)
  assert line.split()[2:] == [
    *('4', '0.60', '[0.60,', '0.60]', '25.00', '+1.00', '[1.00,', '1.00]'),
  ]
  assert 'SpecDecode [lossless] ends those of SpecCascade [OPT]' in ' '.join(
    text.split()
  )
  markdown = headline_tables.markdown(rows, 'bleu')
  table = [x for x in markdown.splitlines() if x.startswith('|')]
  assert len(table) == 4 and {x.count('|') for x in table} == {9}
  _, opt = csv.DictReader(io.StringIO(headline_tables.csv(rows)))
  assert float(opt['latency']) == pytest.approx(0.6)
  assert float(opt['modelled_latency']) == pytest.approx(0.3)
  assert float(opt['gain_low']) == float(opt['gain_reached']) == 1
  assert opt['modelled_latency_low'] == '' and opt['points'] == '4'


def _as(path, of, **config):
  """Makes other methods of the runs of a rule."""
  for file in path.glob('runs/*/config.json'):
    if json.loads(file.read_text())['rule'] == of:
      run_dir.edit(file, **config)
  return runs.load(path)


@pytest.mark.parametrize(
  ('truncation', 'order'),
  [
    ('min_p', [0.8, 0.7, 0.5, 0.3]),
    ('eta', [0.8, 0.7, 0.5, 0.3]),
    ('top_p', [0.7, 0.5, 0.3, 0.8]),
    ('top_k', [0.7, 0.5, 0.3, 0.8]),
  ],
)
def test_a_truncation_ends_where_it_truncates_nothing(
  tmp_path, truncation, order
):
  _build(tmp_path, _FIGURES)
  cut = dict(rule='verifier_only', truncation=truncation, label='Cut')
  sweep = _as(tmp_path, 'opt', **cut)
  rows = {row.label: row for row in headline.find(sweep)}
  assert rows['Cut'].ends == ('SpecDecode [lossless]',)
  assert rows['Cut'].points == 4 and rows['SpecDecode [lossless]'].points == 1
  (group,) = sweep.groups()
  (curve,) = (c for c in series.of_group(group, sweep) if c.label == 'Cut')
  measured, _ = headline._with_ends(curve.runs, group)
  assert [run.relative_latency for run in measured] == order


def test_only_the_same_way_of_decoding_ends_a_curve(tmp_path):
  _build(tmp_path, _FIGURES, rules=('chow',))
  assert headline.find(runs.load(tmp_path))[1].points == 4
  cascade = dict(method='token_cascade', gamma=None, verification=None)
  sweep = _as(tmp_path, 'chow', label='TokenCascade [Chow]', **cascade)
  _, row = headline.find(sweep)
  assert (row.points, row.ends) == (3, ())
  said = 'catch-up calls of an example to be equally wide'
  assert said in ' '.join(headline_tables.text([row], 'bleu').split())
  lossless = headline.find(sweep)[:1]
  assert 'catch-up' not in headline_tables.text(lossless, 'bleu')


def test_a_truncated_verifier_is_a_row_and_not_the_reference(tmp_path):
  _build(tmp_path, _FIGURES)
  alone = dict(rule=None, model='verifier', gamma=None, verification=None)
  sweep = _as(
    tmp_path, 'opt', label='TopP', truncation='top_p',
    method='autoregressive', **alone,
  )  # fmt: skip
  _, row = headline.find(sweep)
  assert (row.reference, row.points, row.ends) == (24, 3, ())
  assert row.latency['relative_latency'].value == pytest.approx(0.6)


def test_csv_tells_methods_apart_by_their_settings(tmp_path):
  _build(tmp_path, _FIGURES)
  bild = dict(method='bild', rule=None, label='BiLD', verification=None)
  sweep = _as(tmp_path, 'opt', options={'fallback': 0.4}, **bild)
  rows = csv.DictReader(io.StringIO(headline_tables.csv(headline.find(sweep))))
  lossless, row = rows
  assert (row['method'], row['options']) == ('bild', 'fallback 0.4')
  assert lossless['rule'] == 'verifier_only' and lossless['options'] == ''
  assert row['eta'] == row['truncation'] == row['rule'] == ''
