"""Batches: shapes, resumption, epochs, mixtures, and seqio's converter."""

import collections
import itertools

import numpy as np
import pytest
import seqio

from speccascade_jax import vocabulary as vocabularies
from speccascade_jax.data import batches
from speccascade_jax.data import bucketing
from speccascade_jax.data import corpora
from speccascade_jax.data import task_texts

EN_DE, SYNOPSIS = 'debian_en_de', 'debian_synopsis'
# The smaller split, since what is tested does not depend on the size.
SPLIT = 'validation'
LENGTHS = {'inputs': 128, 'targets': 128}


def stream(task=EN_DE, lengths=LENGTHS, seed=0, start_step=0, **options):
  options = {'batch_tokens': 2048, 'multiple_of': 4} | options
  size = options.pop('batch_size', None)
  return batches.train_batches(
    task, SPLIT, size, lengths, seed, start_step, **options
  )


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def rows_of(batch):
  """(inputs, targets) without padding, of rows that hold an example."""
  for inputs, targets in zip(batch['encoder_inputs'], batch['decoder_targets']):
    if targets.any():
      yield tuple(inputs[inputs > 0]), tuple(targets[targets > 0])


def same(one, other):
  return all(np.array_equal(one[key], other[key]) for key in one)


def epoch(iterator, size):
  """Batches until `size` examples have come by, and those examples."""
  taken, seen = [], []
  while len(seen) < size:
    taken.append(next(iterator))
    seen += rows_of(taken[-1])
  assert len(seen) == size
  return taken, seen


def tokens_of(task):
  dataset = seqio.get_mixture_or_task(task).get_dataset(
    LENGTHS, SPLIT, shuffle=False
  )
  return [
    (tuple(row['inputs']), tuple(row['targets']))
    for row in dataset.as_numpy_iterator()
  ]


def test_arrays():
  shapes = set()
  for batch in take(stream(), 40):
    inputs, targets = batch['encoder_inputs'], batch['decoder_targets']
    shapes.add((inputs.shape[1], targets.shape[1]))
    assert inputs.shape[0] == targets.shape[0]
    assert inputs.dtype == targets.dtype == np.int32
    assert batch['decoder_inputs'].dtype == np.int32
    assert batch['loss_weights'].dtype == np.float32
    # What is fed at position t is what is wanted at t - 1.
    assert (batch['decoder_inputs'][:, 0] == 0).all()
    np.testing.assert_array_equal(
      batch['decoder_inputs'][:, 1:], targets[:, :-1]
    )
    np.testing.assert_array_equal(batch['loss_weights'], targets > 0)
    for source, target in rows_of(batch):
      assert source[-1] == target[-1] == 1 and source[0] == 3
  assert shapes <= set(bucketing.SHAPES) | {(128, 128)}
  assert len(shapes) >= 5


@pytest.mark.parametrize('start', [1, 37, 150])
def test_resumes_where_it_would_have_been(start):
  # 150 is past the first epoch of about 60 batches.
  whole = take(stream(), start + 3)
  resumed = take(stream(start_step=start), 3)
  assert all(map(same, resumed, whole[start:]))
  # The check can fail: neighbouring batches differ.
  assert not same(whole[start - 1], whole[start])


def test_the_seed_makes_the_order():
  one, again, other = (take(stream(seed=seed), 5) for seed in (1, 1, 2))
  assert all(map(same, one, again))
  assert not any(map(same, one, other))


def test_each_epoch_has_every_example_once_in_another_order():
  wanted = collections.Counter(tokens_of(EN_DE))
  iterator = stream()
  first, seen = epoch(iterator, 1500)
  second, again = epoch(iterator, 1500)
  assert collections.Counter(seen) == collections.Counter(again) == wanted
  assert seen != again
  # Only the last shape's batch may lack examples, and its rows say so.
  partial = [b for b in first if len(list(rows_of(b))) < len(b['loss_weights'])]
  assert len(partial) <= 2
  for batch in partial:
    empty = ~batch['decoder_targets'].any(axis=1)
    assert (batch['loss_weights'][empty] == 0).all()
    assert (batch['encoder_inputs'][empty][:, 0] == 1).all()
    assert (batch['encoder_inputs'][empty][:, 1:] == 0).all()


@pytest.mark.parametrize(
  'task, lengths',
  [(EN_DE, LENGTHS), (SYNOPSIS, {'inputs': 256, 'targets': 64})],
)
def test_little_is_padding_and_batches_cost_the_same(task, lengths):
  taken = batches.eval_batches(
    task, SPLIT, None, lengths, batch_tokens=2048, multiple_of=4
  )
  sides = ('encoder_inputs', 'decoder_targets')
  text = sum((b[side] > 0).sum() for b in taken for side in sides)
  costs = [sum(b[side].size for side in sides) for b in taken]
  assert text / sum(costs) > 0.7
  assert max(costs) <= 2048 and min(costs) > 1024
  assert all(len(b['loss_weights']) % 4 == 0 for b in taken)
  assert len({b['encoder_inputs'].shape for b in taken}) <= 13


