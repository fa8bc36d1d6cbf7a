"""Adds up counts of files, problems and rows, however they are nested."""

from collections.abc import Mapping
from typing import Any


def add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
  """Adds numbers to those of the same names, in place.

  Args:
    total: {} or what was added before.
    more: numbers by name, or further such mappings; a name that `total` lacks
      counts as 0 there.
  """
  for name, value in more.items():
    if isinstance(value, Mapping):
      add(total.setdefault(name, {}), value)
    else:
      total[name] = total.get(name, 0) + value
