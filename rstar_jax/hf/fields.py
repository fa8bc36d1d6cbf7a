"""Fields of a JSON object, read by type: wrong ones are named, never guessed.

An error names the file, the field, its value and what would be right.
"""

import reprlib
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

# The default of a field that a file must have.
NEEDED = object()

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class Fields:
  """Reads the fields of one object.

  Every reader takes the name of a field and what stands for it where the file
  is silent; that must fit, too. Null is a value of its own, and fits only where
  `null` is set, or where silence stands for None: then None is returned.

  Raises:
    ValueError: by every reader, about a field that does not fit.
  """

  def __init__(self, values: Mapping[str, Any], where: str, inside: str = ""):
    """Takes the fields.

    Args:
      values: by name.
      where: names the file in errors.
      inside: the fields that lead to these: "rope_scaling.", say.
    """
    self._values, self._where, self._inside = values, where, inside

  def __contains__(self, name: str) -> bool:
    return name in self._values

  def value(self, name: str, default: Any = NEEDED) -> Any:
    """Returns whatever the field holds."""
    value = self._values.get(name, default)
    if value is NEEDED:
      raise ValueError(f"{self._where} lacks the field {self._inside + name!r}")
    return value

  def part(self, name: str) -> "Fields":
    """Returns the fields of an object; absent or null is one of none."""
    value = self.value(name, None)
    if value is None:
      value = {}
    if not isinstance(value, Mapping):
      self.refuse(name, "an object")
    return Fields(value, self._where, f"{self._inside}{name}.")

  def whole(
    self, name: str, default: Any = NEEDED, *, least=1, null: bool = False
  ) -> int | None:
    """Returns a whole number of at least `least`, None being any."""
    value = self.value(name, default)
    if value is None and (null or default is None):
      return None
    if type(value) is not int or (least is not None and value < least):
      least = "" if least is None else f" of at least {least}"
      self.refuse(name, f"a whole number{least}", value)
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
    """Returns so many finite numbers, all above 0."""
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
    """Raises about a field.

    Args:
      name: of the field.
      right: what it must be.
      value: what it is; if not given, what the file holds.
    """
    if value is NEEDED:
      value = self._values.get(name)
    raise ValueError(
      f"{self._where}: {self._inside}{name}={_SHORT.repr(value)} must be "
      f"{right}"
    )


def _is_number(value: Any) -> bool:
  # An int beyond the floats cannot be made one, and nan compares to nothing.
  most = sys.float_info.max
  return type(value) in (int, float) and -most <= value <= most
