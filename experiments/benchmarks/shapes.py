"""Shapes of published models by the names of their files in gin/models."""

from __future__ import annotations

from typing import Any

from speccascade_jax.launch import bindings
from speccascade_jax.launch import gin_setup
from speccascade_jax.models import families


def _model(*, config):
  """What gin builds."""


def named(name: str) -> families.Config:
  """The shape in gin/models/NAME.gin."""
  bindings.register_all()
  family = families.FAMILIES[name.split('_')[0]].config.__name__
  flags = gin_setup.Flags(
    files=(f'gin/models/{name}.gin',),
    bindings=(f'_model.config = @{family}()',),
  )
  built: dict[str, Any] = gin_setup.build(_model, flags)
  return built['config']
