"""Imports go one way, and heavy libraries stay where they belong."""

import ast
import pathlib
import subprocess
import sys

import pytest

import speccascade_jax

_PACKAGE = pathlib.Path(speccascade_jax.__file__).parent

_CORE = {
  *('base', 'static', 'scalars', 'distributions', 'acceptance', 'deferral'),
  'verification',
}
_MODELS = {
  *('models', 'models.protocol', 'checkpoints', 'marks', 'vocabulary', 'zoo'),
}
_API = _CORE | _MODELS | {'decoding', 'loops', 'pair', 'loading'}

# Unit (a module or folder of the package) -> the units that it may import
# beside itself. A unit that is not listed here fails.
_MAY_IMPORT = {
  'base': set(),
  'static': set(),
  'scalars': {'base'},
  'distributions': {'base', 'static'},
  'acceptance': {'base', 'distributions'},
  'deferral': {'base', 'distributions', 'acceptance'},
  'verification': {'base', 'distributions', 'deferral'},
  'loops': {'base', 'scalars', 'deferral', 'verification'},
  'models.protocol': {'base'},
  'models': {'base', 'distributions', 'models.protocol'},
  'decoding': _CORE | {'models.protocol'},
  'marks': set(),
  'vocabulary': {'marks'},
  'transformers_tokenizer': {'marks', 'vocabulary'},
  'zoo': set(),
  'checkpoints': {
    *('base', 'models', 'models.protocol', 'marks', 'vocabulary'),
    'transformers_tokenizer',
  },
  'pair': _API,
  'loading': _API,
  # From shapes alone what loading and decoding would take.
  'footprint': _API,
  '__init__': _API,
  # Texts and counters, and what a method and its truncation are called; never
  # a logit or a model.
  'evaluation': {
    *('base', 'scalars', 'distributions', 'deferral', 'loops'),
    'verification',
  },
  # Result files alone.
  'reports': set(),
  'data': {'vocabulary'},
  'training': _CORE | _MODELS | {'data', 'decoding'},
  'benchmarks': _API,
  'launch': _API
  | {'data', 'evaluation', 'footprint', 'reports', 'training', 'benchmarks'},
  # Named in gin files of T5X alone; nothing imports it.
  'inside_t5x': _API,
  '__main__': {'launch'},
}

# Library -> the units that may import it.
_MAY_USE = {
  # Of T5X's runs, whose checkpoints leave it to gin what they are.
  'gin': {'launch', 'checkpoints'},
  't5x': {'inside_t5x'},
  'seqio': {'data', 'launch', 'inside_t5x'},
  'tensorflow': {'data', 'launch'},
  'tensorflow_datasets': {'data', 'launch'},
  'tensorflow_text': {'data', 'launch'},
  'clu': {'training', 'launch'},
  'flax': {'models', 'checkpoints', 'training', 'launch', 'inside_t5x'},
  'optax': {'training', 'launch'},
  'orbax': {'training', 'checkpoints', 'launch'},
  'sentencepiece': {
    *('vocabulary', 'transformers_tokenizer', 'data', 'checkpoints'),
  },
  'tokenizers': {'vocabulary', 'transformers_tokenizer'},
  'safetensors': {'checkpoints'},
  'huggingface_hub': {'checkpoints'},
  'gguf': {'checkpoints'},
  'tensorstore': {'checkpoints'},
  'matplotlib': {'reports'},
  'jinja2': {'reports'},
}


def _unit(dotted):
  """The unit that `speccascade_jax.<dotted>` belongs to."""
  parts = dotted.split('.')
  if parts[:2] == ['models', 'protocol']:
    return 'models.protocol'
  return parts[0]


def _imports(source):
  """Dotted names of everything that `source` imports, also inside functions."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'imports are absolute here'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def _violations(unit, source):
  found = []
  for name in _imports(source):
    top, _, rest = name.partition('.')
    if top == 'speccascade_jax':
      imported = _unit(rest)
      if imported != unit and imported not in _MAY_IMPORT[unit]:
        found.append(f'{unit} imports {imported}')
    elif unit not in _MAY_USE.get(top, {unit}):
      found.append(f'{unit} uses {top}')
  return found


def _modules():
  found = sorted(_PACKAGE.rglob('*.py'))
  return [path.relative_to(_PACKAGE) for path in found]


@pytest.mark.parametrize('path', _modules(), ids=str)
def test_imports_go_one_way(path):
  unit = _unit('.'.join(path.with_suffix('').parts))
  assert _violations(unit, (_PACKAGE / path).read_text()) == []


@pytest.mark.parametrize(
  ('unit', 'source'),
  [
    ('deferral', 'from speccascade_jax import verification'),
    ('deferral', 'import flax.linen as nn'),
    ('verification', 'import gin'),
    ('decoding', 'from speccascade_jax.models.t5 import network'),
    ('decoding', 'def f():\n  from speccascade_jax.models import tabular'),
    ('evaluation', 'from speccascade_jax.decoding import state'),
    ('reports', 'from speccascade_jax import pair'),
    ('models', 'import tensorflow as tf'),
    ('launch', 'from t5x import models'),
    ('checkpoints', 'def f():\n  import t5x'),
    ('launch', 'from speccascade_jax.inside_t5x import model'),
  ],
)
def test_a_forbidden_import_is_found(unit, source):
  assert len(_violations(unit, source)) == 1


def test_the_core_needs_neither_tensorflow_nor_gin():
  names = [
    '.'.join(('speccascade_jax', *path.with_suffix('').parts))
    for path in _modules()
    if path.parts[0] not in ('data', 'launch', 'inside_t5x')
    # The latter is imported once a config.gin is to be read.
    and path.stem not in ('__init__', 't5x_gin')
  ]
  code = (
    'import importlib, sys\n'
    f'for name in {names!r}: importlib.import_module(name)\n'
    "print(*{m.split('.')[0] for m in sys.modules})\n"
  )
  loaded = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  ).stdout.split()
  assert 'speccascade_jax' in loaded
  assert not {'tensorflow', 'seqio', 'gin', 'torch', 't5x'} & set(loaded)
