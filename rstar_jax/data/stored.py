"""Records of bytes on the disk, read by number.

A folder has a file of array_record, and an index, written last.
"""

import abc
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from rstar_jax.storage import json_io

_RECORDS, _INDEX = "rows.array_record", "index.json"
# One record per group, so that any record is read alone.
_OPTIONS = "group_size:1,zstd:3"


class Writer(abc.ABC):
  """Writes records; a context manager, which writes the index at exit."""

  def __init__(self, folder: pathlib.Path):
    """Opens a local folder; records that it has are overwritten."""
    # array_record comes with grain.
    from array_record.python import array_record_module

    folder.mkdir(parents=True, exist_ok=True)
    self._folder = folder
    self._file = array_record_module.ArrayRecordWriter(
      str(folder / _RECORDS), _OPTIONS
    )

  def write(self, record: np.ndarray) -> None:
    """Adds a record."""
    self._file.write(record.tobytes())

  @abc.abstractmethod
  def index(self) -> dict[str, Any]:
    """Writes buffered records; returns the index, JSON-able."""

  def __enter__(self):
    return self

  def __exit__(self, kind: Any, *_: Any) -> None:
    index = None if kind else self.index()
    self._file.close()
    if index is not None:
      json_io.write(self._folder / _INDEX, index)


class Reader:
  """Reads records.

  Attributes:
    index: the writer's index.
  """

  def __init__(self, folder: pathlib.Path):
    """Opens a local folder.

    Raises:
      ValueError: the folder has no index.
    """
    self.index = json_io.read(folder / _INDEX)
    if self.index is None:
      raise ValueError(f"{folder} has nothing to train on: delete it")
    self._path, self._source = str(folder / _RECORDS), None

  def read(self, numbers: Iterable[int]) -> list[np.ndarray]:
    """Returns records in the given order, at least one; each int32 [...]."""
    if self._source is None:
      # Imported late: grain imports jax, which host rooms do not load.
      import grain

      self._source = grain.sources.ArrayRecordDataSource(self._path)
    records = self._source.__getitems__(list(numbers))
    return [np.frombuffer(each, np.int32) for each in records]
