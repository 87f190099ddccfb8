"""What a config of any command may name. Only `launch` knows gin.

A command registers what it alone needs itself.
"""

from __future__ import annotations

from speccascade_jax import deferral
from speccascade_jax import verification
from speccascade_jax.evaluation import methods
from speccascade_jax.launch import gin_names
from speccascade_jax.models.t5 import config as t5_config

RULES = (
  deferral.chow,
  deferral.chow_log,
  deferral.diff,
  deferral.diff_log,
  deferral.opt,
  deferral.opt_log,
  deferral.token_v1,
  deferral.token_v2,
  deferral.token_v3,
  deferral.lossy,
  deferral.lossy_exact,
  deferral.verifier_only,
  deferral.drafter_only,
)
VERIFICATIONS = (verification.verify_tokens, verification.verify_block)
CONSTRUCTORS = (methods.Method, t5_config.T5Config)


def register_all() -> None:
  """Registers rules and verifications as functions, the rest as `@name()`."""
  for function in RULES + VERIFICATIONS:
    gin_names.register_function(function)
  for constructor in CONSTRUCTORS:
    gin_names.register(constructor)
