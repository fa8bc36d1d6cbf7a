"""Adds up counts of files, problems and rows, however they are nested."""

from collections.abc import Mapping
from typing import Any


def add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
  """Adds numbers to those of the same name, in place.

  Args:
    total: the sums so far; {} at first.
    more: numbers, or further such mappings, by name; a name that `total` lacks
      counts as 0 there.
  """
  for name, value in more.items():
    if isinstance(value, Mapping):
      add(total.setdefault(name, {}), value)
    else:
      total[name] = total.get(name, 0) + value