def test_eval_is_one_pass_and_agrees_with_seqios_converter():
  taken = batches.eval_batches(EN_DE, SPLIT, 64, LENGTHS, shapes=())
  dataset = seqio.get_dataset(
    EN_DE,
    task_feature_lengths=LENGTHS,
    dataset_split=SPLIT,
    shuffle=False,
    feature_converter=seqio.EncDecFeatureConverter(pack=False),
  ).batch(1500)
  wanted = next(dataset.as_numpy_iterator())
  names = {
    'encoder_inputs': 'encoder_input_tokens',
    'decoder_inputs': 'decoder_input_tokens',
    'decoder_targets': 'decoder_target_tokens',
    'loss_weights': 'decoder_loss_weights',
  }
  for ours, theirs in names.items():
    made = np.concatenate([batch[ours] for batch in taken])
    np.testing.assert_array_equal(made[:1500], wanted[theirs])
  assert len(taken) == 24
  assert taken[-1]['loss_weights'][1500 % 64 :].sum() == 0


def test_a_batch_size_instead_of_tokens():
  for batch in take(stream(batch_size=8, batch_tokens=None), 20):
    assert len(batch['loss_weights']) == 8


def test_texts_are_cut_and_end():
  lengths = {'inputs': 20, 'targets': 10}
  for batch in take(stream(lengths=lengths), 20):
    assert batch['encoder_inputs'].shape[1] <= 20
    assert batch['decoder_targets'].shape[1] <= 10
    for source, target in rows_of(batch):
      assert source[-1] == target[-1] == 1


def test_token_batches_are_those_of_a_task_with_these_texts():
  rows = tokens_of(EN_DE)
  tokens = batches.Tokens(
    inputs=[np.array(inputs) for inputs, _ in rows],
    targets=[np.array(targets) for _, targets in rows],
    eos_id=1,
  )
  options = {'batch_tokens': 2048, 'multiple_of': 4}
  made = take(batches.token_batches(tokens, LENGTHS, 0, 7, **options), 3)
  assert all(map(same, made, take(stream(start_step=7), 3)))
  short = LENGTHS | {'targets': 50}
  with pytest.raises(ValueError, match="none longer than.*'targets': 50"):
    batches.token_batches(tokens, short, 0, **options)
  with pytest.raises(ValueError, match='^0 texts'):
    batches.token_batches(batches.Tokens([], [], 1), LENGTHS, 0, **options)


class _Letters:
  """A vocabulary of another kind: a token a letter, a BOS, other numbers."""

  size, eos_id, bos_id, unk_id = 0x10000, 3, 2, 1

  def encode(self, text):
    return [ord(letter) + 10 for letter in text]

  def decode(self, ids):
    return ''.join(chr(i - 10) for i in ids if i > 3)


@pytest.mark.parametrize('bos_first', [True, False])
def test_another_vocabulary_splits_the_texts_of_a_task(bos_first):
  words = vocabularies.Vocabulary(_Letters())
  framing = vocabularies.Framing(words, bos_first)
  options = dict(batch_tokens=4096, framing=framing, num_examples=30)
  lengths = {'inputs': 60, 'targets': 40}
  made = batches.eval_batches(
    'debian_continuation', SPLIT, None, lengths, **options
  )
  found = {row for batch in made for row in rows_of(batch)}
  texts = task_texts.examples('debian_continuation', SPLIT, 30)
  assert len(found) == len(texts)
  whole = set()
  for source, target in found:
    special = source[0] if bos_first else source[-1]
    assert special == (2 if bos_first else 3) and target[-1] == 3
    whole.add((words.decode(x for x in source if x != 3), words.decode(target)))
  assert any(len(e['source']) > 59 for e in texts)  # Some are cut.
  assert whole == {
    (
      e['source'][-59:] if bos_first else e['source'][:59],
      e['target'][:39],
    )
    for e in texts
  }
  first = next(stream('debian_continuation', lengths, framing=framing, seed=1))
  own = next(stream('debian_continuation', lengths, seed=1))
  assert first['encoder_inputs'].max() != own['encoder_inputs'].max()
  assert set(first['encoder_inputs'][:, 0] == 2) == {bos_first}
  sources = batches.sources('debian_continuation', SPLIT, lengths, 30, framing)
  assert {tuple(ids) for ids in sources} == {source for source, _ in found}


def test_a_task_that_keeps_no_texts_has_its_own_vocabulary_alone(monkeypatch):
  rows = [{'inputs': np.array([5, 1]), 'targets': np.array([5, 1])}]
  monkeypatch.setattr(task_texts, 'rows_of', lambda *arguments: iter(rows))
  monkeypatch.setattr(task_texts, '_keeps_texts', lambda step: True)
  framing = vocabularies.Framing(vocabularies.Vocabulary(_Letters()), True)
  with pytest.raises(ValueError, match='no texts to evaluate on or to split'):
    batches.sources(EN_DE, 'test', LENGTHS, 1, framing)


