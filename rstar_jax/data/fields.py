"""Reads a row's fields: texts, numbers, levels."""

import re
from collections.abc import Mapping
from typing import Any

from rstar_jax import outside
from rstar_jax.data.rows import Number, ProblemError

# A text with one whole number, of at most 9 digits; "-1" is none.
_LEVEL = re.compile(r"(?!-)[^\d.]*(\d{1,9})(?:\.0*)?(?:[^\d.]\D*)?", re.ASCII)
# Most characters of a text: no context holds more.
LONGEST = 1 << 20


def value_of(row: Mapping, field: str) -> Any:
  """Returns the value of a field, or of a nested one: "a.b".

  Raises:
    ProblemError: there is no such field; the message names the row's fields.
  """
  if field in row:
    return row[field]
  value: Any = row
  for name in field.split("."):
    if not isinstance(value, Mapping) or name not in value:
      names = outside.line(", ".join(sorted(map(str, row))))
      raise ProblemError(
        f"has no field {field!r}, only {names}; question_field and "
        "answer_field name others"
      )
    value = value[name]
  return value


def text_of(row: Mapping, field: str, numbers: bool = True) -> str:
  """Returns a field's text, stripped of white space.

  Args:
    row: values by field.
    field: see `value_of`.
    numbers: whether a number is accepted, as its literal.

  Raises:
    ProblemError: there is no such field, or it is no text, empty, or longer
      than 2**20 characters.
  """
  value = value_of(row, field)
  if not isinstance(value, str) or (isinstance(value, Number) and not numbers):
    want = "text or a number" if numbers else "text"
    raise ProblemError(f"{field!r} is {kind_of(value)}, want {want}")
  if not value.strip():
    raise ProblemError(f"{field!r} is empty")
  if len(value) > LONGEST:
    raise ProblemError(f"{field!r} has {len(value)} characters")
  # `str` also turns a Number into plain text.
  return str(value).strip()


def level_of(value: Any) -> int | None:
  """Returns the number in a level such as 3, 3.0 or "Level 3".

  Returns:
    At least 0; None if there is no whole number, or more than one.
  """
  found = _LEVEL.fullmatch(value.strip()) if isinstance(value, str) else None
  return int(found[1]) if found else None


def kind_of(value: Any) -> str:
  """Describes a value, for messages."""
  if value is None:
    return "null"
  if isinstance(value, Number):
    return f"the number {value}"
  names = {
    bool: "a truth value",
    str: "text",
    list: "a list",
    dict: "an object",
  }
  return names.get(type(value), f"of type {type(value).__name__}")
