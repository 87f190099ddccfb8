"""Metrics against values computed by hand."""

import json
import math

import pytest
import seqio

from speccascade_jax.data import metrics

TARGET = 'the cat sat on the mat'
PREDICTION = 'the cat sat on a mat'


def test_bleu_by_hand():
  # Matching n-grams: 5 of 6, 3 of 5, 2 of 4, 1 of 3; of the same length.
  expected = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4)
  result = metrics.bleu([TARGET], [PREDICTION])
  assert result['bleu'] == pytest.approx(expected)


def test_bleu_is_of_the_corpus_and_keeps_case():
  targets = [TARGET, 'a small tool for text']
  predictions = [PREDICTION, 'a small tool for text']
  # 5 + 5 of 11, 3 + 4 of 9, 2 + 3 of 7, 1 + 2 of 5.
  expected = 100 * (10 / 11 * 7 / 9 * 5 / 7 * 3 / 5) ** (1 / 4)
  assert metrics.bleu(targets, predictions)['bleu'] == pytest.approx(expected)
  upper = [text.upper() for text in predictions]
  assert metrics.bleu(targets, upper)['bleu'] < 5


def test_bleu_penalises_what_is_too_short():
  # Every n-gram matches, 5 words for 6.
  result = metrics.bleu([TARGET], ['the cat sat on the'])
  assert result['bleu'] == pytest.approx(100 * math.exp(1 - 6 / 5))


def test_chrf_by_hand():
  # Characters: 2 of 2 predicted, 2 of 3 wanted; pairs: 1 of 1, 1 of 2.
  precision, recall = 1, (2 / 3 + 1 / 2) / 2
  expected = 100 * 5 * precision * recall / (4 * precision + recall)
  assert metrics.chrf(['abc'], ['ab'])['chrf'] == pytest.approx(expected)


def test_rouge_by_hand():
  result = metrics.rouge([TARGET], [PREDICTION])
  expected = {'rouge1': 5 / 6, 'rouge2': 3 / 5, 'rougeL': 5 / 6}
  assert result == pytest.approx({k: 100 * v for k, v in expected.items()})


def test_rouge_l_wants_the_order_and_rouge_1_does_not():
  result = metrics.rouge(['one two three four'], ['four three two one'])
  assert result['rouge1'] == pytest.approx(100)
  assert result['rougeL'] == pytest.approx(25)


def test_rouge_stems_and_averages_over_examples():
  result = metrics.rouge(['text editors', 'a tool'], ['text editor', 'game'])
  assert result == pytest.approx({'rouge1': 50, 'rouge2': 50, 'rougeL': 50})


@pytest.mark.parametrize('metric', [metrics.bleu, metrics.chrf, metrics.rouge])
def test_perfect_and_useless(metric):
  texts = ['eine Bibliothek für Größen', 'noch ein kleines Werkzeug']
  perfect, useless = metric(texts, texts), metric(texts, ['1 2 3 4 5'] * 2)
  for name, value in perfect.items():
    if not name.endswith('_signature'):
      assert value == pytest.approx(100)
      assert useless[name] < 10
      assert isinstance(value, float)


@pytest.mark.parametrize('metric', [metrics.bleu, metrics.chrf, metrics.rouge])
def test_unequal_or_no_texts(metric):
  with pytest.raises(ValueError, match='2 targets and 1 predictions'):
    metric(['a', 'b'], ['a'])
  with pytest.raises(ValueError, match='0 targets'):
    metric([], [])


@pytest.mark.parametrize('name', ['bleu', 'chrf'])
def test_signature(name, tmp_path, caplog):
  result = getattr(metrics, name)([TARGET], [PREDICTION])
  signature = result[f'{name}_signature']
  assert 'nrefs:1|case:mixed' in signature and 'version:' in signature
  assert json.loads(json.dumps(signature)) == signature
  # seqio's loggers take numbers and its own types, and nothing else.
  for logger in (seqio.TensorBoardLogger, seqio.PyLoggingLogger):
    with caplog.at_level('INFO', logger='absl'):
      logger(str(tmp_path))(
        task_name='task',
        step=1,
        metrics={'signature': signature},
        dataset=None,
        inferences=None,
        targets=None,
      )
  assert str(signature) in caplog.text
