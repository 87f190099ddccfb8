"""Few-shot prompts: texts in, texts out.

A prompt shows a few solved examples, the *exemplars*, and asks for the answer
to one more. Two layouts of it, for the two kinds of published models:

  Continuation    Q: <first>            a base model goes on with the text
                  A: <its answer>

                  Q: <asked>
                  A:

  Chat            <start_of_turn>user   an instruction-tuned Gemma takes turns
                  <first><end_of_turn>
                  <start_of_turn>model
                  <its answer><end_of_turn>
                  <start_of_turn>user
                  <asked><end_of_turn>
                  <start_of_turn>model

The pair puts its BOS in front of either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Example:
  """What a prompt, or a metric, needs of one example.

  Attributes:
    question: texts by the names that a layout has for them.
    answer: what an exemplar answers; None: it cannot be one.
    target: what the metrics compare with, of what JSON has.
  """

  question: Mapping[str, str]
  answer: str | None
  target: Any


class Layout(Protocol):
  """How exemplars and a question are written; `stops` end an answer."""

  @property
  def stops(self) -> tuple[str, ...]: ...

  def prompt(
    self, exemplars: Sequence[Example], question: Mapping[str, str]
  ) -> str: ...

  def completion(self, example: Example) -> str: ...


@dataclasses.dataclass(frozen=True)
class Continuation:
  """A text for a base model to go on with.

  Attributes:
    question: with the names of the question's texts in braces; ends with what
      asks for the answer, without a space, which is part of the answer's
      first token.
    stops: what a model writes that begins with the next exemplar.
    answer: likewise of an exemplar's answer.
    instruction: what stands above the first exemplar.
  """

  question: str
  stops: tuple[str, ...]
  answer: str = ' {answer}'
  instruction: str = ''

  def prompt(
    self, exemplars: Sequence[Example], question: Mapping[str, str]
  ) -> str:
    """The exemplars with their answers, and the question; a blank between."""
    parts = [self.instruction] if self.instruction else []
    parts += [
      self.question.format(**e.question) + self.completion(e) for e in exemplars
    ]
    return '\n\n'.join([*parts, self.question.format(**question)])

  def completion(self, example: Example) -> str:
    """What a model that knows the answer would write."""
    return self.answer.format(answer=example.answer or '')


@dataclasses.dataclass(frozen=True)
class Chat:
  """Turns of a conversation, in the words of the instruction-tuned Gemmas.

  Every exemplar is a turn of the user's and one of the model's. Gemma knows no
  system turn: the instruction heads the first turn of the user.

  Attributes:
    question: as of `Continuation`.
    answer: likewise.
    instruction: what stands above the first question.
  """

  question: str
  answer: str = '{answer}'
  instruction: str = ''

  @property
  def stops(self) -> tuple[str, ...]:
    """The end of the model's turn."""
    return ('<end_of_turn>',)

  def prompt(
    self, exemplars: Sequence[Example], question: Mapping[str, str]
  ) -> str:
    """The turns, up to the beginning of the model's last one."""
    turns = []
    for example in exemplars:
      turns.append(('user', self.question.format(**example.question)))
      turns.append(('model', self.completion(example)))
    turns.append(('user', self.question.format(**question)))
    if self.instruction:
      turns[0] = ('user', f'{self.instruction}\n\n{turns[0][1]}')
    said = (
      f'<start_of_turn>{who}\n{text}<end_of_turn>\n' for who, text in turns
    )
    return ''.join([*said, '<start_of_turn>model\n'])

  def completion(self, example: Example) -> str:
    """What a model that knows the answer would write."""
    return self.answer.format(answer=example.answer or '')


def draw(
  size: int,
  read: Callable[[int], Example],
  shots: int,
  seed: int,
) -> list[Example]:
  """Exemplars for a task: `shots`, and one in reserve for `shown`.

  They are the first of a random order of the split that have an answer and a
  question of their own. The same size, seed and shots give the same ones, and
  with one seed fewer are the beginning of more.

  Args:
    size: examples in the split that they are drawn from.
    read: the example of an index.
    shots: how many a prompt shows.
    seed: of the order.

  Raises:
    ValueError: if there are not so many.
  """
  found: list[Example] = []
  # A permutation rather than a choice, whose beginning depends on its length.
  for i in np.random.default_rng(seed).permutation(size):
    if len(found) > shots:
      break
    example = read(int(i))
    questions = [dict(other.question) for other in found]
    if example.answer is not None and dict(example.question) not in questions:
      found.append(example)
  if len(found) < shots:
    raise ValueError(
      f'{shots} exemplars were asked for; of {size} examples to draw them '
      f'from, {len(found)} have an answer and a question of their own: show '
      'fewer.'
    )
  return found


def shown(
  drawn: Sequence[Example], question: Mapping[str, str], shots: int
) -> list[Example]:
  """The first `shots` of those drawn that ask something else than `question`.

  So an example never shows its own answer, also where the split that the
  exemplars come from is itself evaluated, or one question is in two splits.

  Raises:
    ValueError: if too few are left.
  """
  others = [e for e in drawn if dict(e.question) != dict(question)]
  if len(others) < shots:
    raise ValueError(
      f'{shots} exemplars were asked for, but apart from the question itself '
      f'there are {len(others)} to be drawn: show fewer.'
    )
  return others[:shots]
