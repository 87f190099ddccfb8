"""The paper's tasks through seqio, from files in TFDS's own format."""

import os
import re

import pytest
import seqio

from speccascade_jax.data import few_shot
from speccascade_jax.data import gemma_tasks
from speccascade_jax.data import metrics
from speccascade_jax.data import prepared
from speccascade_jax.data import task_texts
from speccascade_jax.data import vocabulary
from tests.data import sandboxed
from tests.data import tiny_sets

T5 = {
  'wmt14_en_de': (
    'translate English to German: This is sentence {i} of {split}.',
    'Dies ist Satz {i} von {split}.',
  ),
  'xsum': (
    'summarize: Article {i} of {split}.\nIt goes on.',
    'Summary {i} of {split}.',
  ),
  'cnn_dailymail': (
    'summarize: Article {i} of {split}. It goes on.',
    'First of {split} {i}.\nSecond of {split} {i}.',
  ),
}
# Family -> (split that is evaluated, what its questions look like).
FEW_SHOT = {
  'wmt14_en_de_5shot': ('validation', r'This is sentence \d+ of \w+\.'),
  'cnn_dailymail_1shot': ('validation', r'Article \d+ of \w+\.'),
  'gsm8k_8shot': ('test', r'What is half of .*\?'),
  'mbpp_3shot': ('test', r'Write a function that adds \d+ in \w+\.'),
  'squad_v2_1shot': ('validation', r'Where did .*\?'),
  'web_questions_1shot': ('test', r'who is \d+ of \w+\?'),
  'natural_questions_1shot': ('validation', r'who is \d+ of \w+'),
  'trivia_qa_1shot': ('validation', r'Who is \d+ of \w+\?'),
}
FORMATS = [
  f'gemma_{name}{suffix}' for name in FEW_SHOT for suffix in ('', '_it')
]


def family_of(task):
  return task.removeprefix('gemma_').removesuffix('_it')


