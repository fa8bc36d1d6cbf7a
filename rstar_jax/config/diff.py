"""Two configs as JSON, compared."""

import dataclasses
import json
from typing import Any

from rstar_jax.config.schema import Config


def completed(found: Any, default: Any = None) -> Any:
  """Returns a config with the default of each field that it lacks.

  Args:
    found: as JSON, of a run that was begun before a field was there.
    default: what the field has; None is a whole config.
  """
  default = Config() if default is None else default
  if isinstance(found, dict) and dataclasses.is_dataclass(default):
    whole = json.loads(json.dumps(dataclasses.asdict(default)))
    return whole | {
      name: completed(value, getattr(default, name, ""))
      for name, value in found.items()
    }
  if isinstance(found, list) and isinstance(default, tuple) and default:
    # All are of one type, which has defaults of its own.
    return [completed(each, type(default[0])()) for each in found]
  return found


def differences(old: Any, new: Any, name: str = "config") -> list[str]:
  """Says where two configs differ, a line a field, in order."""
  if isinstance(old, dict) and isinstance(new, dict):
    return [
      each
      for key in sorted(old.keys() | new.keys())
      for each in differences(old.get(key), new.get(key), f"{name}.{key}")
    ]
  return [] if old == new else [f"{name} was {old!r} and is {new!r}"]
