"""Fields of the config.json of golden models."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from rstar_jax.hf import model_config
from rstar_jax.models.config import ModelConfig

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def fields_of(name: str = "qwen2", **changes: Any) -> dict[str, Any]:
  """Returns a model's fields, with changes."""
  return json.loads((GOLDEN / name / "config.json").read_text()) | changes


def read(fields: Mapping[str, Any]) -> ModelConfig:
  """Returns the config that fields of some/config.json are read as."""
  return model_config.from_fields(fields, "some/config.json")
