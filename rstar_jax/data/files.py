"""Reads JSON, JSONL and CSV files row by row, with each row's line number.

Files may be compressed; see `compressed.py`. They are read in chunks: the
longest row, `outside.LONGEST`, bounds memory, whatever the file's size.
"""

import codecs
import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from etils import epath

from rstar_jax import outside
from rstar_jax.data import compressed
from rstar_jax.data.rows import Number, ProblemError, Row

_CHUNK = 1 << 20  # Bytes.
_SPACE = re.compile(r"[ \t\r\n]*")
# Other separators of columns than commas.
_OTHERWISE = re.compile(r"[;\t|]")
_IN_NUMBER = re.compile(r"[-+.eE\d]*")
# Delimiters of JSON values; an escape hides the quote after it.
_MARK = re.compile(r'\\.|["\[\]{},]', re.DOTALL)


def file_rows(path: epath.Path) -> Iterator[Row]:
  """Returns the rows of a CSV or JSONL file, or of a JSON file of one list.

  Raises:
    ProblemError: there is no such file; or, during iteration, nothing can be
      read past an error, e.g. in a truncated list.
  """
  if not path.exists():
    raise ProblemError(f"there is no file {path}")
  if path.is_dir():
    raise ProblemError(
      f"{path} is a folder, want a .jsonl, .json, .csv or .parquet file; a "
      f"folder of such is named 'hf:FOLDER/SPLIT'"
    )
  return _rows(path)


def _rows(path: epath.Path) -> Iterator[Row]:
  if compressed.bare(path.name).lower().endswith(".csv"):
    yield from _csv_rows(path)
  else:
    read = _list_rows if _first(path) == b"[" else _line_rows
    yield from read(path)


def _first(path: epath.Path) -> bytes:
  """Returns the first byte that is not white space, b"" if there is none."""
  with compressed.opened(path) as file:
    data = file.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
    while not data.strip() and (more := file.read(_CHUNK)):
      data = more
  return data.strip()[:1]


def _line_rows(path: epath.Path) -> Iterator[Row]:
  with compressed.opened(path) as file:
    yield from line_rows(file, str(path))


def line_rows(file: BinaryIO, name: str) -> Iterator[Row]:
  """Yields the rows of JSON lines; rows' places begin with the name."""
  index = 0
  for number, line in enumerate(outside.lines(file), 1):
    if number == 1:
      line = line.removeprefix(codecs.BOM_UTF8)
    if not line.strip():
      continue
    place = f"{name}:{number}"
    try:
      value = outside.parse(line, strict=True, number=Number)
      yield Row(place, index, value)
    except outside.Bad as error:
      yield Row(place, index, error=str(error))
    index += 1


def _csv_rows(path: epath.Path) -> Iterator[Row]:
  """Yields a row for each line after the first, which names the columns."""
  with compressed.opened(path) as file:
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    # Python's own limit is 131,072 characters.
    csv.field_size_limit(outside.LONGEST)
    # People write "a, b", and then quotes after the space.
    reader = csv.reader(_short_lines(text), skipinitialspace=True, strict=True)
    index = 0
    start = 1
    names: list[str] | None = None
    try:
      for values in reader:
        place, start = f"{path}:{start}", reader.line_num + 1
        if not values:
          continue  # A blank line.
        if names is None:
          names = values
          if len(names) == 1 and (found := _OTHERWISE.search(names[0])):
            raise ProblemError(
              f"{place}: columns are parted by {found[0]!r}, want commas"
            )
          if len(set(names)) < len(names) or "" in names:
            raise ProblemError(
              f"{place}: the first line must give each column a name of its "
              f"own, not {', '.join(map(repr, names))}"
            )
          continue
        if len(values) == len(names):
          yield Row(place, index, dict(zip(names, values, strict=True)))
        else:
          error = f"has {len(values)} values for {len(names)} columns"
          yield Row(place, index, error=error)
        index += 1
    except (csv.Error, UnicodeDecodeError) as error:
      reason = getattr(error, "reason", error)
      what = "UTF-8" if isinstance(error, UnicodeDecodeError) else "CSV"
      raise ProblemError(
        f"{path}:{start}: is not {what} ({reason}); nothing after it can be "
        "read"
      ) from None


