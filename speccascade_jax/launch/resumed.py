"""Whether a training run may be taken up with the configuration it is given.

A resumed run claims to be what it would have been without the interruption.
That holds if every binding is what it was, but for those that say when a run
ends, what it reports and where it puts the outcome.
"""

from __future__ import annotations

import pathlib
import re

from gin import config_parser
from speccascade_jax.launch import gin_names

CONFIG_FILE = 'operative_config.gin'

# May change between two starts: nothing that was trained so far hangs on them.
FREE = (
  *('Loop.num_steps', 'Loop.cooldown_steps', 'Loop.max_seconds'),
  *('Loop.report_every', 'Loop.validate_every', 'Loop.score_every'),
  *('Loop.checkpoint_every', 'Loop.keep'),
  *('train.run_dir', 'train.export_dir', 'train.export_dtype'),
  *('train.score_examples', 'train.data_dir'),
)


class _Text(str):
  """A value as it is written, without quotes."""

  __repr__ = str.__str__


class _AsWritten(config_parser.ParserDelegate):
  """Leaves references and macros as text, so that nothing is built."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    return _Text(f'@{scoped_configurable_name}{"()" if evaluate else ""}')

  def macro(self, macro_name):
    return _Text(f'%{macro_name}')


def check(run_dir: pathlib.Path, config: str) -> None:
  """Compares a run's stored configuration with this start's.

  Args:
    run_dir: of the run; one without a checkpoint may be begun anew at will.
    config: the operative config of this start.

  Raises:
    ConfigError: naming every binding that differs and is not in `FREE`.
  """
  path = run_dir / CONFIG_FILE
  checkpoints = (run_dir / 'checkpoints').glob('[0-9]*')
  if not path.is_file() or not any(checkpoints):
    return
  stored, asked = bindings(path.read_text(encoding='utf-8')), bindings(config)
  unset = 'nothing'
  differing = [
    f'{name} is {stored.get(name, unset)} there and '
    f'{asked.get(name, unset)} here'
    for name in sorted(set(stored) | set(asked))
    if name not in FREE and stored.get(name) != asked.get(name)
  ]
  if differing:
    raise gin_names.ConfigError(
      f'{path} holds another run: {"; ".join(differing)}. Use another run '
      'directory, or the configuration it was begun with; only '
      f'{", ".join(FREE)} may change.'
    )


def bindings(config: str) -> dict[str, str]:
  """Name -> value of an operative config, as text, with macros filled in."""
  statements = config_parser.ConfigParser(config, _AsWritten())
  macros: dict[str, str] = {}
  found: dict[str, str] = {}
  for statement in statements:
    if isinstance(statement, config_parser.BindingStatement):
      scoped = f'{statement.scope}/{statement.selector}'.lstrip('/')
      if statement.arg_name:
        found[f'{scoped}.{statement.arg_name}'] = repr(statement.value)
      else:
        macros[scoped] = repr(statement.value)

  def filled(value: str) -> str:
    return re.sub(
      r'%([\w./]+)',
      lambda name: filled(macros[name[1]]) if name[1] in macros else name[0],
      value,
    )

  return {name: filled(value) for name, value in found.items()}
