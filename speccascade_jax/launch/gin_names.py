"""Names in gin: registering them, and telling what is wrong with one.

Two kinds of things have names. *Constructors* (`Method`, `T5Config`, ...) are
called by gin when a config says `@Method()`. *Functions* (rules, metrics, ...)
are handed on uncalled when it says `@chow`; whoever receives one gets the
plain function, with the parameters that were bound to it filled in by
`functools.partial`. So no gin is left inside anything that JAX traces, where
a binding would be read once and then never again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import difflib
import functools
import importlib
import inspect
import re
from typing import Any

import gin
from gin import config as gin_internals

_CAPTURE = object()
_MACRO = 'gin.macro'

# What is registered: gin's configurable and the signature, by full name.
_registered: dict[str, tuple[Callable[..., Any], inspect.Signature]] = {}
# Full names of the user's own functions, which were imported on sight.
_imported: set[str] = set()


class ConfigError(ValueError):
  """A mistake in a configuration; the message is all that a user needs."""


def register(
  constructor: Callable[..., Any],
  name: str | None = None,
  module: str | None = None,
) -> Callable[..., Any]:
  """Makes a class or function configurable; returns the gin version.

  Arguments that are `@function` references arrive as plain functions.
  """
  signature = inspect.signature(constructor)

  @functools.wraps(constructor, updated=())
  def construct(*args, **kwargs):
    args, kwargs = _plain(args), _plain(kwargs)
    try:
      signature.bind(*args, **kwargs)
    except TypeError as error:
      missing = [
        f'{construct.__name__}.{p.name}'
        for p in signature.parameters.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in kwargs
      ][len(args) :]
      if not missing:
        raise ConfigError(f'{construct.__name__}: {error}.') from error
      raise ConfigError(
        f'{", ".join(missing)} must be set: in a gin file, or with '
        f'--gin.{missing[0]}=VALUE.'
      ) from error
    return constructor(*args, **kwargs)

  return _register(construct, signature, name, module)


def register_function(
  function: Callable[..., Any],
  name: str | None = None,
  module: str | None = None,
) -> Callable[..., Any]:
  """Makes a function available as `@name`; returns the gin version."""
  signature = inspect.signature(function)
  parameters = signature.parameters

  @functools.wraps(function, updated=())
  def capture(*args, **bound):
    if args != (_CAPTURE,):
      raise ConfigError(
        f'@{name or function.__name__}() calls the function; write '
        f'@{name or function.__name__} to hand it on.'
      )
    # What is bound to its default, as in an operative config that is read
    # again, gives the very same function and hence the same run.
    bound = {k: v for k, v in bound.items() if v != parameters[k].default}
    return functools.partial(function, **bound) if bound else function

  capture.__dict__['_is_captured'] = True
  return _register(capture, signature, name, module)


@functools.cache
def register_all() -> None:
  """Registers everything of the package that a config may name."""
  # Here, because `bindings` imports this module for `register`.
  from speccascade_jax.launch import bindings

  bindings.register_all()


def _register(function, signature, name, module):
  name = name or function.__name__
  module = module or function.__module__
  # gin reads the signature off the function that it is given.
  function.__signature__ = signature
  full_name = f'{module}.{name}'
  if full_name not in _registered:
    with gin.unlock_config():  # In a process that configures twice.
      configurable = gin.external_configurable(
        function, name=name, module=module
      )
    _registered[full_name] = configurable, signature
  return _registered[full_name][0]


def _plain(value: Any) -> Any:
  """`value` with the gin versions of functions replaced by plain ones."""
  if getattr(value, '_is_captured', False):
    return value(_CAPTURE)
  if type(value) in (list, tuple):
    return type(value)(map(_plain, value))
  if type(value) is dict:
    return {k: _plain(v) for k, v in value.items()}
  return value


def import_missing(message: str) -> bool:
  """Imports and registers the function that `message` says is unknown.

  Returns:
    Whether there was one. So `@my_module.my_rule` needs no decorator and no
    import statement: `my_module` has to be importable, that is all.
  """
  found = re.search(
    r"No configurable matching (?:reference )?'@?([^']+)'", message
  )
  selector = found[1].removesuffix('()').split('/')[-1] if found else ''
  module_name, _, name = selector.rpartition('.')
  if not module_name:
    return False
  try:
    module = importlib.import_module(module_name)
  except ModuleNotFoundError as error:
    if not f'{module_name}.'.startswith(f'{error.name}.'):
      raise  # The module is there; something that it imports is not.
    return False
  function = getattr(module, name, None)
  if not callable(function):
    raise ConfigError(
      f'module {module_name!r} has no function {name!r}'
      + _did_you_mean(name, vars(module))
    )
  register_function(function, name, module_name)
  _imported.add(selector)
  return True


def with_modules(config: str) -> str:
  """`config` with the user's own functions named in full.

  gin shortens names as far as they are unique; `import_missing` needs all of
  them when the operative config is read again.
  """
  for full_name in _imported:
    name = full_name.rpartition('.')[2]
    config = re.sub(rf'(?m)^((?:\w+/)*){name}\.', rf'\1{full_name}.', config)
  return config


def explain(error: Exception) -> str:
  """One line about an error of gin's, with the closest match if there is."""
  first, *rest = str(error).splitlines() or [type(error).__name__]
  location = ''
  for line in rest:
    found = re.match(r'\s*In (?:file "(.*)",|bindings string) line (\d+)', line)
    if found:
      # The innermost file comes first, those that include it behind.
      location = f' ({found[1]}, line {found[2]})' if found[1] else ''
      break
  if isinstance(error, SyntaxError) and error.filename:
    location = f' ({error.filename}, line {error.lineno})'
  reworded = _reword(first)
  return reworded.rstrip('.') + location + ('' if reworded[-1] == '?' else '.')


