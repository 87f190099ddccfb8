"""What is exported, read and continued by transformers itself.

Which the package does not need; where it is not installed nothing is tested.
"""

from __future__ import annotations

import numpy as np
import pytest

from speccascade_jax import loading
from speccascade_jax import zoo
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.models import families

transformers = pytest.importorskip('transformers')
torch = pytest.importorskip('torch')

_LENGTH = 16
_TEXTS = [
  'It is a small text editor.',
  'A tool to view pictures and to print them.',
  'Größe «7 %»  日本 😀',
]


@pytest.fixture(scope='module', params=zoo.names())
def exported(request, tmp_path_factory):
  """A pair, its verifier's folder, and texts as the pair is asked."""
  pair = loading.load_pair(request.param)
  folder = tmp_path_factory.mktemp('exported')
  model = pair.verifier
  huggingface.save(
    folder, model.config, model.params, vocabulary=pair.vocabulary
  )
  prefix = next(iter(zoo.PREFIXES[request.param].values()))
  return pair, folder, [prefix + text for text in _TEXTS]


def test_its_tokenizer_frames_texts_as_they_were_trained_on(exported):
  pair, folder, texts = exported
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  words = pair.vocabulary
  assert tokenizer.eos_token_id == words.eos_id
  assert tokenizer.bos_token_id == words.bos_id
  for text in texts:
    ids = tokenizer(text).input_ids
    assert ids == pair.framing.input(text)
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded == words.decode(words.encode(text))


def test_it_writes_the_same_texts(exported):
  """Greedily, and in float32 as here."""
  pair, folder, texts = exported
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  decoder_only = families.family_of(pair.verifier.config).decoder_only
  kind = (
    transformers.AutoModelForCausalLM
    if decoder_only
    else transformers.AutoModelForSeq2SeqLM
  )
  model = kind.from_pretrained(folder, dtype=torch.float32)
  ours = pair.generate(texts, model='verifier', max_length=_LENGTH)
  for row, text in enumerate(texts):
    inputs = tokenizer(text, return_tensors='pt').input_ids
    with torch.no_grad():
      found = model.generate(inputs, max_new_tokens=_LENGTH, do_sample=False)
    # Behind the prompt, or behind what a T5's decoder starts from.
    begin = inputs.shape[1] if decoder_only else 1
    theirs = found[0, begin:].numpy()
    np.testing.assert_array_equal(theirs, ours.tokens[row, : len(theirs)])
    assert len(theirs) == ours.lengths[row]
