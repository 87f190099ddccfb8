"""The paper's few-shot tasks for Gemma, for base and instruction-tuned models.

`gemma_<set>_<n>shot` is a text to go on with, the same name with `_it` is a
conversation; see `few_shot`. The exemplars of a task are drawn once, with
`SEED`, from the split in the last column: the same for every example, and never
the example itself. Where the sets differ from each other:

  name               read from               evaluated on       exemplars from
  wmt14_en_de        wmt14_translate/de-en   validation, test   train
  cnn_dailymail      cnn_dailymail           validation, test   train
  gsm8k              gsm8k                   test               train
  mbpp               its authors' mbpp.jsonl test, validation   prompt
  squad_v2           squad/v2.0              validation         train
  web_questions      web_questions           test               train
  natural_questions  natural_questions_open  validation         train
  trivia_qa          trivia_qa/unfiltered    validation         train
                       .nocontext

As is customary, SQuAD, NaturalQuestions and TriviaQA are evaluated on their
validation splits, since the answers of their test splits are not public (of
the second, there is none). TriviaQA is the open-domain one of Roberts et al.
(2020, https://arxiv.org/abs/2002.08910), without documents. MBPP (Austin et
al., 2021, https://arxiv.org/abs/2108.07732) has ten problems set aside for
prompts; TFDS does not have it. The words of the prompts are this project's:
the paper's are not known here.

An answer ends within the decoding loop, with the token that completes a stop
sequence, and is cut in front of it: a blank line or the beginning of the next
exemplar, [DONE] behind a program, the end of the model's turn in a
conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import re
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from speccascade_jax.data import answers
from speccascade_jax.data import few_shot
from speccascade_jax.data import metrics
from speccascade_jax.data import prepared
from speccascade_jax.data import preprocessors
from speccascade_jax.data import programs
from speccascade_jax.data import stopped
from speccascade_jax.data import t5_tasks
from speccascade_jax.data import vocabulary

SEED = 0  # Of the exemplars.


@dataclasses.dataclass(frozen=True)
class Family:
  """A data set, and how it is asked.

  Attributes:
    source: with a method `row(split, index)`.
    read: an example's arrays -> what prompts and metrics need of it.
    base: the prompt for base models.
    chat: the prompt for instruction-tuned models.
    metric_fns: what compares targets with raw outputs.
    exemplar_split: where exemplars come from.
  """

  source: prepared.TfdsSource | prepared.JsonLinesSource
  read: Callable[[Mapping[str, Any]], few_shot.Example]
  base: few_shot.Continuation
  chat: few_shot.Chat
  metric_fns: Sequence[Callable[..., Any]]
  exemplar_split: str = 'train'


def add(
  name: str,
  family: Family,
  layout: few_shot.Layout,
  *,
  shots: int,
  seed: int = SEED,
) -> None:
  """Registers a task, with other exemplars or in other words than these.

  Args:
    name: of the task.
    family: one of `FAMILIES`, or one's own.
    layout: `family.base`, `family.chat`, or one's own.
    shots: exemplars that a prompt shows.
    seed: of their draw.
  """

  # A cached method would be shared by all tasks of a family.
  @functools.cache
  def drawn(folder: str) -> list[few_shot.Example]:
    del folder  # Other data, other exemplars.
    split = family.exemplar_split
    return few_shot.draw(
      family.source.num_input_examples(split),
      lambda i: family.read(family.source.row(split, i)),
      shots,
      seed,
    )

  seqio.TaskRegistry.add(
    name,
    task_cls=stopped.StoppedTask,
    stop_sequences=layout.stops,
    source=family.source,
    preprocessors=[
      functools.partial(
        preprocessors.few_shot_prompt,
        read=family.read,
        drawn=lambda: drawn(prepared.data_dir()),
        layout=layout,
        shots=shots,
      ),
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={
      feature: seqio.Feature(vocabulary.gemma_2(), add_eos=True)
      for feature in ('inputs', 'targets')
    },
    postprocess_fn=preprocessors.target_of,
    metric_fns=family.metric_fns,
  )


def _text(value: Any) -> str:
  return value.decode() if isinstance(value, bytes) else str(value)


def _texts(values: np.ndarray) -> list[str]:
  """Those of an array, each once."""
  return list(dict.fromkeys(_text(value) for value in values.tolist()))


def _pair(source: str, target: str, row: Mapping[str, Any]) -> few_shot.Example:
  """One text made of another."""
  answer = _text(row[target])
  return few_shot.Example({source: _text(row[source])}, answer, answer)


def _gsm8k(row: Mapping[str, Any]) -> few_shot.Example:
  """The solution in words; the target is the number alone."""
  thoughts, _, number = _text(row['answer']).rpartition('####')
  # What GSM8K's authors had a calculator do: '48/2 = <<48/2=24>>24'.
  thoughts = re.sub('<<.*?>>', '', thoughts).strip()
  answer = f'{thoughts}\nThe answer is {number.strip()}.'
  return few_shot.Example(
    {'question': _text(row['question'])}, answer, number.strip()
  )


def _mbpp(row: Mapping[str, Any]) -> few_shot.Example:
  tests = _texts(row['test_list'])
  question = {
    'question': _text(row['text']).strip(),
    'tests': '\n'.join(tests),
  }
  code = _text(row['code']).replace('\r\n', '\n').strip()
  setup = _text(row['test_setup_code'])
  return few_shot.Example(question, code, {'tests': tests, 'setup': setup})


# What a prompt has a model write; one of `answers.NO_ANSWER`.
UNANSWERABLE = 'unanswerable'


def _squad(row: Mapping[str, Any]) -> few_shot.Example:
  """No answer is the empty list, and the word for it in an exemplar."""
  found = _texts(row['answers']['text'])
  question = {
    'context': _text(row['context']),
    'question': _text(row['question']),
  }
  return few_shot.Example(question, found[0] if found else UNANSWERABLE, found)


def _open_domain(
  row: Mapping[str, Any], aliases: Callable[[Mapping[str, Any]], list[str]]
) -> few_shot.Example:
  found = aliases(row)
  question = {'question': _text(row['question'])}
  return few_shot.Example(question, found[0] if found else None, found)


def _asked(
  source: prepared.TfdsSource,
  aliases: Callable[[Mapping[str, Any]], list[str]],
) -> Family:
  """Questions that are answered by heart."""
  return Family(
    source,
    functools.partial(_open_domain, aliases=aliases),
    few_shot.Continuation(
      'Question: {question}\nAnswer:', stops=('\n\n', '\nQuestion:')
    ),
    few_shot.Chat(
      '{question}',
      instruction='Answer each question with a short answer and nothing else.',
    ),
    [answers.open_domain],
  )


_MBPP_SPLITS = {
  'prompt': range(1, 11),
  'test': range(11, 511),
  'validation': range(511, 601),
  'train': range(601, 975),
}
_TEXT = tf.TensorSpec([], tf.string)
_SOLVE = (
  'You are an expert Python programmer, and here is your task: {question} '
  'Your code should pass these tests:\n\n{tests}'
)

FAMILIES = {
  'wmt14_en_de': Family(
    t5_tasks.WMT14,
    functools.partial(_pair, 'en', 'de'),
    few_shot.Continuation(
      'English: {en}\nGerman:', stops=('\n\n', '\nEnglish:')
    ),
    few_shot.Chat(
      '{en}',
      instruction='Translate each text from English to German. Write the '
      'translation and nothing else.',
    ),
    [metrics.bleu],
  ),
  'cnn_dailymail': Family(
    t5_tasks.CNN_DAILYMAIL,
    functools.partial(_pair, 'article', 'highlights'),
    few_shot.Continuation(
      'Article: {article}\nSummary:', stops=('\n\n', '\nArticle:')
    ),
    few_shot.Chat(
      '{article}',
      instruction='Summarize each article in a few short sentences, one a '
      'line.',
    ),
    [metrics.rouge, metrics.rouge_lsum],
  ),
  'gsm8k': Family(
    prepared.TfdsSource('gsm8k', ('train', 'test')),
    _gsm8k,
    few_shot.Continuation('Q: {question}\nA:', stops=('\n\n', '\nQ:')),
    few_shot.Chat(
      '{question}',
      instruction='Solve each problem step by step, and end with "The answer '
      'is" and the number.',
    ),
    [answers.gsm8k],
  ),
  'mbpp': Family(
    prepared.JsonLinesSource(
      'mbpp',
      'https://raw.githubusercontent.com/google-research/google-research/'
      'master/mbpp/mbpp.jsonl',
      _MBPP_SPLITS,
      number='task_id',
      features={
        'text': _TEXT,
        'code': _TEXT,
        'test_list': tf.TensorSpec([None], tf.string),
        'test_setup_code': _TEXT,
      },
    ),
    _mbpp,
    # The words of its authors.
    few_shot.Continuation(
      _SOLVE + '\n[BEGIN]\n', answer='{answer}\n[DONE]', stops=('[DONE]',)
    ),
    few_shot.Chat(_SOLVE, answer='```python\n{answer}\n```'),
    [programs.pass_at_1],
    exemplar_split='prompt',
  ),
  'squad_v2': Family(
    prepared.TfdsSource('squad/v2.0', ('train', 'validation')),
    _squad,
    few_shot.Continuation(
      'Context: {context}\nQuestion: {question}\nAnswer:',
      instruction='Answer with words of the context, or with "unanswerable" '
      'if the answer is not in it.',
      stops=('\n\n', '\nContext:', '\nQuestion:'),
    ),
    few_shot.Chat(
      'Context: {context}\nQuestion: {question}',
      instruction='Answer each question with words of its context and nothing '
      'else, or with "unanswerable" if the answer is not in it.',
    ),
    [answers.squad_v2],
  ),
  'web_questions': _asked(
    prepared.TfdsSource('web_questions', ('train', 'test')),
    lambda row: _texts(row['answers']),
  ),
  'natural_questions': _asked(
    prepared.TfdsSource('natural_questions_open', ('train', 'validation')),
    lambda row: _texts(row['answer']),
  ),
  'trivia_qa': _asked(
    prepared.TfdsSource(
      'trivia_qa/unfiltered.nocontext', ('train', 'validation')
    ),
    # The answer itself, then what else it is called.
    lambda row: list(
      dict.fromkeys(
        [_text(row['answer']['value']), *_texts(row['answer']['aliases'])]
      )
    ),
  ),
}

# As the paper is said to show; of CNN/DailyMail and SQuAD assumed.
SHOTS = {
  'wmt14_en_de': 5,
  'cnn_dailymail': 1,
  'gsm8k': 8,
  'mbpp': 3,
  'squad_v2': 1,
  'web_questions': 1,
  'natural_questions': 1,
  'trivia_qa': 1,
}

for _name, _shots in SHOTS.items():
  _family = FAMILIES[_name]
  for _suffix, _layout in (('', _family.base), ('_it', _family.chat)):
    add(f'gemma_{_name}_{_shots}shot{_suffix}', _family, _layout, shots=_shots)
