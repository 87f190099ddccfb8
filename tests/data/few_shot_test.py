"""Prompts against texts written by hand; which exemplars are drawn."""

import pytest

from speccascade_jax.data import few_shot

QUESTION = {'question': 'Who {knows}?', 'place': 'here'}


def example(i, answer='yes'):
  question = {'question': f'Is it {i}?', 'place': f'at {i}'}
  return few_shot.Example(question, answer, [answer])


BASE = few_shot.Continuation('At {place}. {question}\nA:', stops=('\n\n',))
CHAT = few_shot.Chat('At {place}. {question}', instruction='Be brief.')


def test_a_text_to_go_on_with():
  assert BASE.prompt([example(1), example(2, 'no\nno')], QUESTION) == (
    'At at 1. Is it 1?\nA: yes\n\n'
    'At at 2. Is it 2?\nA: no\nno\n\n'
    'At here. Who {knows}?\nA:'
  )
  assert BASE.completion(example(1)) == ' yes'


def test_an_instruction_stands_above():
  told = few_shot.Continuation('{question}', (), instruction='Say yes.')
  assert told.prompt([], QUESTION) == 'Say yes.\n\nWho {knows}?'


def test_a_conversation():
  assert CHAT.prompt([example(1)], QUESTION) == (
    '<start_of_turn>user\nBe brief.\n\nAt at 1. Is it 1?<end_of_turn>\n'
    '<start_of_turn>model\nyes<end_of_turn>\n'
    '<start_of_turn>user\nAt here. Who {knows}?<end_of_turn>\n'
    '<start_of_turn>model\n'
  )
  assert CHAT.stops == ('<end_of_turn>',)
  assert CHAT.completion(example(1)) == 'yes'


def test_without_exemplars_the_first_turn_is_the_question():
  assert CHAT.prompt([], QUESTION) == (
    '<start_of_turn>user\nBe brief.\n\nAt here. Who {knows}?<end_of_turn>\n'
    '<start_of_turn>model\n'
  )


def numbers(drawn):
  return [int(e.question['place'].removeprefix('at ')) for e in drawn]


def test_exemplars_are_a_function_of_size_shots_and_seed():
  one, again, other = (
    numbers(few_shot.draw(1000, example, 5, seed)) for seed in (0, 0, 1)
  )
  assert one == again != other
  assert len(set(one)) == 6  # One in reserve.
  fewer = numbers(few_shot.draw(1000, example, 2, 0))
  assert fewer == one[:3]
  # Not the first ones, as without a draw.
  assert sorted(one) != list(range(6))


def test_no_more_is_read_than_is_needed():
  read = []
  few_shot.draw(1000, lambda i: read.append(i) or example(i), 3, 0)
  assert len(read) == 4


def test_what_has_no_answer_or_asks_the_same_is_no_exemplar():
  def same(i):
    return example(i // 2, None if i % 4 == 0 else str(i))

  found = few_shot.draw(8, same, 3, 0)
  assert len(set(numbers(found))) == len(found) == 4
  assert all(e.answer is not None for e in found)


def test_as_many_as_are_shown_do_where_none_is_in_reserve():
  assert len(few_shot.draw(3, example, 3, 0)) == 3
  with pytest.raises(ValueError, match='4 exemplars .* of 3 .*, 3 have'):
    few_shot.draw(3, example, 4, 0)


def test_a_question_is_not_shown_its_own_answer():
  drawn = few_shot.draw(50, example, 3, 0)
  # Word for word, wherever it comes from.
  asked = dict(drawn[1].question)
  assert few_shot.shown(drawn, asked, 3) == [drawn[0], drawn[2], drawn[3]]
  assert few_shot.shown(drawn, QUESTION, 3) == drawn[:3]
  with pytest.raises(ValueError, match='apart from the question itself'):
    few_shot.shown(drawn[:3], asked, 3)
