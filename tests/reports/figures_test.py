"""Markers and words of a panel: none hides another."""

from matplotlib.backends import backend_agg
import matplotlib.figure
import pytest

from speccascade_jax.reports import axes
from speccascade_jax.reports import figures
from speccascade_jax.reports import labels
from speccascade_jax.reports import panel as panel_lib
from speccascade_jax.reports import runs
from speccascade_jax.reports import series
from speccascade_jax.reports import theme
from tests.reports import run_dir


def test_markers_of_a_heap_are_drawn_around_each_other():
  apart = [(0.0, 0.0), (50.0, 0.0), (0.0, 50.0)]
  assert panel_lib.stacked([6.0, 8.0, 8.0], apart, 4.0) == [6.0, 8.0, 8.0]
  heap = [(0.0, 0.0), (1.0, 2.0), (0.0, 1.0), (90.0, 0.0)]
  sizes = panel_lib.stacked([8.0, 6.0, 8.0, 8.0], heap, 4.0)
  # The smallest and the one apart stay as they are.
  assert sizes[1] == 6.0 and sizes[3] == 8.0
  inner, middle, outer = sorted(sizes[:3])
  assert middle - inner >= 3 and outer - middle >= 3
  # What is large enough already is not made larger.
  assert panel_lib.stacked([17.0, 6.0], heap[:2], 4.0) == [17.0, 6.0]
  # A large heap does not grow over its neighbours.
  assert max(panel_lib.stacked([8.0] * 20, [(0.0, 0.0)] * 20, 4.0)) == 24.0


def _drawn(sweep, axis):
  """The panels of a figure with the boxes of their words, in pixels."""
  canvas = matplotlib.figure.Figure(figsize=(5.4, 4.1), dpi=100)
  agg = backend_agg.FigureCanvasAgg(canvas)
  panel = canvas.subplots()
  (group,) = sweep.groups()
  content = panel_lib.Content('', group, _curves(group, sweep))
  drawn = panel_lib.draw(panel, content, 'bleu', axis, theme.LIGHT)
  canvas.draw_without_rendering()
  renderer = agg.get_renderer()
  panel_lib.finish(drawn, theme.LIGHT, renderer)
  words = {
    text.get_text(): labels._box(text.get_window_extent(renderer))
    for text in panel.texts
  }
  frame = labels._box(panel.get_window_extent(renderer))
  return drawn, words, frame


def _curves(group, sweep):
  return series.of_group(group, sweep)


@pytest.mark.parametrize('temperature', [0.0, 1.0])
def test_words_hide_neither_words_nor_markers(tmp_path, temperature):
  path = run_dir.build(tmp_path, temperatures=(temperature,))
  # A method as slow as the verifier and hardly better lies beside its star,
  # and the fastest good one is not far from it.
  for number, (latency, quality) in {
    '000000000003': (0.99, 0.1),
    '000000000004': (0.93, 0.4),
  }.items():
    summary = path / 'runs' / number / 'summary.json'
    reference = 24.6 if temperature == 0 else 14.2
    changed = {'bleu': reference + quality, 'chrf': 1.0}
    run_dir.edit(summary, quality=changed, relative_latency=latency)
  drawn, words, frame = _drawn(runs.load(path), axes.LATENCY)
  assert {'Verifier', 'Drafter'} < set(words) and len(words) == 3
  boxes = list(words.values())
  for i, box in enumerate(boxes):
    assert box.shared(frame) == pytest.approx(box.area)
    assert not any(box.shared(other) for other in boxes[:i])
    for spot in drawn.spots:
      x, y = drawn.axes.transData.transform((spot.x, spot.y))
      assert not box.shared(labels.around(x, y, 2.0))


def test_what_is_drawn_is_explained(tmp_path):
  def said(path, axis=axes.LATENCY, **settings):
    sweep = runs.load(
      run_dir.build(tmp_path / path, temperatures=(0.0,), **settings)
    )
    (group,) = sweep.groups()
    drawn, _, _ = _drawn(sweep, axis)
    content = panel_lib.Content('', group, _curves(group, sweep))
    return ' '.join(figures._notes([content], [drawn], axis))

  full = said('a', replicates=20)
  assert "Ring: the fastest run at the verifier's quality" in full
  assert 'across, of the relative latency; upright, of the difference' in full
  assert 'Shaded' in full and 'Dashed line' in full
  deferral = said('b', axes.DEFERRAL, replicates=20)
  assert 'across, of' not in deferral and 'Shaded' not in deferral
  # Older sweeps have a standard error of the latency alone.
  assert 'upright' not in said('c')
  lonely = said('d', references=(), replicates=20)
  assert 'Ring' not in lonely and 'upright, of the quality.' in lonely
