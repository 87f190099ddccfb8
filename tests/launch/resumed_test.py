"""The comparison of a run's stored configuration with a later start's."""

import pytest

from speccascade_jax.launch import gin_names
from speccascade_jax.launch import resumed

_CONFIG = """
import some.module

# Macros:
# =====================================================================
SEED = 3
WIDTHS = {'inputs': %SEED, 'targets': [1, 'a = b']}

# Parameters for scope/Loop:
# =====================================================================
scope/Loop.num_steps = 9
Loop.num_steps = 10
Loop.seed = %SEED
train.lengths = \\
    {'a': %WIDTHS,
     'b': @scope/thing()}
train.objective = @module.distillation
# train.score = <object>
"""


def _run(folder, config=_CONFIG, checkpoint=True):
  folder.joinpath(resumed.CONFIG_FILE).write_text(config)
  if checkpoint:
    (folder / 'checkpoints' / '500').mkdir(parents=True)
  return folder


def test_bindings_are_by_name_with_macros_filled_in():
  assert resumed.bindings(_CONFIG) == {
    'scope/Loop.num_steps': '9',
    'Loop.num_steps': '10',
    'Loop.seed': '3',
    'train.lengths': (
      "{'a': {'inputs': 3, 'targets': [1, 'a = b']}, 'b': @scope/thing()}"
    ),
    'train.objective': '@module.distillation',
  }


def test_the_same_config_and_a_free_change_pass(tmp_path):
  run_dir = _run(tmp_path)
  resumed.check(run_dir, _CONFIG)
  for line in ('Loop.num_steps = 7', 'Loop.keep = 9', 'train.run_dir = "b"'):
    resumed.check(run_dir, f'{_CONFIG}\n{line}\n')


@pytest.mark.parametrize(
  ('old', 'new', 'named'),
  [
    ('SEED = 3', 'SEED = 4', 'Loop.seed is 3 there and 4 here'),
    ('Loop.seed = %SEED', '', 'Loop.seed is 3 there and nothing here'),
    (
      '@module.dist',
      '@dist',
      'is @module.distillation there and @distillation',
    ),
    (
      '@scope/thing()',
      '@scope/thing',
      'thing.* there and .*@scope/thing} here',
    ),
    ('SEED = 3', 'SEED = 3\nb.new = 1', 'b.new is nothing there and 1 here'),
  ],
)
def test_what_differs_is_named(tmp_path, old, new, named):
  changed = _CONFIG.replace(old, new)
  assert changed != _CONFIG
  with pytest.raises(gin_names.ConfigError, match=named):
    resumed.check(_run(tmp_path), changed)


def test_a_run_without_a_checkpoint_is_begun_anew(tmp_path):
  resumed.check(tmp_path, _CONFIG)
  resumed.check(_run(tmp_path, checkpoint=False), '')