@pytest.mark.parametrize('count', [0, 1501])
def test_as_many_examples_as_there_are(count):
  with pytest.raises(ValueError, match=f'num_examples is {count};.* has 1500'):
    batches.eval_batches(
      EN_DE, SPLIT, None, LENGTHS, batch_tokens=64, num_examples=count
    )


@pytest.fixture
def three_to_one():
  seqio.MixtureRegistry.add('three_to_one', [(EN_DE, 3.0), (SYNOPSIS, 1.0)])
  yield 'three_to_one'
  seqio.MixtureRegistry.remove('three_to_one')


def test_mixtures_follow_their_rates(three_to_one):
  lengths = {'inputs': 128, 'targets': 128}
  iterator = stream(task=three_to_one, lengths=lengths)
  _, seen = epoch(iterator, 3000)
  prefixes = collections.Counter(source[0] for source, _ in seen)
  assert prefixes == {3: 2250, 4: 750}
  # 2,250 of 1,500: all once, and half of them twice.
  counts = collections.Counter(row for row in seen if row[0][0] == 3)
  wanted = collections.Counter(tokens_of(EN_DE))
  assert set(counts) == set(wanted)
  assert all(wanted[row] <= n <= 2 * wanted[row] for row, n in counts.items())
  # The other task goes on where the first epoch left it.
  _, more = epoch(iterator, 3000)
  synopses = [row for row in seen + more if row[0][0] == 4]
  assert len(set(synopses)) > 1450


def test_mixtures_resume():
  whole = take(stream(task='debian'), 130)
  resumed = take(stream(task='debian', start_step=127), 3)
  assert all(map(same, resumed, whole[127:]))


def test_examples():
  found = task_texts.examples(EN_DE, 'test', 20)
  pairs = corpora.read(EN_DE, 'test')
  for i, example in enumerate(found):
    assert example['example'] == i
    text = 'translate English to German: ' + pairs[i].source
    assert (example['source'], example['target']) == (text, pairs[i].target)
    assert example['completion'] == pairs[i].target
  assert len(task_texts.examples(EN_DE, 'test')) == 1500


def test_examples_drawn():
  ten, again, other, fifty = (
    [e['example'] for e in task_texts.examples(EN_DE, 'test', n, seed=seed)]
    for n, seed in ((10, 1), (10, 1), (10, 2), (50, 1))
  )
  assert ten == again == sorted(ten) != other
  assert len(set(ten)) == 10 and set(ten) < set(fifty)
  assert ten != list(range(10))


@pytest.mark.parametrize(
  'options, message',
  [
    ({'task': 'debian_fr'}, "No task 'debian_fr'; there are cnn_.*debian"),
    ({'lengths': {'inputs': 8}}, "has to say 'inputs' and 'targets'"),
    ({'lengths': {'inputs': 8, 'targets': 0}}, r"lengths\['targets'\] is 0"),
    ({'batch_size': 8}, 'exactly one'),
    ({'batch_tokens': None}, 'exactly one'),
    ({'batch_tokens': -1}, 'batch_tokens is -1'),
    ({'multiple_of': 0}, 'multiple_of is 0'),
    ({'start_step': -1}, 'start_step is -1'),
    ({'seed': -1}, 'seed is -1'),
  ],
)
def test_bad_arguments_raise_at_the_call(options, message):
  with pytest.raises(ValueError, match=message):
    stream(**options)


def test_sources_are_the_first_of_every_task_and_cut_as_in_training():
  lengths = {'inputs': 24, 'targets': 16}
  parts = [batches.sources(t, SPLIT, lengths, 3) for t in (EN_DE, SYNOPSIS)]
  both = batches.sources('debian', SPLIT, lengths, 6)
  assert both == parts[0] + parts[1]
  assert all(ids[-1] == 1 and len(ids) <= 24 for ids in both)
  assert any(len(ids) == 24 for ids in both)
  assert len(batches.sources('debian', SPLIT, lengths)) == 3000
  # An odd number is shared out to the last one.
  assert len(batches.sources('debian', SPLIT, lengths, 7)) == 7
  with pytest.raises(ValueError, match='would take 1501 from a task of 1500'):
    batches.sources(EN_DE, SPLIT, lengths, 1501)


def test_bad_arguments_of_examples():
  with pytest.raises(ValueError, match="no split 'dev'"):
    task_texts.examples(EN_DE, 'dev')
  with pytest.raises(ValueError, match='num_examples is 1501.*has 1500'):
    task_texts.examples(EN_DE, 'test', 1501)
  with pytest.raises(ValueError, match='one by one: debian_en_de'):
    task_texts.examples('debian', 'test')
