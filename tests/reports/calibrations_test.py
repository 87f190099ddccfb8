"""Reports of a calibration, of what the real writer has written."""

import csv
import io
import json

import matplotlib.image
import numpy as np
import pytest

from speccascade_jax.reports import calibration_page
from speccascade_jax.reports import calibrations
from speccascade_jax.reports import reliability
from speccascade_jax.reports import runs
from tests.evaluation import synthetic_judge
from tests.reports import page_test

_HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """Of a drafter that is twice too sure, and a verifier that is right."""
  path = tmp_path_factory.mktemp('calibration') / 'run'
  identity = synthetic_judge.IDENTITY | {'pair': _HOSTILE}
  judge = synthetic_judge.Judge(factor=2.0)
  synthetic_judge.calibrate(judge, path, 80, identity=identity)
  return path


@pytest.fixture(scope='module')
def loaded(written):
  return calibrations.load(written)


@pytest.fixture(scope='module')
def diagram(loaded):
  return reliability.draw(loaded)


def test_the_text_says_what_the_files_say(written, loaded):
  summary = json.loads((written / 'summary.json').read_text())['models']
  text = calibrations.text(loaded, width=80)
  assert max(map(len, text.splitlines()[1:])) <= 80
  lines = {line[:11].strip(): line[13:].split() for line in text.splitlines()}
  drafter = summary['drafter']
  assert lines['temperature'][0] == f'{drafter["temperature"]:g}'
  assert lines['ECE at 1'][:2] == [f'{100 * drafter["before"]["ece"]:.1f}', '%']
  assert f'{100 * drafter["ece_change"]:+.1f}' == lines['change'][0]
  assert 'Drafter: at temperature' in text and 'the ECE falls' in text
  assert '80 examples of validation, told of 80 of test' in text


def _verdict(loaded, change, interval):
  model = loaded.models[0]
  return calibrations.Model(
    **{
      **{name: getattr(model, name) for name in model.__dataclass_fields__},
      'change': change,
      'change_interval': interval,
    }
  ).verdict


@pytest.mark.parametrize(
  ('change', 'interval', 'said'),
  [
    (-0.02, (-0.03, -0.01), 'the ECE falls'),
    (0.02, (0.01, 0.03), 'the ECE rises'),
    (0.02, (-0.01, 0.03), 'does not change measurably'),
    (0.02, None, 'the ECE rises'),
  ],
)
def test_the_verdict_goes_by_the_interval(loaded, change, interval, said):
  verdict = _verdict(loaded, change, interval)
  assert said in verdict
  assert ('better left as they are' in verdict) == ('rises' in verdict)


def test_the_table_of_bins_is_whole(loaded):
  rows = list(csv.DictReader(io.StringIO(calibrations.csv(loaded))))
  assert len(rows) == 2 * 2 * 15
  of_drafter = [r for r in rows if r['model'] == 'drafter'][:15]
  # The ECE that is stated follows from the bins that are stated.
  total = sum(int(r['tokens']) for r in of_drafter)
  error = sum(
    int(r['tokens']) * abs(float(r['accuracy']) - float(r['confidence']))
    for r in of_drafter
    if r['accuracy']
  )
  assert error / total == pytest.approx(float(of_drafter[0]['ece']), rel=1e-6)
  assert '| drafter |' in calibrations.markdown(loaded)


def test_a_marker_is_where_its_bin_is(loaded, diagram):
  pixels = matplotlib.image.imread(io.BytesIO(diagram.png), format='png')
  assert pixels.shape[:2] == (diagram.height, diagram.width)
  filled = [
    b
    for m in loaded.models
    for r in (m.before, m.after)
    for b in r.bins
    if b.tokens
  ]
  assert len(diagram.marks) == len(filled)
  for mark, each in zip(diagram.marks, filled, strict=True):
    assert f'{each.tokens} tokens' in mark.tip
    at = int(mark.y * diagram.height), int(mark.x * diagram.width)
    red, _, blue = pixels[at][:3]
    # Below the diagonal in vermilion, above it in blue.
    assert (red > blue) == (each.confidence > each.accuracy)
  # The drafter is too sure: most of its markers are below.
  ours = diagram.marks[
    : sum(b.tokens > 0 for b in loaded.models[0].before.bins)
  ]
  red = [
    pixels[int(m.y * diagram.height), int(m.x * diagram.width)] for m in ours
  ]
  assert np.mean([p[0] > p[2] for p in red]) > 0.7


def test_the_page_is_whole_and_escaped(loaded):
  html = calibration_page.render(loaded)
  read = page_test._Reader(html)
  sources = read.attributes('src') + read.attributes('srcset')
  assert len(sources) == 2
  assert all(s.startswith('data:image/png;base64,') for s in sources)
  assert _HOSTILE not in html and _HOSTILE in ''.join(read.text)
  assert 'CONFIDENCE_TEMPERATURES = (' in html
  assert 'AMD' in html or loaded.header['device'] in html
  assert len(read.attributes('data-tip')) == len(reliability.draw(loaded).marks)


def test_a_calibration_that_is_not_finished(tmp_path):
  (tmp_path / 'calibration.json').write_text('{"task": "t"}')
  assert calibrations.is_one(tmp_path)
  with pytest.raises(runs.RunDirError, match='no finished calibration yet'):
    calibrations.load(tmp_path)
  assert not calibrations.is_one(tmp_path / 'none')
