"""Gin files that say what `speccascade tune` has chosen."""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any

from speccascade_jax.evaluation import methods
from speccascade_jax.launch import inputs


def for_generate(
  point: methods.RunPoint,
  pair: inputs.PairName,
  *,
  max_length: int,
  header: Sequence[str],
) -> str:
  """A leaf for `speccascade generate`.

  Args:
    point: what was chosen.
    pair: that it was chosen for.
    max_length: most output tokens.
    header: lines of a comment.
  """
  values: dict[str, Any] = {'pair': pair, 'model': point.model}
  if point.model == 'pair':
    values['method'] = point.method
    if point.truncation is None and point.alpha is not None:
      values['alpha'] = point.alpha
    values |= {k: v for k, v in point.options if v is not None}
  if point.gamma is not None:
    values['gamma'] = point.gamma
  values['temperature'] = point.temperature
  values |= {k: v for k, v in point.truncations().items() if v is not None}
  values['max_length'] = max_length
  lines = [f'generate.{name} = {value!r}' for name, value in values.items()]
  functions = {'rule': point.rule, 'verification': point.verification}
  for name, function in functions.items():
    if function is not None:
      reference, bound = _reference(function)
      lines += [f'generate.{name} = {reference}', *bound]
  return _file(header, lines)


def for_evaluate(
  point: methods.RunPoint,
  pair: inputs.PairName,
  *,
  run_dir: str,
  task: str,
  max_length: int,
  header: Sequence[str],
) -> str:
  """A leaf for `speccascade evaluate`.

  Args:
    point: see `for_generate`.
    pair: likewise.
    run_dir: for the results of `evaluate`.
    task: that the choice was made on.
    max_length: see `for_generate`.
    header: likewise.
  """
  lines = [
    "include 'gin/runs/evaluate.gin'",
    '',
    f'RUN_DIR = {run_dir!r}',
    f'TASK = {task!r}',
    f'PAIR = {pair!r}',
    '',
    'evaluate.method = @chosen/Method()',
    f'evaluate.temperature = {point.temperature!r}',
    f'evaluate.max_length = {max_length!r}',
  ]
  if point.gamma is not None:
    lines.append(f'evaluate.gamma = {point.gamma!r}')
  for name in methods.TRUNCATIONS:
    if getattr(point, name) is not None:
      lines.append(f'evaluate.{name} = {getattr(point, name)!r}')
  lines += ['', f'chosen/Method.label = {point.label!r}']
  lines.append(f'chosen/Method.model = {point.model!r}')
  if point.model == 'pair':
    lines.append(f'chosen/Method.method = {point.method!r}')
    if point.options:
      lines.append(f'chosen/Method.options = {dict(point.options)!r}')
  if point.truncation is not None:
    lines.append(f'chosen/Method.truncation = {point.truncation!r}')
  if point.alpha is not None:
    lines.append(f'chosen/Method.alphas = ({point.alpha!r},)')
  functions = {'rule': point.rule, 'verification': point.verification}
  for name, function in functions.items():
    if function is not None:
      reference, bound = _reference(function)
      lines += [f'chosen/Method.{name} = {reference}', *bound]
  return _file(header, lines)


def _reference(function: Any) -> tuple[str, list[str]]:
  """How gin calls a function, and the bindings that it was made with."""
  bound: dict[str, Any] = {}
  while isinstance(function, functools.partial):
    bound = function.keywords | bound
    function = function.func
  name = f'{function.__module__}.{function.__qualname__}'
  return f'@{name}', [f'{name}.{k} = {v!r}' for k, v in bound.items()]


def _file(header: Sequence[str], lines: Sequence[str]) -> str:
  comment = [f'# {line}'.rstrip() for line in header]
  return '\n'.join([*comment, *lines]) + '\n'
