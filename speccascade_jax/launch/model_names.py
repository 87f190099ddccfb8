"""Models by the names of their fragments: 't5_1_1_small' is gin/models' own.

A fragment binds the one config of a run. A pair has two models, and names what
they are rather than binding either::

  PAIR = {..., 'models': ('t5_1_1_small', 't5_1_1_large')}
"""

from __future__ import annotations

import dataclasses
from typing import Any

from gin import config_parser
from speccascade_jax.launch import gin_names
from speccascade_jax.launch import gin_setup
from speccascade_jax.models import families

# May differ between a published shape and a checkpoint of it: T5X pads the
# vocabulary, and the rest is how a model is used and not what it is.
_FREE = ('vocab_size', 'dropout_rate', 'dtype')


class _Literals(config_parser.ParserDelegate):
  """Fragments of models bind values alone; a reference is a mistake here."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    raise gin_names.ConfigError(f'@{scoped_configurable_name} is no value.')

  def macro(self, macro_name):
    raise gin_names.ConfigError(f'%{macro_name} is no value.')


def config(name: str) -> families.Config:
  """The shape that gin/models/NAME.gin binds, whatever else gin has read.

  Raises:
    ConfigError: if there is no such fragment, or it binds no model.
  """
  path = gin_setup.find(f'gin/models/{name}.gin', gin_setup.search_paths())
  values: dict[str, dict[str, Any]] = {}
  text = path.read_text(encoding='utf-8')
  for statement in config_parser.ConfigParser(text, _Literals()):
    if isinstance(statement, config_parser.BindingStatement):
      of = values.setdefault(statement.selector, {})
      of[statement.arg_name] = statement.value
  for family in families.FAMILIES.values():
    if set(values) == {family.config.__name__}:
      return family.config(**values[family.config.__name__])
  raise gin_names.ConfigError(
    f'{path} binds {", ".join(values) or "nothing"}; a model is named by a '
    'fragment that binds a T5Config or a GemmaConfig and nothing else.'
  )


def check(name: str, found: families.Config, path: str) -> None:
  """Refuses a checkpoint that is another model than the config says.

  Args:
    name: of the fragment.
    found: the checkpoint's shape.
    path: of the checkpoint.

  Raises:
    ValueError: naming what differs.
  """
  wanted = config(name)
  if type(found) is not type(wanted):
    raise ValueError(
      f'{path} is a {families.name_of(found)}, and the pair is to have {name}.'
    )
  differing = [
    f'{field.name} {getattr(found, field.name)} for '
    f'{getattr(wanted, field.name)}'
    for field in dataclasses.fields(wanted)
    if field.name not in _FREE
    and getattr(found, field.name) != getattr(wanted, field.name)
  ]
  if differing:
    raise ValueError(
      f'{path} is not the {name} that this config is for: it has '
      f"{', '.join(differing)}. Give that model's checkpoint, or say which "
      "models these are in the PAIR ('models')."
    )
