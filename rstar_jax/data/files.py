"""Rows of JSON and JSONL files, each with its place for messages.

A row that cannot be read is a row with a reason, so that the caller decides
whether to skip it or to stop. Files are read piece by piece: one of several GB
takes no more memory than its longest row.
"""

import codecs
import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from etils import epath

_CHUNK = 1 << 20  # Bytes.
_SPACE = re.compile(r"[ \t\r\n]*")
_IN_NUMBER = re.compile(r"[-+.eE\d]*")


class ProblemError(ValueError):
  """Problems that cannot be read; one line: where, what, what to do."""


class Number(str):
  """A number of a JSON file, kept as it was written (3.10 stays 3.10)."""


@dataclasses.dataclass(frozen=True)
class Row:
  """One object of a source, or why it could not be read.

  Attributes:
    place: "file:line" or the like, for messages.
    index: place in the source, from 0; names a problem that has no id.
    value: what was read.
    error: reason, "" where there is none.
  """

  place: str
  index: int
  value: Any = None
  error: str = ""


def file_rows(path: epath.Path) -> Iterator[Row]:
  """Returns the rows of a JSONL file, or of a JSON file that is one list.

  Raises:
    ProblemError: if there is no such file, or, while the rows are taken, if a
      list breaks off.
  """
  if not path.exists():
    raise ProblemError(f"there is no file {path}")
  if path.is_dir():
    raise ProblemError(f"{path} is a folder, want a .jsonl or .json file")
  return _list_rows(path) if _first(path) == b"[" else _line_rows(path)


def plain(value: Any) -> Any:
  """Returns a value of a table as a JSON file would give it.

  Args:
    value: of Python, numpy or bytes.

  Returns:
    Text for bytes, a `Number` for a number, a list of such for a list or an
    array, and all else as it is.
  """
  if isinstance(value, bytes):
    return value.decode(errors="replace")
  if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
    value = value.item()
  if isinstance(value, int | float) and not isinstance(value, bool):
    return Number(value)
  if isinstance(value, list | np.ndarray):
    return [plain(each) for each in value]
  return value


def _first(path: epath.Path) -> bytes:
  """Returns the first byte that is no white space."""
  with path.open("rb") as file:
    data = file.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
    while not data.strip() and (more := file.read(_CHUNK)):
      data = more
  return data.strip()[:1]


def _line_rows(path: epath.Path) -> Iterator[Row]:
  index = 0
  with path.open("rb") as file:
    for number, line in enumerate(file, 1):
      if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)
      if not line.strip():
        continue
      place = f"{path}:{number}"
      try:
        yield Row(place, index, _DECODER.decode(line.decode()))
      except UnicodeDecodeError as error:
        yield Row(place, index, error=f"is not UTF-8 ({error.reason})")
      except ValueError as error:
        yield Row(place, index, error=f"is not JSON ({_reason(error)})")
      index += 1


def _list_rows(path: epath.Path) -> Iterator[Row]:
  """Yields the items of one JSON list, each with the line it starts on.

  A list that breaks off cannot be read past the break, so that is an error
  whatever `on_error` says.
  """
  with path.open("rb") as file:
    window = _Window(path, file)
    window.peek()
    window.at += len("[")
    for index in itertools.count():
      if window.peek() == "]":
        break
      place = f"{path}:{window.line()}"
      yield Row(place, index, window.value())
      if window.peek() == ",":
        window.at += 1
      elif window.peek() != "]":
        raise window.broken("the list is cut short")
    window.at += 1
    if window.peek():
      raise window.broken("text follows the list")


class _Window:
  """The part of a file's text that is being read; it moves on as needed.

  Attributes:
    at: where in the part the next character is.
  """

  def __init__(self, path: epath.Path, file: BinaryIO):
    self.at = 0
    self._path, self._file = path, file
    self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
    self._text = ""
    # The number of the line that the character before this place is on.
    self._line, self._counted = 1, 0

  def peek(self) -> str:
    """Skips white space and returns what is next, "" at the end."""
    while True:
      self.at = _SPACE.match(self._text, self.at).end()
      if self.at < len(self._text) or not self._grow():
        return self._text[self.at : self.at + 1]

  def value(self) -> Any:
    """Takes a JSON value."""
    while True:
      try:
        value, end = _DECODER.raw_decode(self._text, self.at)
      except ValueError as error:
        if self._grow():
          continue
        self.at = getattr(error, "pos", self.at)
        raise self.broken(f"is not JSON ({_reason(error)})") from None
      # A number at the edge may go on behind it: of 1.5 there is "1." here.
      edge = _IN_NUMBER.match(self._text, end).end()
      if edge < len(self._text) or not self._grow():
        self.at = end
        return value

  def line(self) -> int:
    """Returns the number of the line of what is next."""
    self._line += self._text.count("\n", self._counted, self.at)
    self._counted = self.at
    return self._line

  def broken(self, reason: str, lines: int = 0) -> ProblemError:
    """Returns an error so many lines further on."""
    return ProblemError(
      f"{self._path}:{self.line() + lines}: {reason}; nothing after it can be "
      "read"
    )

  def _grow(self) -> bool:
    """Reads on, twice as much for a long value; says if there was more."""
    data = self._file.read(max(_CHUNK, len(self._text) - self.at))
    try:
      new = self._decoder.decode(data, final=not data)
    except UnicodeDecodeError as error:
      before = self._text.count("\n", self.at)
      raise self.broken(
        f"is not UTF-8 ({error.reason})",
        before + error.object.count(b"\n", 0, error.start),
      ) from None
    self.line()
    self._text = self._text[self.at :] + new
    self.at = self._counted = 0
    return bool(data)


def _reason(error: ValueError) -> str:
  return getattr(error, "msg", str(error))


def _not_finite(name: str) -> Any:
  raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(
  parse_int=Number, parse_float=Number, parse_constant=_not_finite
)
