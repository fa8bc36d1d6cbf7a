"""Packed rows on the disk, which a training reads by their numbers.

A folder has a file of array_record, a row a record, and an index. Rows are
packed one after the other as `batches.pack` packs them, and numbered alike; a
row is written once it is full for good. So the batches of a training are those
of rows in memory, whatever the size of the data, and none of it is held.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from rstar_jax.data import batches
from rstar_jax.data.batches import Batch, Row
from rstar_jax.storage import records

_RECORDS, _INDEX = "rows.array_record", "index.json"
_NAMES = ("tokens", "positions", "parents", "ends")
# What mostly goes up by one: differences compress to nothing.
_RISING = slice(1, 4)
# A row a group, so that any is read for itself.
_OPTIONS = "group_size:1,zstd:3"


class Writer:
  """Writes packed rows; a context manager, whose end writes the index."""

  def __init__(self, folder: pathlib.Path, length: int):
    """Begins a folder on the disk.

    Args:
      folder: is made; what is there is overwritten.
      length: T; longer rows are dropped and counted.
    """
    # It comes with grain.
    from array_record.python import array_record_module

    folder.mkdir(parents=True, exist_ok=True)
    self._folder, self._length = folder, length
    self._file = array_record_module.ArrayRecordWriter(
      str(folder / _RECORDS), _OPTIONS
    )
    self._shelf = batches.Shelf(length)
    self._open: dict[int, np.ndarray] = {}
    # Numbers of the rows, in the order in which they are written.
    self._written: list[int] = []
    self._solutions = self._dropped = 0

  def put(self, group: Sequence[Row]) -> None:
    """Adds rows that may share prefixes, such as those of a question."""
    rows = [
      (ids, {"weights": mask})
      for ids, mask in group
      if len(ids) <= self._length
    ]
    self._solutions += len(group)
    self._dropped += len(group) - len(rows)
    for tree, added in batches.joined(rows, self._length, ("weights",)):
      size = len(tree.tokens)
      number, start, full = self._shelf.place(size)
      if full is not None:
        self._write(full)
      if number not in self._open:
        self._open[number] = np.zeros((5, self._length), np.int32)
      arrays = batches.laid([tree], [(0, start)], 1, self._length)
      row = self._open[number]
      for column, name in zip(row, _NAMES, strict=False):
        column += arrays[name][0]
      row[4, start : start + size] = added["weights"].view(np.int32)

  def _write(self, number: int) -> None:
    row = self._open.pop(number)
    row[_RISING] = np.diff(row[_RISING], axis=1, prepend=0)
    self._file.write(row.tobytes())
    self._written.append(number)

  def __enter__(self) -> "Writer":
    return self

  def __exit__(self, kind: Any, *_: Any) -> None:
    if kind is None:
      for number in sorted(self._open):
        self._write(number)
    self._file.close()
    if kind is None:
      index = {
        "length": self._length,
        "solutions": self._solutions,
        "dropped": self._dropped,
        "places": np.argsort(self._written).tolist(),
      }
      records.write_json(self._folder / _INDEX, index)


class StoredRows:
  """Rows that were written; see `batches.Rows`.

  Attributes:
    solutions: number of rows that were put.
    dropped: those of them that were too long.
  """

  def __init__(self, folder: pathlib.Path):
    """Opens a folder on the disk.

    Raises:
      ValueError: it has no index.
    """
    # Grain imports jax, which this module does not need otherwise.
    import grain

    index = records.read_json(folder / _INDEX)
    if index is None:
      raise ValueError(f"{folder} has no rows to train on: delete it")
    self.solutions, self.dropped = index["solutions"], index["dropped"]
    self._length = index["length"]
    self._places = np.array(index["places"], np.int64)
    self._source = None
    if len(self):
      path = str(folder / _RECORDS)
      self._source = grain.sources.ArrayRecordDataSource(path)

  def __len__(self) -> int:
    return len(self._places)

  def take(self, numbers: np.ndarray) -> Batch:
    """Returns the arrays of some rows, in this order: [len(numbers), T]."""
    assert self._source is not None
    found = self._source.__getitems__(self._places[numbers].tolist())
    rows = np.stack(
      [np.frombuffer(each, np.int32).reshape(5, -1) for each in found]
    )
    rows[:, _RISING] = np.cumsum(rows[:, _RISING], axis=2)
    arrays = dict(zip(_NAMES, rows.swapaxes(0, 1), strict=False))
    return arrays | {"weights": rows[:, 4].view(np.float32)}
