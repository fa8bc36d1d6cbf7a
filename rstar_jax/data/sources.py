"""Rows of problem files and TFDS splits, each with its place for messages.

A row that cannot be read is a row with a reason, so that the caller decides
whether to skip it or to stop.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath
from tensorflow_datasets.core import read_only_builder, registered


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
  data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
  if data.lstrip().startswith(b"["):
    return _list_rows(path, data)
  return _line_rows(path, data)


def _line_rows(path: epath.Path, data: bytes) -> Iterator[Row]:
  lines = ((n, line) for n, line in enumerate(data.split(b"\n"), 1))
  filled = ((n, line) for n, line in lines if line.strip())
  for index, (number, line) in enumerate(filled):
    place = f"{path}:{number}"
    try:
      yield Row(place, index, _DECODER.decode(line.decode()))
    except UnicodeDecodeError as error:
      yield Row(place, index, error=f"is not UTF-8 ({error.reason})")
    except ValueError as error:
      yield Row(place, index, error=f"is not JSON ({_reason(error)})")


def _list_rows(path: epath.Path, data: bytes) -> Iterator[Row]:
  """Yields the items of one JSON list, each with the line it starts on.

  A list that breaks off cannot be read past the break, so that is an error
  whatever `on_error` says.
  """

  def broken(reason: str) -> ProblemError:
    return ProblemError(
      f"{path}:{line}: {reason}; nothing after it can be read"
    )

  def skip(position: int, what: str) -> int:
    while position < len(text) and text[position] in what:
      position += 1
    return position

  line, counted = 1, 0
  try:
    text = data.decode()
  except UnicodeDecodeError as error:
    line += data.count(b"\n", 0, error.start)
    raise broken(f"is not UTF-8 ({error.reason})") from None
  position = skip(text.index("[") + 1, " \t\r\n")
  for index in range(len(text)):
    line += text.count("\n", counted, position)
    counted = position
    if text[position : position + 1] == "]":
      if text[position + 1 :].strip():
        raise broken("text follows the list")
      return
    try:
      value, position = _DECODER.raw_decode(text, position)
    except ValueError as error:
      line += text.count("\n", counted, getattr(error, "pos", counted))
      raise broken(f"is not JSON ({_reason(error)})") from None
    yield Row(f"{path}:{line}", index, value)
    position = skip(position, " \t\r\n")
    if text[position : position + 1] == ",":
      position = skip(position + 1, " \t\r\n")
    elif text[position : position + 1] != "]":
      line += text.count("\n", counted, position)
      raise broken("the list is cut short")


def _reason(error: ValueError) -> str:
  return getattr(error, "msg", str(error))


def _not_finite(name: str) -> Any:
  raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(
  parse_int=Number, parse_float=Number, parse_constant=_not_finite
)


def tfds_rows(name: str, data_dir: epath.PathLike | None) -> Iterator[Row]:
  """Yields the examples of a prepared TFDS split, without TensorFlow."""
  data_set, _, split = name.rpartition("/")
  if not data_set or not split:
    raise ProblemError(f"source 'tfds:{name}' is not 'tfds:NAME/SPLIT'")
  where = {"data_dir": epath.Path(data_dir)} if data_dir else {}
  try:
    builder = read_only_builder.builder_from_files(data_set, **where)
  except registered.DatasetNotFoundError:
    raise ProblemError(
      f"no prepared TFDS data set {data_set!r} in "
      f"{data_dir or 'the TFDS data folder'}: prepare it, in the array_record "
      "format, with rstar_jax.data.problems.Problems or `tfds build`"
    ) from None
  if split not in builder.info.splits:
    raise ProblemError(
      f"TFDS data set {data_set!r} has no split {split!r}, only "
      f"{', '.join(builder.info.splits)}"
    )
  for index, example in enumerate(builder.as_data_source(split)):
    yield Row(
      f"tfds:{name}[{index}]",
      index,
      {k: _decoded(v) for k, v in example.items()},
    )


def _decoded(value: Any) -> Any:
  """Returns text for TFDS's bytes and, as in JSON, for its numbers."""
  if isinstance(value, bytes):
    return value.decode(errors="replace")
  if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
    value = value.item()
  if isinstance(value, int | float) and not isinstance(value, bool):
    return Number(value)
  return value
