"""The pairs that ship: small enough, complete, and what they are said to be."""

import pathlib
import re

import jax
import numpy as np
import pytest

import speccascade_jax as sc
from speccascade_jax import __main__ as commands
from speccascade_jax import zoo
from speccascade_jax.checkpoints import load
from speccascade_jax.models import families

_PACKAGE = pathlib.Path(zoo.__file__).parents[1]
_TEXTS = ['It is a small text editor.', 'This package contains the headers.']


def test_weights_and_corpora_stay_under_forty_megabytes():
  folders = (_PACKAGE / 'zoo', _PACKAGE / 'data/corpora')
  files = [f for folder in folders for f in folder.rglob('*') if f.is_file()]
  assert sum(f.stat().st_size for f in files if f.suffix != '.pyc') < 40e6


def test_there_is_a_pair_of_either_architecture():
  found = {
    name: families.name_of(load.load(zoo.paths(name)[1]).config)
    for name in zoo.names()
  }
  assert found == {'debian': 't5', 'debian_gemma': 'gemma'}


@pytest.mark.parametrize('name', zoo.names())
def test_the_card_gives_the_true_sizes_and_configs_that_are_there(name):
  drafter, verifier, vocabulary = zoo.paths(name)
  card = (vocabulary.parent / 'MODEL_CARD.md').read_text(encoding='utf-8')
  for folder in (drafter, verifier):
    params = load.load(folder).params
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert f'| {size:,} |' in card
  configs = re.findall(r'--gin_file=(\S+\.gin)', card)
  assert configs
  for config in configs:
    assert (_PACKAGE.parent / config).is_file(), config


@pytest.mark.parametrize('name', zoo.names())
def test_lossless_decoding_writes_what_the_verifier_does(name):
  pair = sc.load_pair(name)
  texts = [f'translate English to German: {text}' for text in _TEXTS]
  settings = dict(max_length=24, temperature=0.0, key=0)
  alone = pair.generate(texts, model='verifier', **settings)
  both = pair.generate(texts, rule=sc.verifier_only, gamma=3, **settings)
  np.testing.assert_array_equal(both.tokens, alone.tokens)
  # It drafts to some purpose: fewer calls of the verifier than tokens.
  assert (both.stats['block_efficiency'] > 1.2).all()
  assert all(len(text.split()) > 2 for text in alone.texts)


def test_the_decoder_only_pair_runs_the_command_of_a_real_gemma(capsys):
  arguments = [
    '--gin_file=configs/gemma3_270m.gin',
    '--gin.PAIR="debian_gemma"',
    '--gin.generate.max_length=8',
    'summarize: It is a small text editor.',
  ]
  assert commands.main(['generate', *arguments]) == 0
  assert capsys.readouterr().out.strip()
