"""The data sets of the paper's tasks with a few made-up examples each.

They are written by TFDS's own builders, with their features and into their
files; only what would be downloaded is made up. MBPP is a file as its authors
have it.
"""

import json
from unittest import mock

import tensorflow_datasets as tfds

# Set -> split -> number of examples.
SIZES = {
  'wmt14_translate/de-en': {'train': 9, 'validation': 4, 'test': 3},
  'xsum': {'train': 6, 'validation': 4, 'test': 3},
  'cnn_dailymail': {'train': 6, 'validation': 4, 'test': 3},
  'gsm8k': {'train': 12, 'test': 4},
  'squad/v2.0': {'train': 6, 'validation': 4},
  'web_questions': {'train': 5, 'test': 4},
  'natural_questions_open': {'train': 5, 'validation': 4},
  'trivia_qa/unfiltered.nocontext': {'train': 5, 'validation': 4, 'test': 2},
}
MBPP_SIZES = {'prompt': 10, 'test': 4, 'validation': 3, 'train': 5}
_MBPP_FIRST = {'prompt': 1, 'test': 11, 'validation': 511, 'train': 601}


def write(folder, names=tuple(SIZES)):
  """Writes sets of TFDS, and MBPP, into `folder`, a `data_dir`."""
  for name in names:
    splits = SIZES[name]
    builder = tfds.builder(name, data_dir=str(folder))
    make = _MAKERS[name]

    def generators(self, manager, splits=splits, make=make):
      return {
        split: [(i, make(split, i)) for i in range(count)]
        for split, count in splits.items()
      }

    with mock.patch.object(type(builder), '_split_generators', generators):
      tfds.disable_progress_bar()
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
      )
  rows = [
    _mbpp(split, i, _MBPP_FIRST[split] + i)
    for split, count in MBPP_SIZES.items()
    for i in range(count)
  ]
  (folder / 'mbpp').mkdir()
  text = '\n'.join(map(json.dumps, rows)) + '\n'
  (folder / 'mbpp' / 'mbpp.jsonl').write_text(text)


def _wmt(split, i):
  return {
    'en': f'This is sentence {i} of {split}.',
    'de': f'Dies ist Satz {i} von {split}.',
  }


def _xsum(split, i):
  return {
    'document': f'Article {i} of {split}.\nIt goes on.',
    'summary': f'Summary {i} of {split}.',
  }


def _cnn(split, i):
  return {
    'article': f'Article {i} of {split}. It goes on.',
    'highlights': f'First of {split} {i}.\nSecond of {split} {i}.',
    'publisher': 'cnn',
    'id': f'{split}{i}',
  }


def _gsm8k(split, i):
  rest = f'Half of {2 * i} is <<{2 * i}/2={i}>>{i}.\nAnd 1000 is {i + 1000}.'
  return {
    'question': f'What is half of {2 * i}, and 1000, in {split}?',
    'answer': f'{rest}\n#### {i + 1000:,}',
    'annotation': rest,
    'short_answer': f'{i + 1000:,}',
  }


def _squad(split, i):
  answers = [] if i % 2 else [f'{split} {i}', f'{split} {i}', 'here']
  plausible = [f'{split} {i}'] if i % 2 else []
  return {
    'id': f'{split}{i}',
    'title': 'A title',
    'context': f'It happened in {split} {i}, here.',
    'question': f'Where did {i} of {split} happen?',
    'is_impossible': bool(i % 2),
    'answers': {'text': answers, 'answer_start': [15] * len(answers)},
    'plausible_answers': {
      'text': plausible,
      'answer_start': [15] * len(plausible),
    },
  }


def _web(split, i):
  return {
    'url': 'http://example.org',
    'question': f'who is {i} of {split}?',
    'answers': [f'Person {i} of {split}', f'Number {i}'],
  }


def _nq(split, i):
  return {
    'question': f'who is {i} of {split}',
    'answer': [f'Person {i} of {split}', f'Number {i}'],
  }


def _trivia(split, i):
  hidden = split == 'test'
  return {
    'question': f'Who is {i} of {split}?',
    'question_id': f'{split}{i}',
    'question_source': '',
    'entity_pages': [],
    'search_results': [],
    'answer': {
      'aliases': [] if hidden else [f'Number {i}', f'Person {i} of {split}'],
      'normalized_aliases': [],
      'matched_wiki_entity_name': '',
      'normalized_matched_wiki_entity_name': '',
      'normalized_value': '',
      'type': '',
      'value': '<unk>' if hidden else f'Person {i} of {split}',
    },
  }


def _mbpp(split, i, number):
  return {
    'text': f'Write a function that adds {i} in {split}.',
    'code': f'def add_{i}(x):\r\n  return x + {i}',
    'task_id': number,
    'test_setup_code': '',
    'test_list': [f'assert add_{i}(1) == {i + 1}', f'assert add_{i}(0) == {i}'],
    'challenge_test_list': [],
  }


_MAKERS = {
  'wmt14_translate/de-en': _wmt,
  'xsum': _xsum,
  'cnn_dailymail': _cnn,
  'gsm8k': _gsm8k,
  'squad/v2.0': _squad,
  'web_questions': _web,
  'natural_questions_open': _nq,
  'trivia_qa/unfiltered.nocontext': _trivia,
}
