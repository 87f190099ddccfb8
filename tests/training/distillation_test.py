"""Distillation: who learns, and the verifier's texts on disk."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade_jax import base
from speccascade_jax import distributions
from speccascade_jax.decoding import autoregressive
from speccascade_jax.models.t5 import step_model
from speccascade_jax.training import distillation
from speccascade_jax.training import losses
from speccascade_jax.training import optimizer
from speccascade_jax.training import train_state
from speccascade_jax.training import train_step
from tests.training import tiny_run


def _loss(**options):
  return distillation.loss(tiny_run.bigram, tiny_run.bigram, **options)


def test_only_the_student_learns_and_it_becomes_the_teacher():
  teacher = tiny_run.bigram_params(seed=1)
  kept = np.array(teacher['table'])
  opt = optimizer.adamw()

  def without_dropout(params, frozen, batch, key):
    del key
    return _loss(mixture=1.0)(params, frozen, batch, None)

  step = train_step.make(
    without_dropout, opt, optimizer.schedule(5e-2, 1, 'linear', 400)
  )
  state = train_state.create(tiny_run.bigram_params(), opt, 1000, False)
  divergences = []
  for i in range(400):
    state, sums = step(state, teacher, tiny_run.batch(i % 50, rows=16))
    divergences.append(float(sums['kl'] / sums['weight']))
  assert divergences[0] > 0.5
  assert divergences[-1] < 1e-3
  assert float(sums['agreement']) == float(sums['weight'])
  np.testing.assert_array_equal(teacher['table'], kept)


def test_no_gradient_reaches_the_teacher():
  student, teacher = tiny_run.bigram_params(0), tiny_run.bigram_params(1)
  batch = tiny_run.batch(0)
  of_student, of_teacher = jax.grad(
    lambda s, t: _loss(mixture=0.5)(s, t, batch, None)['loss'], (0, 1)
  )(student, teacher)
  assert of_student['table'].any()
  assert not of_teacher['table'].any()


def test_the_teacher_runs_without_the_students_dropout():
  student, teacher = tiny_run.bigram_params(0), tiny_run.bigram_params(1)
  batch, key = tiny_run.batch(0), jax.random.key(3)
  found = _loss(mixture=0.7, temperature=2.0, label_smoothing=0.1)(
    student, teacher, batch, key
  )
  expected = losses.distillation(
    tiny_run.bigram(student, batch, key),
    tiny_run.bigram(teacher, batch, None),
    batch['decoder_targets'],
    batch['loss_weights'],
    mixture=0.7,
    temperature=2.0,
    label_smoothing=0.1,
  )
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
  quiet = _loss(mixture=0.7)(student, teacher, batch, None)
  assert float(quiet['kl']) != pytest.approx(float(found['kl']))


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(mixture=1.5), 'got 1.5'),
    (dict(mixture=0.5, temperature=0.0), 'above 0, got 0.0'),
  ],
)
def test_errors_name_the_value(options, message):
  with pytest.raises(ValueError, match=message):
    _loss(**options)


@pytest.mark.parametrize('share', [0.0, 0.3, 0.5, 1.0])
def test_streams_are_mixed_evenly_and_taken_up_anywhere(share):
  def streams(start):
    begun = int(np.floor(start * share))
    return distillation.interleave(
      (('corpus', i) for i in itertools.count(start - begun)),
      (('generated', i) for i in itertools.count(begun)),
      share,
      start,
    )

  whole = list(itertools.islice(streams(0), 40))
  assert sum(name == 'generated' for name, _ in whole) == round(40 * share)
  for name in ('corpus', 'generated'):
    numbers = [i for stream, i in whole if stream == name]
    assert numbers == list(range(len(numbers)))
  for start in (1, 7, 20):
    assert (
      list(itertools.islice(streams(start), 20))
      == (whole + list(itertools.islice(streams(40), 20)))[start : start + 20]
    )


_MODEL = step_model.step_model(tiny_run.CONFIG)
_INPUTS = [[3 + i % 7] * (1 + i % 5) + [1] for i in range(11)]
_SETTINGS = dict(
  teacher='0123',
  temperature=1.0,
  max_length=6,
  batch_size=4,
  widths=(4, 6),
  progress=False,
)


@pytest.fixture(scope='module')
def generated(tmp_path_factory):
  """A file that was made in one go, and what was in it."""
  path = tmp_path_factory.mktemp('generated') / 'targets.jsonl'
  targets = distillation.generate_targets(
    _MODEL, tiny_run.params(), _INPUTS, path, **_SETTINGS
  )
  return path, targets


def test_generated_texts_are_those_of_the_decoding_loop(generated):
  _, targets = generated
  key = jax.random.key(0)
  rows = [2, 4, 7, 9]  # A batch that the generator did not form.
  inputs = np.zeros((4, 6), np.int32)
  for row, i in enumerate(rows):
    inputs[row, : len(_INPUTS[i])] = _INPUTS[i]
  expected = autoregressive.decode(
    _MODEL,
    tiny_run.params(),
    inputs,
    jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.array(rows)),
    1.0,
    max_length=6,
    scaling=distributions.Scaling(),
    role=base.Provenance.VERIFIER,
  )
  for row, i in enumerate(rows):
    length = int(expected.lengths[row])
    assert targets[i] == expected.tokens[row, :length].tolist()
  assert len({tuple(t) for t in targets}) > 5


def test_the_file_is_read_back_and_what_is_missing_is_made_again(
  generated, tmp_path
):
  path, targets = generated
  lines = path.read_text().splitlines(keepends=True)
  assert len(lines) == 1 + len(_INPUTS)
  # Killed in the middle of the sixth text.
  cut = tmp_path / 'cut.jsonl'
  cut.write_text(''.join(lines[:6]) + lines[6][:9])
  again = distillation.generate_targets(
    _MODEL, tiny_run.params(), _INPUTS, cut, **_SETTINGS
  )
  assert again == targets
  rows = [json.loads(line) for line in cut.read_text().splitlines()[1:]]
  assert sorted(row['example'] for row in rows) == list(range(len(_INPUTS)))
  # With all there, no model is asked.
  whole = distillation.generate_targets(None, None, _INPUTS, cut, **_SETTINGS)
  assert whole == targets


@pytest.mark.parametrize(
  'changes, named',
  [
    (dict(temperature=0.0), 'temperature was 1.0 and is 0.0 now'),
    (dict(teacher='4567'), 'teacher was 0123 and is 4567 now'),
    (dict(inputs=[[4, 1], *_INPUTS[1:]]), 'inputs was .* and is .* now'),
  ],
)
def test_a_file_of_something_else_is_refused(generated, changes, named):
  path, _ = generated
  arguments = dict(inputs=_INPUTS, **_SETTINGS) | changes
  with pytest.raises(ValueError, match=f'targets.jsonl holds other.*{named}'):
    distillation.generate_targets(None, None, path=path, **arguments)


def test_a_file_that_does_not_say_its_teacher_is_refused(generated, tmp_path):
  """One that was begun before teacher and inputs were recorded."""
  lines = generated[0].read_text().splitlines(keepends=True)
  header = json.loads(lines[0])
  del header['teacher'], header['inputs']
  old = tmp_path / 'old.jsonl'
  old.write_text(json.dumps(header) + '\n' + ''.join(lines[1:]))
  with pytest.raises(ValueError, match='teacher was not recorded and is 0123'):
    distillation.generate_targets(None, None, _INPUTS, old, **_SETTINGS)


def test_inputs_that_are_too_long_are_named(generated):
  path, _ = generated
  with pytest.raises(ValueError, match='input 3 has 9 tokens'):
    distillation.generate_targets(
      None,
      None,
      [[1], [1], [1], [1] * 9],
      path.with_name('new.jsonl'),
      **_SETTINGS,
    )
