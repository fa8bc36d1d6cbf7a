"""Rows of data sets, whatever they are read from.

A malformed row is returned with the reason, so that the caller decides whether
to skip it or to stop.
"""

import dataclasses
import decimal
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rstar_jax import outside

_MESSAGE = 1000  # Characters: messages quote the text that they refuse.


class ProblemError(ValueError):
  """Problems cannot be read; one line with place, reason and remedy."""

  def __init__(self, message: str):
    super().__init__(outside.line(message, _MESSAGE))


class Number(str):
  """A number of a JSON file, kept as written (3.10 stays 3.10)."""


@dataclasses.dataclass(frozen=True)
class Row:
  """One object of a source, or the reason why it is malformed.

  Attributes:
    place: for messages: "file:line" in a file, "source[index]" in a table.
    index: position in the source, from 0; the id of a problem that has none is
      made from it.
    value: the parsed object.
    error: why the row is malformed, "" if it is not.
  """

  place: str
  index: int
  value: Any = None
  error: str = ""


def table_row(place: str, index: int, row: Mapping[Any, Any]) -> Row:
  """Returns a table's row, with its values as `plain` returns them."""
  try:
    values = {name: plain(value) for name, value in row.items()}
    return Row(place, index, outside.checked(values, strict=True))
  except outside.Bad as error:
    return Row(place, index, error=str(error))
  except (RecursionError, UnicodeDecodeError) as error:
    return Row(place, index, error=f"cannot be read ({error})")


def plain(value: Any) -> Any:
  """Converts a table's value to what a JSON file would give.

  Args:
    value: a Python object, bytes, or a numpy scalar or array.

  Returns:
    Text for bytes, a `Number` for a number, a list for a list or an array, a
    dict for a mapping (their items are converted too), and any other value
    unchanged. NaN, by which tables say that a value is missing, gives None.

  Raises:
    Bad: a number is infinite.
  """
  if isinstance(value, bytes):
    return value.decode(errors="replace")
  if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
    value = value.item()
  if isinstance(value, int | float | decimal.Decimal) and not isinstance(
    value, bool
  ):
    if value in (math.inf, -math.inf):
      raise outside.Bad(f"has {value}, which is no number")
    return Number(value) if value == value else None
  if isinstance(value, list | np.ndarray):
    return [plain(each) for each in value]
  if isinstance(value, Mapping):
    return {name: plain(each) for name, each in value.items()}
  return value


def as_json(value: Any) -> str:
  """Returns a row, or a value of one, as JSON, with numbers as written.

  A value that JSON lacks, such as a date, becomes a text.
  """
  if isinstance(value, Number):
    return str(value)
  if isinstance(value, list):
    return f"[{', '.join(map(as_json, value))}]"
  if isinstance(value, Mapping):
    items = (f"{as_json(str(k))}: {as_json(v)}" for k, v in value.items())
    return f"{{{', '.join(items)}}}"
  return json.dumps(value, ensure_ascii=False, default=str)
