"""The figures and the page: self-contained, escaped, complete."""

import html.parser
import io
import json
import re

import matplotlib.image
import numpy as np
import pytest

from speccascade_jax.reports import figures
from speccascade_jax.reports import page
from speccascade_jax.reports import runs
from speccascade_jax.reports import series
from tests.reports import run_dir

_HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


class _Reader(html.parser.HTMLParser):
  """Tags with their attributes, and the text outside of scripts."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.text = [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_data(self, data):
    if self.cdata_elem is None:  # Neither in a script nor in a style.
      self.text.append(data)

  def attributes(self, name):
    return [attrs[name] for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  return runs.load(
    run_dir.build(
      tmp_path_factory.mktemp('run'),
      rules=('opt', 'chow'),
      unfinished=(7,),
      replicates=40,
    )
  )


@pytest.fixture(scope='module')
def rendered(small):
  return page.render(small)


def test_the_page_needs_nothing_else(rendered):
  read = _Reader(rendered)
  sources = read.attributes('src') + read.attributes('srcset')
  assert len(sources) == 6
  assert all(s.startswith('data:image/png;base64,') for s in sources)
  assert all(href.startswith('#run-') for href in read.attributes('href'))
  assert not {'link', 'iframe', 'object'} & {tag for tag, _ in read.tags}
  assert not re.search(r'https?:|@import|url\(', rendered)
  # And if anything slipped in, the browser would not fetch it.
  assert "default-src 'none'" in rendered


def test_the_page_has_the_table_and_what_made_it(rendered, small):
  read = _Reader(rendered)
  words = ' '.join(' '.join(read.text).split())
  for run in small.runs:
    assert f'run-{run.key}' in read.attributes('id')
  for said in (
    'SpecCascade [OPT]', 'operating point', '1.58', 'jax 0.10.2', '4850eba0c',
    '2 x Intel(R) Xeon(R)', 'speccascade sweep', 'tok:13a', 'sweep.task',
    'Not all runs have finished', '33 of 100 examples',
    'It is a text editor.', 'Ziel Nummer 0.', 'verifier alone: BLEU 24.60',
    'wall clock cost model method gamma latency BLEU BLEU - V latency',
  ):  # fmt: skip
    assert said in words, said


def test_cells_sort_by_value(rendered):
  values = [json.loads(v) for v in _Reader(rendered).attributes('data-value')]
  assert None in values and 'Verifier' in values and 24.6 in values


def test_every_point_of_a_figure_has_its_row(rendered):
  read = _Reader(rendered)
  spots = [a for tag, a in read.tags if a.get('class') == 'spot']
  rows = set(read.attributes('id'))
  assert {spot['href'][1:] for spot in spots} <= rows
  # All figures: the drafter, the lossless point and two curves of three
  # alphas at two temperatures, less the unfinished one; and the verifier,
  # which has no rejection rate.
  assert len(spots) == 3 * (2 * (1 + 1 + 6) - 1) + 2 * 2
  for spot in spots:
    left, top = re.findall(r'([\d.]+)%', spot['style'])
    assert 0 < float(left) < 100 and 0 < float(top) < 100


def test_hostile_text_is_shown_and_not_run(tmp_path):
  path = run_dir.build(tmp_path, temperatures=(0.0,), rules=('opt',))
  clean = [tag for tag, _ in _Reader(page.render(runs.load(path))).tags]
  run_dir.edit(path / 'sweep.json', task=_HOSTILE, device=_HOSTILE)
  (path / 'operative_config.gin').write_text(_HOSTILE)
  for config in path.glob('runs/*/config.json'):
    run_dir.edit(config, label=_HOSTILE)
  for log in [*path.glob('runs/*/examples.jsonl'), path / 'examples.jsonl']:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row in rows:
      row |= {'prediction': _HOSTILE, 'source': _HOSTILE, 'target': _HOSTILE}
    log.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  read = _Reader(page.render(runs.load(path)))
  tags = [tag for tag, _ in read.tags]
  assert tags.count('script') == clean.count('script') == 1
  assert tags.count('img') == clean.count('img')
  assert not read.attributes('onerror')
  assert any(_HOSTILE in text for text in read.text)
  assert any(_HOSTILE in tip for tip in read.attributes('data-tip'))


@pytest.mark.parametrize('missing', ['rejection_rate', 'relative_latency'])
def test_missing_values_leave_points_out(tmp_path, missing):
  path = run_dir.build(tmp_path, temperatures=(0.0,), rules=('opt',))
  for summary in path.glob('runs/*/summary.json'):
    run_dir.edit(summary, **{missing: None})
  sweep = runs.load(path)
  draw = {
    'rejection_rate': figures.quality_vs_rejection_rate,
    'relative_latency': figures.quality_vs_latency,
  }[missing]
  # The references keep a place of their own: by definition the drafter
  # rejects nothing, and the verifier is as slow as itself.
  (mark,) = draw(sweep).marks
  left = {'rejection_rate': 'drafter', 'relative_latency': 'verifier'}
  assert mark.run.model == left[missing]


def _pixels(figure):
  return matplotlib.image.imread(io.BytesIO(figure.png))[..., :3]


def test_marks_lie_on_their_points(small):
  figure = figures.quality_vs_latency(small)
  pixels = _pixels(figure)
  assert pixels.shape[:2] == (figure.height, figure.width)
  checked = 0
  for mark in figure.marks:
    if mark.run.rule != 'chow':
      continue
    colour = matplotlib.colors.to_rgb(series.style_of(mark.run, small).light)
    at = pixels[round(mark.y * figure.height), round(mark.x * figure.width)]
    assert np.abs(at - colour).max() < 0.05
    checked += 1
  assert checked == 5


def test_light_and_dark_figures_differ_in_colour_alone(small):
  light = figures.quality_vs_rejection_rate(small)
  dark = figures.quality_vs_rejection_rate(small, dark=True)
  assert _pixels(light)[0, 0].min() > 0.9 > 0.2 > _pixels(dark)[0, 0].max()
  assert light.marks == dark.marks


def test_curves_are_told_apart_without_colour(tmp_path):
  sweep = runs.load(run_dir.build(tmp_path, temperatures=(0.0,), gammas=(3, 5)))
  curves = series.of_group(sweep.groups()[0], sweep)
  assert len(curves) == 12
  shapes = {(c.style.marker, c.style.line) for c in curves}
  assert len(shapes) == 12
  # A single point has no line.
  points = [c.style for c in curves if len(c.runs) == 1]
  assert len({(style.marker, style.hollow) for style in points}) == 2
  assert 'SpecCascade [OPT], gamma 5' in [c.name for c in curves]
  assert all(
    [r.alpha for r in c.runs] == sorted(r.alpha for r in c.runs)
    for c in curves
    if len(c.runs) > 1
  )


def test_many_curves_of_several_gammas_get_a_panel_each(tmp_path):
  full = runs.load(
    run_dir.build(tmp_path / 'a', temperatures=(0.0,), gammas=(3, 5))
  )
  few = runs.load(
    run_dir.build(
      tmp_path / 'b', temperatures=(0.0,), gammas=(3, 5), rules=('opt',)
    )
  )
  for sweep, panels in ((full, 2), (few, 1)):
    figure = figures.quality_vs_deferral_rate(sweep)
    alone = [m for m in figure.marks if m.run.model == 'verifier']
    assert len(alone) == panels
    points = [m.run.key for m in figure.marks if m.run.model == 'pair']
    assert len(points) == len(set(points)) == len(sweep.runs) - 2
  # A panel's title has the gamma, its curves need not.
  names = [c.name for c in series.of_group(full.groups()[0], full, 5)]
  assert 'SpecCascade [OPT]' in names and len(names) == 6


def test_rules_of_ones_own_get_free_styles(tmp_path):
  path = run_dir.build(tmp_path, temperatures=(0.0,))
  for i, config in enumerate(sorted(path.glob('runs/*/config.json'))):
    if json.loads(config.read_text())['model'] == 'pair':
      run_dir.edit(config, rule=f'mine.rule_{i}', label=f'Mine {i}')
  sweep = runs.load(path)
  styles = [series.style_of(run, sweep) for run in sweep.runs]
  assert len(styles) == 18 and len(set(styles)) == 18
