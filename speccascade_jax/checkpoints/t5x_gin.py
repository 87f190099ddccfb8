"""What the config.gin of a run of T5X says that its arrays do not."""

from __future__ import annotations

from collections.abc import Mapping
import tokenize
from typing import Any

from gin import config_parser
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import hub

# Class and argument that give the functions of the feed-forward blocks: in
# T5X's own networks, and in Flaxformer's.
_FUNCTIONS = {
  ('T5Config', 'mlp_activations'),
  ('MlpBlock', 'activations'),
}
# flax calls it by both names.
_SAME = {'swish': 'silu'}


class _Macro(str):
  """The name of a macro, where a value is not written out."""


class _Unread(config_parser.ParserDelegate):
  """Leaves references and macros as they are, so that nothing is built."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    return f'@{scoped_configurable_name}{"()" if evaluate else ""}'

  def macro(self, macro_name):
    return _Macro(macro_name)


def activations(file: hub.AnyPath) -> tuple[str, ...] | None:
  """The functions of all feed-forward blocks; None if the file is silent.

  Raises:
    CheckpointError: if it is no gin file, or the functions cannot be read from
      it or are not the same in all blocks.
  """
  macros: dict[str, Any] = {}
  values: list[Any] = []
  text = file.read_bytes().decode('utf-8', errors='replace')
  try:
    for statement in config_parser.ConfigParser(text, _Unread()):
      if not isinstance(statement, config_parser.BindingStatement):
        continue
      if not statement.arg_name:
        macros[statement.selector] = statement.value
      name = statement.selector.rpartition('.')[2]
      if (name, statement.arg_name) in _FUNCTIONS:
        values.append(statement.value)
  except (SyntaxError, ValueError, tokenize.TokenError) as error:
    raise errors.CheckpointError(
      f'{file}, which says how the checkpoint beside it was trained, cannot be '
      f'read as gin: {error}'
    ) from error
  found = {_names(file, value, macros) for value in values}
  if len(found) > 1:
    raise errors.CheckpointError(
      f'{file}: the functions of the feed-forward blocks are '
      f'{" and ".join(map(str, sorted(found)))}; only models with the same in '
      'all blocks are read.'
    )
  return next(iter(found), None)


def _names(
  file: hub.AnyPath, value: Any, macros: Mapping[str, Any]
) -> tuple[str, ...]:
  named = f'%{value}' if isinstance(value, _Macro) else value
  if isinstance(value, _Macro):
    value = macros.get(value)
  if not (
    isinstance(value, list | tuple)
    and all(isinstance(name, str) for name in value)
  ):
    raise errors.CheckpointError(
      f'{file}: the functions of the feed-forward blocks are {named!r:.80}, '
      "which is not read; expected names such as ('gelu', 'linear')."
    )
  return tuple(_SAME.get(name) or name for name in value)
