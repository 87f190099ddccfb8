"""pass@1: programs that pass, those that fail, and those that pretend to."""

import dataclasses
import re

import pytest
import seqio

from speccascade_jax.data import programs
from speccascade_jax.data import sandbox
from tests.data import sandboxed

_ADD = 'def add(a, b):\n  return a + b'
_DOCUMENTED = '''def add(a, b):
  """Adds, and isn't slow.

  ```python
  >>> add(1, 2)
  3
  ```
  """
  return a + b'''
_WRONG = 'def add(a, b):\n  return a - b\n'
_TARGET = {
  'tests': ['assert add(1, 2) == 3', 'assert add(0, 0) == 0'],
  'setup': '',
  'challenge_tests': ['assert False'],
}

_PASS = {
  'bare': _ADD,
  'fenced': f'Here you go:\n```python\n{_ADD}\n```\nIt adds.\n```\nadd(1)\n```',
  'marked': f'\n{_ADD}\n[DONE]\nYou are an expert ...',
  'fenced in a line': f'Here it is: ```python\n{_ADD}\n```\nIt adds.',
  'fenced to the end of a line': f'```python\n{_ADD}```\nIt adds.',
  'closed, never opened': f'{_ADD}\n```\nIt adds.',
  'behind a word': f'Solution\n```\n{_ADD}',
  'a fence in a docstring': _DOCUMENTED,
  'and fenced': f"It's this:\n```python\n{_DOCUMENTED}\n```\nIt's well.",
  'a fence in a text': f'```\n{_ADD} + len("```") - 3  # ```\n```\nIt adds.',
  'code within a line': f'```add``` is\n```python\n{_ADD}\n```',
  'a heading': f'```python title="add.py"\n{_ADD}\n```',
  'not Python first': f'```bash\npip install add\n```\n```py\n{_ADD}\n```',
  'cut off': f'```python\n{_ADD}',
  'a space first': f' {_ADD}',
  'indented': '    def add(a, b):\n        return a + b\n',
  'it talks': f'print("a" * 1000)\n{_ADD}\nprint("done")',
  'it asks': f'try:\n  n = input()\nexcept EOFError:\n  pass\n{_ADD}',
  'for the command line': f'{_ADD}\nif __name__ == "__main__":\n  1 / 0',
  'it imports': (
    'from __future__ import annotations\n'
    'import collections, dataclasses, math, re\n'
    '@dataclasses.dataclass\nclass N:\n  n: dataclasses.KW_ONLY\n'
    'def add(a, b):\n  return sum(collections.Counter(a=a, b=b).values())'
  ),
  'it writes': f'open("a", "w").write("b")\n{_ADD}',
  'letters': 'def add(a, größe):\n  "加"\n  return a + größe',
}

_FAIL = {
  'wrong': _WRONG,
  'half right': 'def add(a, b):\n  return 3',
  'nothing': '',
  'no code': 'I cannot help with that.',
  'another name': 'def plus(a, b):\n  return a + b',
  'a syntax error': 'def add(a, b:\n',
  'it raises': f'{_ADD}\nraise ValueError',
  # Ends before the tests, as if all were well.
  'sys.exit': f'import sys\n{_WRONG}sys.exit(0)',
  'os._exit': f'import os\n{_WRONG}os._exit(0)',
  'SystemExit': f'{_WRONG}raise SystemExit(0)',
  'SystemExit in a test': 'def add(a, b):\n  raise SystemExit(0)',
  'os._exit in a test': 'import os\ndef add(a, b):\n  os._exit(0)',
  'at exit': f'import atexit, os\natexit.register(os._exit, 0)\n{_WRONG}',
  'another program': (
    'import os, sys\n'
    'os.execv(sys.executable, [sys.executable, "-c", "print(0)"])'
  ),
  # Says that it has passed.
  'prints': f'{_WRONG}print("passed", "OK", 0, True)\nraise SystemExit(0)',
  'hook': f'import sys\nsys.excepthook = lambda *e: print("passed")\n{_WRONG}',
  # Takes the tests away.
  'exec': (
    'import builtins\nbuiltins.exec = builtins.compile = lambda *a: None\n'
    f'{_WRONG}'
  ),
  'AssertionError': (
    f'import builtins\nclass E(BaseException): pass\n{_WRONG}'
    'builtins.AssertionError = AssertionError = E'
  ),
  '__debug__': f'__debug__ = False\n{_WRONG}',
  'os.write': f'import os\nos.write = os.read = print\n{_WRONG}',
  'a trace': (
    'import sys\ndef trace(frame, event, arg):\n'
    '  if frame.f_code.co_filename == "<test>": raise SystemExit(0)\n'
    f'sys.settrace(trace)\n{_WRONG}'
  ),
  'the caller': (
    'import sys\nframe = sys._getframe()\nwhile frame:\n'
    '  for name, value in list(frame.f_locals.items()):\n'
    '    if hasattr(value, "clear") and name == "request": value.clear()\n'
    '    if name in ("tests", "passed", "request"): print(value)\n'
    f'  frame = frame.f_back\n{_WRONG}'
  ),
  'catches all': (
    f'{_WRONG}while True:\n  try:\n    while True: pass\n'
    '  except BaseException: pass'
  ),
  'two of them': f'import os\nos.fork()\n{_WRONG}',
}


