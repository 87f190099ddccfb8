"""What T5X's config.gin says of a step that its shapes do not."""

from __future__ import annotations

import pytest

from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import load
from tests.checkpoints import t5x_test

_SAID = {
  # As gin writes it, on one line or more.
  "network.T5Config.mlp_activations = ('silu', 'linear')": ('silu', 'linear'),
  "T5Config.mlp_activations = \\\n    ('swish',\n     'linear')": (
    *('silu', 'linear'),
  ),
  "F = ['relu', 'linear']\nnetwork.T5Config.mlp_activations = %F": (
    *('relu', 'linear'),
  ),
  "encoder/dense.MlpBlock.activations = ('silu', 'linear')\n"
  "decoder/dense.MlpBlock.activations = ('silu', 'linear')": ('silu', 'linear'),
  "x.text = '''\nT5Config.mlp_activations = (\"silu\", \"linear\")'''": (
    *('gelu', 'linear'),
  ),
  "# T5Config.mlp_activations = ('silu', 'linear')\nEPOCHS = 3": (
    *('gelu', 'linear'),
  ),
}


@pytest.fixture(scope='module', params=[t5x_test.write, t5x_test.write_orbax])
def step(request, tmp_path_factory):
  run = tmp_path_factory.mktemp('run')
  return request.param(run / 'checkpoint_7', t5x_test.tensors_of('hf_t5_v1_1'))


@pytest.mark.parametrize('text', _SAID)
def test_the_gin_file_above_a_step_says_its_functions(text, step):
  (step.parent / 'config.gin').write_text(text)
  assert load.config_of(step).mlp_activations == _SAID[text]
  if (step / 'state').exists():
    assert load.config_of(step / 'state').mlp_activations == _SAID[text]
  assert load.load(step).config == load.config_of(step)


def test_what_is_said_beside_a_step_is_part_of_its_digest(step):
  found = set()
  for name in ('silu', 'relu'):
    (step.parent / 'config.gin').write_text(
      f"T5Config.mlp_activations = ('{name}', 'linear')"
    )
    found.add(load.load(step).digest)
  assert len(found) == 2


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (
      "T5Config.mlp_activations = ('relu',)",
      r"\('relu',\), but those .* have 2",
    ),
    ("T5Config.mlp_activations = ('tanh', 'linear')", "got .*'tanh'"),
    ('T5Config.mlp_activations = %F', '%F.*is not read; expected'),
    ('T5Config.mlp_activations = (1, 2)', r'\(1, 2\).*is not read; expected'),
    ('T5Config.mlp_activations = (', 'config.gin.* cannot be read as gin'),
    ('not gin at all', 'config.gin.* cannot be read as gin'),
    ('T5Config.mlp_activations = @f()', '@f.*is not read; expected'),
    (
      "a/MlpBlock.activations = ('gelu', 'linear')\n"
      "b/MlpBlock.activations = ('silu', 'linear')",
      'gelu.* and .*silu.*same in all blocks',
    ),
  ],
)
def test_functions_that_cannot_be_the_checkpoints_are_refused(
  text, message, step
):
  (step.parent / 'config.gin').write_text(text)
  with pytest.raises(errors.CheckpointError, match=message):
    load.config_of(step)
