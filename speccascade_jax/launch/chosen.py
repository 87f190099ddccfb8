"""Gin files that say what `speccascade tune` has chosen."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
import dataclasses
import functools
import math
import os
import sys
from typing import Any

from speccascade_jax.evaluation import methods
from speccascade_jax.launch import inputs


@dataclasses.dataclass(frozen=True)
class Setting:
  """A choice, and what it was made for.

  Attributes:
    point: method and settings.
    pair: as the config has it.
    task: likewise.
    split: that it was confirmed on.
    max_length: most output tokens.
    stop: texts that end an output.
    input_length: that sources were padded to [tokens]; None is the longest.
    num_examples: that it was confirmed on, as drawn from the split; None is
      all of them.
    seed: of the draws.
    run_programs: whether the metrics may run what the models write.
    prefix: what the task puts before every text.
    imports: lines of gin that import the user's own modules.
    data_dir: where the task's data lie; None: where they are looked for.
  """

  point: methods.RunPoint
  pair: inputs.PairName
  task: str
  split: str
  max_length: int
  stop: tuple[str, ...] = ()
  input_length: int | None = None
  num_examples: int | None = None
  seed: int = 0
  run_programs: inputs.Permission = False
  prefix: str = ''
  imports: Sequence[str] = ()
  data_dir: str | None = None


def common_prefix(sources: Sequence[str]) -> str:
  """What a task puts before its sources, such as 'translate A to B: '.

  seqio does not say; it is read off the sources, where T5's tasks end it with
  a colon and a space. '' if they have no such thing in common, or if it is the
  beginning of a few-shot prompt, which asks for the answer behind the text.
  """
  common = os.path.commonprefix(list(sources))
  head, colon, _ = common.rpartition(': ')
  return '' if '\n' in head else head + colon


def check_can_be_said(points: Iterable[methods.RunPoint]) -> None:
  """Refuses, before the search, a rule that gin could not be told again.

  Raises:
    ValueError: naming the function or the value.
  """
  points = list(points)
  functions = {p.rule for p in points} | {p.verification for p in points}
  for function in functions - {None}:
    _check_reference(function)
  for point in points:
    values = {'alpha': point.alpha, **dict(point.options)}
    for name, value in values.items():
      _check_value(f'{name} of {point.label}', value)


def for_generate(setting: Setting, *, header: Sequence[str]) -> str:
  """A leaf for `speccascade generate`.

  Args:
    setting: what was chosen.
    header: lines of a comment.
  """
  point = setting.point
  values: dict[str, Any] = {'pair': setting.pair, 'model': point.model}
  if point.model == 'pair':
    values['method'] = point.method
    if point.truncation is None and point.alpha is not None:
      values['alpha'] = point.alpha
    values |= {k: v for k, v in point.options if v is not None}
    if point.confidence_temperatures is not None:
      values['confidence_temperatures'] = point.confidence_temperatures
  if point.gamma is not None:
    values['gamma'] = point.gamma
  values['temperature'] = point.temperature
  values |= {k: v for k, v in point.truncations().items() if v is not None}
  values['max_length'] = setting.max_length
  if setting.stop:
    values['stop'] = setting.stop
  values['seed'] = setting.seed
  if setting.prefix:
    values['prefix'] = setting.prefix
  lines = [f'generate.{name} = {_value(v)}' for name, v in values.items()]
  functions = {'rule': point.rule, 'verification': point.verification}
  for name, function in functions.items():
    if function is not None:
      reference, bound = _reference(function)
      lines += [f'generate.{name} = {reference}', *bound]
  return _file(header, lines)


def for_evaluate(
  setting: Setting, *, run_dir: str, header: Sequence[str]
) -> str:
  """A leaf for `speccascade evaluate`.

  Args:
    setting: what was chosen.
    run_dir: for the results of `evaluate`.
    header: lines of a comment.
  """
  point = setting.point
  lines = [
    *setting.imports,
    "include 'gin/runs/evaluate.gin'",
    '',
    f'RUN_DIR = {run_dir!r}',
    f'TASK = {setting.task!r}',
    f'PAIR = {setting.pair!r}',
    '',
    'evaluate.method = @chosen/Method()',
    f'evaluate.split = {setting.split!r}',
    f'evaluate.temperature = {_value(point.temperature)}',
    f'evaluate.max_length = {setting.max_length!r}',
    f'evaluate.num_examples = {setting.num_examples!r}',
    f'evaluate.seed = {setting.seed!r}',
  ]
  if setting.run_programs:
    lines.append(f'evaluate.run_programs = {setting.run_programs!r}')
  # Also where there are none: the task might have its own.
  lines.append(f'evaluate.stop = {setting.stop!r}')
  if setting.data_dir is not None:
    lines.append(f'evaluate.data_dir = {setting.data_dir!r}')
  if setting.input_length is not None:
    lines.append(f'evaluate.input_length = {setting.input_length!r}')
  if point.gamma is not None:
    lines.append(f'evaluate.gamma = {point.gamma!r}')
  for name in methods.TRUNCATIONS:
    if getattr(point, name) is not None:
      lines.append(f'evaluate.{name} = {_value(getattr(point, name))}')
  lines += ['', f'chosen/Method.label = {point.label!r}']
  lines.append(f'chosen/Method.model = {point.model!r}')
  if point.model == 'pair':
    lines.append(f'chosen/Method.method = {point.method!r}')
    if point.options:
      options = ', '.join(f'{k!r}: {_value(v)}' for k, v in point.options)
      lines.append(f'chosen/Method.options = {{{options}}}')
  if point.confidence_temperatures is not None:
    value = point.confidence_temperatures
    lines.append(f'chosen/Method.confidence_temperatures = {value!r}')
  if point.truncation is not None:
    lines.append(f'chosen/Method.truncation = {point.truncation!r}')
  if point.alpha is not None:
    lines.append(f'chosen/Method.alphas = ({_value(point.alpha)},)')
  functions = {'rule': point.rule, 'verification': point.verification}
  for name, function in functions.items():
    if function is not None:
      reference, bound = _reference(function)
      lines += [f'chosen/Method.{name} = {reference}', *bound]
  return _file(header, lines)


def _value(value: Any) -> str:
  """A value as gin reads it, which has no word for infinity."""
  if isinstance(value, float) and math.isinf(value):
    return '1e999' if value > 0 else '-1e999'
  return repr(value)


def _reference(function: Any) -> tuple[str, list[str]]:
  """How gin calls a function, and the bindings that it was made with."""
  bound: dict[str, Any] = {}
  whole = function
  while isinstance(function, functools.partial):
    if function.args:
      raise ValueError(
        f'{methods.name_of(whole)} has arguments without a name, which a gin '
        'file cannot give it: bind them by name.'
      )
    bound = function.keywords | bound
    function = function.func
  name = f'{function.__module__}.{function.__qualname__}'
  return f'@{name}', [f'{name}.{k} = {_value(v)}' for k, v in bound.items()]


def _check_reference(function: Any) -> None:
  """That gin finds this very function, and reads what is bound to it."""
  _reference(function)
  name = methods.name_of(function)
  while isinstance(function, functools.partial):
    for key, value in function.keywords.items():
      _check_value(f'{key} of {name}', value)
    function = function.func
  found: Any = sys.modules.get(function.__module__)
  for part in function.__qualname__.split('.'):
    found = getattr(found, part, None)
  if found is not function:
    raise ValueError(
      f'{name} is {function.__module__}.{function.__qualname__}, and that is '
      'not to be found there, so that a gin file cannot name it: define it '
      'with def at the top of its module.'
    )


def _check_value(name: str, value: Any) -> None:
  try:
    read = ast.literal_eval(_value(value))
  except (ValueError, SyntaxError):
    read = None
  # Not merely equal: True is 1, and 0.3 of NumPy's is 0.3.
  if type(read) is not type(value) or read != value:
    raise ValueError(
      f'{name} is {value!r}, which cannot be written in a gin file: use plain '
      'numbers, texts, and tuples, lists and dictionaries of them.'
    )


def _file(header: Sequence[str], lines: Sequence[str]) -> str:
  comment = [
    f'# {part}'.rstrip() for line in header for part in line.split('\n')
  ]
  return '\n'.join([*comment, *lines]) + '\n'