@pytest.fixture(scope='module', autouse=True)
def sets(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sets')
  tiny_sets.write(folder)
  seqio.set_tfds_data_dir_override(str(folder))
  yield folder
  seqio.set_tfds_data_dir_override(None)


@pytest.fixture
def registered():
  """Adds tasks that go again."""
  names = []

  def add(name, family, layout, **options):
    gemma_tasks.add(name, gemma_tasks.FAMILIES[family], layout, **options)
    names.append(name)
    return name

  yield add
  for name in names:
    seqio.TaskRegistry.remove(name)


def by_number(task, split):
  """The examples of a split, which TFDS has shuffled, by what they ask."""
  found = task_texts.examples(task, split)
  pattern = FEW_SHOT[family_of(task)][1]
  return {re.findall(pattern, e['source'])[-1]: e for e in found}


@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
@pytest.mark.parametrize('task', T5)
def test_t5_reads_its_prefix_and_needs_no_vocabulary(task, split):
  set_name = {'wmt14_en_de': 'wmt14_translate/de-en'}.get(task, task)
  found = task_texts.examples(task, split)
  assert [e['example'] for e in found] == list(range(len(found)))
  made = sorted((e['source'], e['target']) for e in found)
  wanted = [
    tuple(text.format(i=i, split=split) for text in T5[task])
    for i in range(tiny_sets.SIZES[set_name][split])
  ]
  assert made == wanted
  assert task_texts.stop_sequences(task) == ()


def test_t5_tokenises_with_its_own_vocabulary(monkeypatch):
  task = seqio.get_mixture_or_task('wmt14_en_de')
  features = task.output_features
  assert {f.vocabulary.sentencepiece_model_file for f in features.values()} == {
    'gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model'
  }
  words = vocabulary.debian()
  local = task.replace(
    output_features={n: seqio.Feature(words) for n in features}
  )
  row = next(
    local.get_dataset(
      {'inputs': 8, 'targets': 6}, 'test', shuffle=False
    ).as_numpy_iterator()
  )
  assert len(row['inputs']) == 8 and len(row['targets']) == 6
  assert row['inputs'][-1] == row['targets'][-1] == words.eos_id


@pytest.mark.parametrize('task', FORMATS)
def test_exemplars_are_the_same_for_all_and_never_the_question(task):
  family = family_of(task)
  split, pattern = FEW_SHOT[family]
  shots = int(re.search(r'(\d)shot', task)[1])
  exemplar_split = 'prompt' if 'mbpp' in task else 'train'
  asked = [
    re.findall(pattern, e['source']) for e in task_texts.examples(task, split)
  ]
  assert all(len(questions) == shots + 1 for questions in asked)
  (exemplars,) = {tuple(questions[:-1]) for questions in asked}
  assert len(set(exemplars)) == shots
  assert all(exemplar_split in question for question in exemplars)
  assert all(split in questions[-1] for questions in asked)
  # The split that they come from: whoever is one is not shown itself.
  own = [
    re.findall(pattern, e['source'])
    for e in task_texts.examples(task, exemplar_split)
  ]
  assert {questions[-1] for questions in own} > set(exemplars)
  for *others, question in own:
    assert len(set(others)) == shots and question not in others
    assert len(set(others) - set(exemplars)) == (question in exemplars)


@pytest.mark.parametrize('task', FORMATS)
def test_the_right_answers_score_everything(task):
  split, _ = FEW_SHOT[family_of(task)]
  found = task_texts.examples(task, split)
  targets = [e['target'] for e in found]
  (metric_fn, *_) = seqio.TaskRegistry.get(task).metric_fns
  options = {}
  if getattr(metric_fn, 'runs_programs', False):
    # Where programs can be kept from the network, and where not.
    sandboxed.needed(network=True)
    options = {'run_programs': 'with_network'}
  right = metric_fn(targets, [e['completion'] for e in found], **options)
  wrong = metric_fn(targets, ['return nothing'] * len(found), **options)
  for name, value in right.items():
    if isinstance(value, float):
      assert value == pytest.approx(100), name
      assert wrong[name] < 60


def test_a_base_prompt_as_written_by_hand():
  found = by_number('gemma_squad_v2_1shot', 'validation')
  shown = found['Where did 2 of validation happen?']
  number = re.search(r'Where did (\d)', shown['source'])[1]
  answer = 'unanswerable' if int(number) % 2 else f'train {number}'
  assert shown['source'] == (
    'Answer with words of the context, or with "unanswerable" if the answer is '
    'not in it.\n\n'
    f'Context: It happened in train {number}, here.\n'
    f'Question: Where did {number} of train happen?\n'
    f'Answer: {answer}\n\n'
    'Context: It happened in validation 2, here.\n'
    'Question: Where did 2 of validation happen?\n'
    'Answer:'
  )
  assert shown['target'] == ['validation 2', 'here']
  assert found['Where did 3 of validation happen?']['target'] == []


def test_a_chat_prompt_as_written_by_hand(registered):
  task = registered(
    'gemma_gsm8k_one_it', 'gsm8k', gemma_tasks.FAMILIES['gsm8k'].chat, shots=1
  )
  (shown,) = (
    e for e in task_texts.examples(task, 'test') if 'half of 4,' in e['source']
  )
  number = int(re.search(r'half of (\d+)', shown['source'])[1]) // 2
  assert shown['source'] == (
    '<start_of_turn>user\n'
    'Solve each problem step by step, and end with "The answer is" and the '
    'number.\n\n'
    f'What is half of {2 * number}, and 1000, in train?<end_of_turn>\n'
    '<start_of_turn>model\n'
    f'Half of {2 * number} is {number}.\n'
    f'And 1000 is {1000 + number}.\n'
    f'The answer is {1000 + number:,}.<end_of_turn>\n'
    '<start_of_turn>user\n'
    'What is half of 4, and 1000, in test?<end_of_turn>\n'
    '<start_of_turn>model\n'
  )
  assert shown['target'] == '1,002'


def test_a_program_is_asked_for_in_the_words_of_its_authors(registered):
  task = registered(
    'gemma_mbpp_one', 'mbpp', gemma_tasks.FAMILIES['mbpp'].base, shots=0
  )
  (shown,) = (
    e for e in task_texts.examples(task, 'test') if 'adds 2 ' in e['source']
  )
  assert shown['source'] == (
    'You are an expert Python programmer, and here is your task: Write a '
    'function that adds 2 in test. Your code should pass these tests:\n\n'
    'assert add_2(1) == 3\nassert add_2(0) == 2\n[BEGIN]\n'
  )
  tests = ['assert add_2(1) == 3', 'assert add_2(0) == 2']
  assert shown['target'] == {'tests': tests, 'setup': ''}
  assert shown['completion'] == 'def add_2(x):\n  return x + 2\n[DONE]'


def test_what_an_alias_is():
  found = by_number('gemma_trivia_qa_1shot', 'validation')
  assert found['Who is 3 of validation?']['target'] == [
    'Person 3 of validation',
    'Number 3',
  ]


def test_other_exemplars_with_another_seed(registered):
  family = gemma_tasks.FAMILIES['gsm8k']
  tasks = [
    registered(f'seed_{i}', 'gsm8k', family.base, shots=3, seed=seed)
    for i, seed in enumerate((0, 0, 1))
  ]
  one, again, other = (task_texts.examples(t, 'test') for t in tasks)
  assert one == again != other
  assert [e['target'] for e in one] == [e['target'] for e in other]
  # With one seed, fewer are the first of more.
  pattern = FEW_SHOT['gsm8k_8shot'][1]
  eight = task_texts.examples('gemma_gsm8k_8shot', 'test')
  assert [re.findall(pattern, e['source'])[:3] for e in one] == [
    re.findall(pattern, e['source'])[:3] for e in eight
  ]


def test_too_many_exemplars_are_refused(registered):
  base = gemma_tasks.FAMILIES['mbpp'].base
  task = registered('many', 'mbpp', base, shots=11)
  with pytest.raises(ValueError, match='11 exemplars were asked for; of 10'):
    task_texts.examples(task, 'test')


def test_an_example_for_which_there_are_too_few_exemplars_is_refused(
  registered,
):
  """All that there are to draw: enough for others, not for themselves."""
  base = gemma_tasks.FAMILIES['mbpp'].base
  task = registered('all', 'mbpp', base, shots=10)
  assert len(task_texts.examples(task, 'test')) == 4
  # As it is, not wrapped by TensorFlow in the midst of the pipeline.
  with pytest.raises(ValueError, match='^10 exemplars .* there are 9 to be'):
    task_texts.examples(task, 'prompt')


def test_every_task_says_what_ends_an_answer():
  stops = {task: task_texts.stop_sequences(task) for task in FORMATS}
  for task, found in stops.items():
    if task.endswith('_it'):
      assert found == ('<end_of_turn>',)
    else:
      assert ('\n\n' in found) != ('mbpp' in task)
  assert stops['gemma_mbpp_3shot'] == ('[DONE]',)


@pytest.mark.parametrize('task', [t for t in FORMATS if not t.endswith('_it')])
def test_no_stop_is_in_an_answer_and_one_is_behind_it(task):
  split, _ = FEW_SHOT[family_of(task)]
  example = task_texts.examples(task, split)[0]
  stops = task_texts.stop_sequences(task)
  answer = example['completion']
  if 'mbpp' not in task:
    assert not any(stop in answer for stop in stops)
    # What a model would go on with: the next exemplar.
    answer += '\n\n' + example['source']
  ends = [answer.find(stop) for stop in stops if stop in answer]
  assert min(ends) == len(example['completion'].removesuffix('[DONE]'))


def test_questions_without_an_answer_are_left_out(monkeypatch):
  source = prepared.TfdsSource('web_questions', ('train', 'test'))

  def read(row):
    found = gemma_tasks.FAMILIES['web_questions'].read(row)
    hidden = '2 of' in found.question['question']
    return few_shot.Example(found.question, None, []) if hidden else found

  base = gemma_tasks.FAMILIES['web_questions'].base
  family = gemma_tasks.Family(
    source, read, base, gemma_tasks.FAMILIES['web_questions'].chat, []
  )
  gemma_tasks.add('hidden', family, base, shots=1)
  try:
    found = task_texts.examples('hidden', 'test')
  finally:
    seqio.TaskRegistry.remove('hidden')
  assert len(found) == 3
  assert not any('2 of' in e['source'] for e in found)


def test_summaries_are_scored_by_sentence_as_well():
  for task in ('cnn_dailymail', 'gemma_cnn_dailymail_1shot'):
    assert metrics.rouge_lsum in seqio.TaskRegistry.get(task).metric_fns


@pytest.mark.parametrize('task', [*T5, *FORMATS])
def test_a_missing_set_is_told_whatever_the_task(task, tmp_path, sets):
  seqio.set_tfds_data_dir_override(str(tmp_path))
  try:
    split = FEW_SHOT.get(family_of(task), ('validation',))[0]
    with pytest.raises(FileNotFoundError, match=f'not in {tmp_path}: '):
      task_texts.examples(task, split)
    with pytest.raises(FileNotFoundError, match='`(tfds build|curl) '):
      task_texts.check(task, split)
  finally:
    seqio.set_tfds_data_dir_override(str(sets))
  assert not os.listdir(tmp_path)