def without_call_stack(error: Exception) -> str:
  """The message without gin's list of the calls that it passed through."""
  return re.sub(r"\n  In call to configurable '.*", '', str(error))


def _reword(message: str) -> str:
  if found := re.match(
    r"No configurable matching (?:reference )?'(@?)([^']+)'", message
  ):
    at, name = found.groups()
    selector = name.removesuffix('()').split('/')[-1]
    return f"nothing is called '{at}{name}'" + _where_else(selector, at)
  if found := re.match(
    r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", message
  ):
    return f'{found[1]} has no parameter {found[2]!r}' + _did_you_mean(
      found[2], _parameters(found[1])
    )
  return message


def _where_else(selector: str, prefix: str) -> str:
  module, _, name = selector.rpartition('.')
  modules = {full_name.rpartition('.')[0] for full_name in _registered}
  if module and not any(
    f'.{known}'.endswith(f'.{module}') for known in modules
  ):
    return f', and no module {module!r} can be imported (is it on PYTHONPATH?)'
  names = [full_name.rpartition('.')[2] for full_name in _registered]
  return _did_you_mean(name, names, prefix)


def check_macros(bound: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
  """Raises `ConfigError` for a `%NAME` that no statement defines."""
  defined = {scope for scope, selector in bound if selector == _MACRO}
  for (scope, selector), parameters in bound.items():
    for parameter, value in parameters.items():
      for reference in _references(value):
        name = '/'.join(reference.scopes)
        is_macro = reference.configurable.selector == _MACRO
        if is_macro and name not in defined:
          raise ConfigError(
            f'{binding_name(scope, selector, parameter)} reads %{name}, which '
            'is not defined' + (_did_you_mean(name, defined, '%') or '.')
          )


def check_required(bound: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
  """Raises `ConfigError` naming all values that are still required."""
  missing = sorted(
    binding_name(scope, selector, parameter)
    for (scope, selector), parameters in bound.items()
    for parameter, value in parameters.items()
    if any(repr(r) == '%gin.REQUIRED' for r in _references(value))
  )
  if missing:
    raise ConfigError(
      f'{", ".join(missing)} must be set: in the gin file that includes the '
      f'fragment, or with --gin.{missing[0]}=VALUE.'
    )


def binding_name(scope: str, selector: str, parameter: str) -> str:
  """How a user would have written a binding's left-hand side."""
  if selector == _MACRO:
    return scope
  if (
    sum(
      full.endswith('.' + selector.rpartition('.')[2]) for full in _registered
    )
    == 1
  ):
    selector = selector.rpartition('.')[2]
  return (
    f'{scope}/{selector}.{parameter}' if scope else f'{selector}.{parameter}'
  )


def similar_macro(idle: list[str], bound: Mapping[tuple[str, str], Any]) -> str:
  """A hint for the first idle macro that resembles another one."""
  macros = {scope for scope, selector in bound if selector == _MACRO}
  for name in idle:
    if name in macros and (hint := _did_you_mean(name, macros - {name})):
      return f' Instead of {name},{hint.removeprefix(";")}'
  return ''


def _references(value: Any):
  return gin_internals.iterate_references({('', ''): {'': value}})


def _parameters(selector: str) -> list[str]:
  for full_name, (_, signature) in _registered.items():
    if f'.{full_name}'.endswith(f'.{selector}'):
      return list(signature.parameters)
  return []


def _did_you_mean(name: str, candidates, prefix: str = '') -> str:
  by_lower = {c.lower(): c for c in candidates if not c.startswith('_')}
  name = name.rpartition('.')[2].lower()
  close = difflib.get_close_matches(name, by_lower, n=1, cutoff=0.6)
  return f'; did you mean {prefix}{by_lower[close[0]]}?' if close else ''
