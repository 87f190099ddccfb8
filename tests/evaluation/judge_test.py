"""`Pair.judge`: what is judged is what a rule will see."""

import jax
import numpy as np
import pytest

import speccascade_jax as sc
from speccascade_jax import pair as pairs
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax.decoding import teacher_forced
from speccascade_jax.models import tabular
from tests.references import calibration as naive

V = 8  # pad, eos, bos, and the letters a to e.


class Letters:
  """A codec of one token a letter."""

  size, eos_id, bos_id, unk_id = V, 1, 2, 7

  def encode(self, text):
    return [3 + 'abcde'.index(letter) for letter in text]

  def decode(self, ids):
    return ''.join(self.piece(i) for i in ids)

  def piece(self, token):
    return '\0$^abcde'[token]

  def is_special(self, token):
    return token < 3


def _pair(decoder_only, bos_first=False):
  step = tabular.step_model(V, decoder_only)
  models = []
  for seed in (1, 2):
    params = tabular.init_params(jax.random.key(seed), V, 2, 3, scale=2.0)
    # A letter or the end, as of a trained model.
    params = params.at[..., 0].set(-50.0).at[..., 2].set(-50.0)
    models.append(
      pairs.Model(step, params[:1] if decoder_only else params, None)
    )
  words = vocabularies.Vocabulary(Letters())
  return pairs.Pair(*models, words, bos_first=bos_first)


_FRAMED = pytest.mark.parametrize(
  ('decoder_only', 'bos_first'), [(False, False), (True, False), (True, True)]
)
SOURCES = ['ab', 'c', 'deab']


@_FRAMED
def test_the_traced_probabilities_of_a_text_are_those_that_are_judged(
  decoder_only, bos_first
):
  pair = _pair(decoder_only, bos_first)
  out = pair.generate(
    SOURCES, temperature=1.0, key=1, max_length=9, trace=True, gamma=2
  )
  ended = out.tokens[np.arange(3), out.lengths - 1] == 1
  assert ended.all() and len(set(out.lengths)) > 1
  for model, traced in (
    ('drafter', out.drafter_probs),
    ('verifier', out.verifier_probs),
  ):
    found = pair.judge(
      SOURCES,
      out.texts,
      model=model,
      temperatures=(1.0, 0.5),
      max_length=9,
      input_length=6,
    )
    assert (found.there.sum(axis=1) == out.lengths).all()
    assert not found.truncated.any()
    at = found.there
    assert np.ptp(traced[at]) > 0.3
    np.testing.assert_allclose(
      np.exp(-found.surprisal[0][at]), traced[at], rtol=1e-4
    )
    # Where the text's own token is the likeliest, it is as likely as that.
    right = at & found.correct
    assert 0 < right.sum() < at.sum()
    np.testing.assert_allclose(
      found.confidence[0][right], traced[right], rtol=1e-4
    )
    assert (found.confidence[0][at] >= traced[at] * (1 - 1e-5)).all()
    assert (found.confidence[1] >= found.confidence[0] - 1e-6).all()


@_FRAMED
def test_every_position_against_the_table(decoder_only, bos_first):
  pair = _pair(decoder_only, bos_first)
  found = pair.judge(
    ['ab'],
    ['cad'],
    model='drafter',
    temperatures=(1.0, 2.0),
    max_length=6,
    input_length=5,
  )
  framed = [2, 3, 4] if bos_first else [3, 4, 1]
  start = framed if decoder_only else [0]
  condition = 0 if decoder_only else sum(framed) % 3
  text = [5, 3, 6, 1]  # EOS included.
  for i, token in enumerate(text):
    laws = tabular.next_probs(pair.drafter.params, start + text[:i], condition)
    for k, temperature in enumerate((1.0, 2.0)):
      expected = naive.surprisal(np.log(laws), token, temperature)
      assert found.surprisal[k, 0, i] == pytest.approx(expected, rel=1e-4)
    assert found.confidence[0, 0, i] == pytest.approx(laws.max(), rel=1e-4)
    assert found.correct[0, i] == (laws.argmax() == token)
  assert found.there.tolist() == [[True] * 4 + [False] * 2]


def test_what_is_cut_and_what_has_no_end():
  pair = _pair(True, True)
  settings = dict(model='verifier', temperatures=(1.0,), input_length=4)
  found = pair.judge(SOURCES, ['abc', 'abcd', 'ab'], max_length=4, **settings)
  assert found.there.sum(axis=1).tolist() == [4, 4, 3]
  # A target of five tokens, and a source of five.
  assert found.truncated.tolist() == [False, True, True]
  found = pair.judge(
    SOURCES, ['abc', 'abcd', 'ab'], max_length=4, ends=False, **settings
  )
  assert found.there.sum(axis=1).tolist() == [3, 4, 2]
  assert found.truncated.tolist() == [False, False, True]


def test_an_unlikely_token_has_a_finite_surprisal_at_every_temperature():
  table = np.zeros((1, V + 1, V), np.float32)
  table[..., 3] = 60.0
  found = teacher_forced.judge(
    tabular.step_model(V),
    table,
    np.array([[3]]),
    np.array([[4]]),
    np.array([0.25, 1.0, 4.0], np.float32),
  )
  np.testing.assert_allclose(
    found.surprisal[:, 0, 0], [240.0, 60.0, 15.0], rtol=1e-4
  )


def test_the_shipped_decoder_only_pair_is_judged_as_it_decodes():
  pair = sc.load_pair('debian_gemma')
  source = ['translate English to German: It is a text editor.'] * 2
  out = pair.generate(source, model='drafter', max_length=16, trace=True)
  found = pair.judge(
    source,
    out.texts,
    model='drafter',
    temperatures=(1.0,),
    max_length=16,
    input_length=24,
  )
  n = out.lengths[0] - 1
  assert n > 3
  assert found.correct[0, :n].all()  # Greedy: its own text is the likeliest.
  np.testing.assert_allclose(
    found.confidence[0, 0, :n], out.drafter_probs[0, :n], rtol=2e-3
  )


def test_a_model_that_is_not_there_is_refused():
  pair = pairs.Pair(None, *_both())
  settings = dict(temperatures=(1.0,), max_length=4, input_length=4)
  with pytest.raises(ValueError, match="model is 'drafter'"):
    pair.judge(['a'], ['b'], model='drafter', **settings)
  with pytest.raises(ValueError, match="model is 'both'"):
    pair.judge(['a'], ['b'], model='both', **settings)


def _both():
  whole = _pair(False)
  return whole.verifier, whole.vocabulary