@pytest.fixture(scope='module')
def short_limits():
  """What a program of these tests may use; also that there is a sandbox."""
  sandboxed.needed()
  with pytest.MonkeyPatch.context() as patch:
    limits = dataclasses.replace(sandbox.Limits(), cpu_s=1, wall_s=5.0)
    patch.setattr(programs, 'LIMITS', limits)
    yield


@pytest.fixture(scope='module')
def verdicts(short_limits):
  """By name, of one batch in which good and bad programs take turns."""
  batch = list(_FAIL.items())
  for i, item in enumerate(_PASS.items()):
    batch.insert(2 * i, item)
  rows = programs.pass_at_1.statistics(
    [_TARGET] * len(batch), [text for _, text in batch], run_programs=True
  ).rows
  assert rows.shape == (len(batch), 1)
  return {name: row for (name, _), (row,) in zip(batch, rows)}


@pytest.mark.parametrize('name', _PASS)
def test_passes(name, verdicts):
  assert verdicts[name] == 100


@pytest.mark.parametrize('name', _FAIL)
def test_fails(name, verdicts):
  assert verdicts[name] == 0


def test_the_share_is_that_of_the_batch(verdicts):
  texts = [*_PASS.values(), *_FAIL.values()]
  found = programs.pass_at_1([_TARGET] * len(texts), texts, run_programs=True)
  assert found == {'pass_at_1': pytest.approx(100 * len(_PASS) / len(texts))}
  statistics = programs.pass_at_1.statistics(
    [_TARGET] * 3, [_ADD, _WRONG, _ADD], run_programs=True
  )
  assert statistics.rows.tolist() == [[100], [0], [100]]
  assert statistics.finish(statistics.rows[[0, 1]].sum(0), 2) == {
    'pass_at_1': 50
  }


def test_setup_comes_first_and_tests_see_it(short_limits):
  target = {
    'setup': 'import math\nclass Point:\n  x = 1',
    'tests': ['p = Point()', 'assert math.floor(f(p)) == 1', 'assert f(p) < 2'],
  }
  texts = ['def f(p: Point):\n  return p.x + math.sin(0.1)', 'def f(p): 0']
  found = programs.pass_at_1([target] * 2, texts, run_programs=True)
  assert found == {'pass_at_1': 50}


def test_a_verdict_is_the_same_every_time(short_limits):
  """Sets of texts come in one order, which hashing would otherwise draw."""
  target = {'setup': '', 'tests': ["assert list(set('abcdef'))[0] == first()"]}
  letters = [f'def first(): return {letter!r}' for letter in 'abcdef']
  found = programs.pass_at_1([target] * 6, letters, run_programs=True)
  assert found == {'pass_at_1': pytest.approx(100 / 6)}


def test_nothing_runs_unless_the_caller_says_so(monkeypatch):
  monkeypatch.setattr(sandbox, 'run', lambda *a, **k: pytest.fail('it runs'))
  programs._passes.cache_clear()
  with pytest.raises(ValueError, match=re.escape('run_programs=True')):
    programs.pass_at_1([_TARGET], [_ADD])
  with pytest.raises(ValueError, match=re.escape('run_programs=True')):
    programs.pass_at_1.statistics([_TARGET], [_ADD])
  with pytest.raises(ValueError, match="run_programs is 'yes'"):
    programs.allowed(programs.pass_at_1, 'yes')
  # What has no program fails without being run.
  assert programs.pass_at_1([_TARGET] * 2, ['', '```\n```']) == {'pass_at_1': 0}


def test_what_is_allowed_is_still_a_metric(verdicts):
  allowed = programs.allowed(programs.pass_at_1, True)
  assert allowed([_TARGET], [_ADD]) == {'pass_at_1': 100}
  assert allowed.statistics([_TARGET], [_ADD]).rows.tolist() == [[100]]
  assert programs.pass_at_1.runs_programs
  features = {'targets': seqio.Feature(seqio.ByteVocabulary())}
  source = seqio.FunctionDataSource(lambda split, shuffle_files: None, ['test'])
  for metric in (programs.pass_at_1, allowed):
    task = seqio.Task(
      'programs',
      source=source,
      output_features=features,
      preprocessors=[],
      metric_fns=[metric],
    )
    assert task.predict_metric_fns == [metric]


@pytest.mark.parametrize('tests', [None, [], '', 'assert f()', ['']])
def test_a_target_without_tests_is_named(tests):
  with pytest.raises(ValueError, match='Target 1 has tests='):
    programs.pass_at_1([_TARGET, {'tests': tests, 'setup': ''}], ['', ''])


def test_a_target_that_is_a_text_is_named():
  with pytest.raises(ValueError, match=r"Target 0 is 'assert f\(\)'"):
    programs.pass_at_1(['assert f()'], [''])


def test_unequal_or_no_texts():
  with pytest.raises(ValueError, match='1 targets and 2 predictions'):
    programs.pass_at_1([_TARGET], ['', ''])
  with pytest.raises(ValueError, match='0 targets'):
    programs.pass_at_1([], [])