def _short_lines(text: io.TextIOBase) -> Iterator[str]:
  """Yields lines; raises csv.Error at one that is too long."""
  while line := text.readline(outside.LONGEST):
    if len(line) == outside.LONGEST:
      raise csv.Error(f"a line of more than {outside.LONGEST} characters")
    yield line


def _list_rows(path: epath.Path) -> Iterator[Row]:
  """Yields the items of one JSON list, each with the line it starts on.

  Nothing can be read past a syntax error in a list, so it raises, whatever the
  config's `on_error` is.
  """
  with compressed.opened(path) as file:
    window = _Window(path, file)
    window.peek()
    window.at += len("[")
    for index in itertools.count():
      if window.peek() == "]":
        break
      place = f"{path}:{window.line()}"
      try:
        yield Row(place, index, window.value())
      except outside.Bad as error:
        window.skip()
        yield Row(place, index, error=str(error))
      mark = window.peek()
      if mark == ",":
        window.at += 1
      elif mark != "]":
        raise window.broken(
          f"{mark!r} follows an item, want a comma"
          if mark
          else "the list is cut short"
        )
    window.at += 1
    if window.peek():
      raise window.broken("text follows the list")


class _Window:
  """A sliding window over a file's text.

  Attributes:
    at: index in the window of the next character.
  """

  def __init__(self, path: epath.Path, file: BinaryIO):
    self.at = 0
    self._path, self._file = path, file
    self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
    self._text = ""
    # Line number of the file at index `_counted` of the window.
    self._line, self._counted = 1, 0

  def peek(self) -> str:
    """Skips white space and returns the next character, "" at the end."""
    while True:
      self.at = _SPACE.match(self._text, self.at).end()
      if self.at < len(self._text) or not self._grow():
        return self._text[self.at : self.at + 1]

  def value(self) -> Any:
    """Reads a JSON value and moves past it.

    Raises:
      Bad: it is JSON, but `outside.parse` would refuse it. The window may end
        before the value does; `skip` moves past it.
    """
    while True:
      try:
        value, end = _DECODER.raw_decode(self._text, self.at)
      except RecursionError:
        raise outside.Bad("is nested too deeply") from None
      except json.JSONDecodeError as error:
        if len(self._text) - self.at > outside.LONGEST:
          raise outside.Bad(
            f"is longer than {outside.LONGEST} characters"
          ) from None
        if self._grow():
          continue
        self.at = error.pos
        raise self.broken(f"is not JSON ({error.msg})") from None
      # A number may go on past the window: of 1.5 it may hold "1.".
      edge = _IN_NUMBER.match(self._text, end).end()
      if edge < len(self._text) or not self._grow():
        value = outside.checked(value, strict=True)
        self.at = end
        return value

  def skip(self) -> None:
    """Moves past a value by its brackets and quotes, without parsing it."""
    depth, quoted = 0, False
    while True:
      for match in _MARK.finditer(self._text, self.at):
        mark, self.at = match.group(), match.end()
        if mark == '"':
          quoted = not quoted
        elif quoted or mark[0] == "\\":
          continue
        elif mark in "[{":
          depth += 1
        elif depth:
          depth -= mark in "]}"
        else:
          self.at = match.start()
          return
      # A backslash at the end may belong to the next character.
      self.at = max(self.at, len(self._text) - self._text.endswith("\\"))
      if not self._grow():
        raise self.broken("the list is cut short")

  def line(self) -> int:
    """Returns the line number of the next character."""
    self._line += self._text.count("\n", self._counted, self.at)
    self._counted = self.at
    return self._line

  def broken(self, reason: str, lines: int = 0) -> ProblemError:
    """Returns an error at the current line plus `lines`."""
    return ProblemError(
      f"{self._path}:{self.line() + lines}: {reason}; nothing after it can be "
      "read"
    )

  def _grow(self) -> bool:
    """Extends the window by its own length or more; False at the file's end."""
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


_DECODER = outside.decoder(Number)
