"""What a config of any command may name. Only `launch` knows gin.

A command registers what it alone needs itself.
"""

from __future__ import annotations

from speccascade_jax import deferral
from speccascade_jax import verification
from speccascade_jax.evaluation import methods
from speccascade_jax.launch import gin_names
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config

RULES = tuple(deferral.RULES)
VERIFICATIONS = (verification.verify_tokens, verification.verify_block)
CONSTRUCTORS = (
  methods.Method,
  t5_config.T5Config,
  gemma_config.GemmaConfig,
)


def register_all() -> None:
  """Registers rules and verifications as functions, the rest as `@name()`."""
  for rule in RULES:
    # One prefix for all of them, wherever they are written.
    gin_names.register_function(rule, module=deferral.__name__)
  for verification_fn in VERIFICATIONS:
    gin_names.register_function(verification_fn)
  for constructor in CONSTRUCTORS:
    gin_names.register(constructor)
