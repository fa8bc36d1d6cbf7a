"""Reads the fields of a JSON object by type.

An error names the file, the field, its value and the valid ones.
"""

import pathlib
import reprlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from rstar_jax import outside

# The default of a required field.
NEEDED = object()

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def read_json(file: pathlib.Path, **options: Any) -> dict[str, Any]:
  """Returns the JSON object in a file.

  Args:
    file: a file of a model.
    **options: see `outside.parse`.

  Raises:
    ValueError: the file is damaged; one line with its name and the reason.
  """
  try:
    value = outside.parse(file.read_bytes(), **options)
  except outside.Bad as error:
    raise ValueError(f"{file} {error}: copy it again") from None
  if not isinstance(value, dict):
    raise ValueError(f"{file} holds no JSON object: copy it again")
  return value


class Fields:
  """The fields of one object.

  Every reader takes a field's name, and a default for a missing one, which must
  also be valid. Null is valid only with `null`, or if the default is None; the
  reader then returns None.

  Raises:
    ValueError: from every reader, for an invalid field.
  """

  def __init__(self, values: Mapping[str, Any], where: str, inside: str = ""):
    """Takes the fields of an object.

    Args:
      values: values by name.
      where: name of the file, for error messages.
      inside: path to this object in the file, e.g. "rope_scaling.".
    """
    self._values, self._where, self._inside = values, where, inside

  def __contains__(self, name: str) -> bool:
    return name in self._values

  def __bool__(self) -> bool:
    return bool(self._values)

  def __iter__(self) -> Iterator[str]:
    return iter(self._values)

  def value(self, name: str, default: Any = NEEDED) -> Any:
    """Returns a field of any type."""
    value = self._values.get(name, default)
    if value is NEEDED:
      raise ValueError(f"{self._where} lacks the field {self._inside + name!r}")
    return value

  def part(self, name: str) -> "Fields":
    """Returns the fields of an object; empty if it is missing or null."""
    value = self.value(name, None)
    if value is None:
      value = {}
    if not isinstance(value, Mapping):
      self.refuse(name, "an object")
    return Fields(value, self._where, f"{self._inside}{name}.")

  def whole(
    self,
    name: str,
    default: Any = NEEDED,
    *,
    least: int | None = 1,
    most: int | None = None,
    null: bool = False,
  ) -> int | None:
    """Returns a whole number from `least` to `most`; None is no bound."""
    value = self.value(name, default)
    if value is None and (null or default is None):
      return None
    if type(value) is not int or (least is not None and value < least):
      least = "" if least is None else f" of at least {least}"
      self.refuse(name, f"a whole number{least}", value)
    if most is not None and value > most:
      self.refuse(name, f"at most {most}", value)
    return value

  def number(
    self, name: str, default: Any = NEEDED, *, above=0.0, null: bool = False
  ) -> float | None:
    """Returns a finite number greater than `above`."""
    value = self.value(name, default)
    if value is None and (null or default is None):
      return None
    if not (_is_number(value) and value > above):
      self.refuse(name, f"a number above {above:g}", value)
    return float(value)

  def numbers(self, name: str, count: int) -> tuple[float, ...]:
    """Returns `count` finite numbers above 0."""
    value = self.value(name)
    if not (
      isinstance(value, list)
      and len(value) == count
      and all(_is_number(each) and each > 0 for each in value)
    ):
      self.refuse(name, f"a list of {count} numbers above 0")
    return tuple(map(float, value))

  def flag(self, name: str, default: bool) -> bool:
    """Returns true or false."""
    value = self.value(name, default)
    if not isinstance(value, bool):
      self.refuse(name, "true or false")
    return value

  def refuse(self, name: str, right: str, value: Any = NEEDED) -> NoReturn:
    """Raises ValueError for a field.

    Args:
      name: the field.
      right: description of valid values.
      value: the value; by default the file's.
    """
    if value is NEEDED:
      value = self._values.get(name)
    raise ValueError(
      f"{self._where}: {self._inside}{name}={_SHORT.repr(value)} must be "
      f"{right}"
    )


def _is_number(value: Any) -> bool:
  # False for nan, and for ints beyond the range of floats.
  most = sys.float_info.max
  return type(value) in (int, float) and -most <= value <= most
