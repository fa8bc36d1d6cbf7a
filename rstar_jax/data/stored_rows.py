"""Packed rows on the disk, which training reads by number.

A row is a record (`stored.py`). Rows are packed and numbered as by
`batches.pack`, and each is written once it is closed. So batches equal those of
rows in memory, and no data need be held, whatever its size.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from rstar_jax.data import batches, stored
from rstar_jax.data.batches import Batch, Row

_NAMES = ("tokens", "positions", "parents", "ends")
# Arrays that mostly rise by one: their differences compress to nothing.
_RISING = slice(1, 4)


class Writer(stored.Writer):
  """Writes packed rows; see `stored.Writer`."""

  def __init__(self, folder: pathlib.Path, length: int):
    """Opens a local folder.

    Args:
      folder: created if it does not exist; records that it has are overwritten.
      length: T; longer rows are dropped and counted.
    """
    super().__init__(folder)
    self._length = length
    self._shelf = batches.Shelf(length)
    self._open: dict[int, np.ndarray] = {}
    # Row numbers in the order of writing.
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
    self.write(row)
    self._written.append(number)

  def index(self) -> dict[str, Any]:
    """See `stored.Writer`."""
    for number in sorted(self._open):
      self._write(number)
    return {
      "solutions": self._solutions,
      "dropped": self._dropped,
      "places": np.argsort(self._written).tolist(),
    }


class StoredRows(stored.Reader):
  """Reads rows that `Writer` wrote; see `batches.Rows`."""

  def __init__(self, folder: pathlib.Path):
    """Opens a local folder; see `stored.Reader`."""
    super().__init__(folder)
    self.solutions, self.dropped = (
      self.index["solutions"],
      self.index["dropped"],
    )
    self._places = np.array(self.index["places"], np.int64)

  def __len__(self) -> int:
    return len(self._places)

  def take(self, numbers: np.ndarray) -> Batch:
    """Returns the arrays of some rows, in this order: [len(numbers), T]."""
    records = self.read(self._places[numbers].tolist())
    rows = np.stack([each.reshape(5, -1) for each in records])
    rows[:, _RISING] = np.cumsum(rows[:, _RISING], axis=2)
    arrays = dict(zip(_NAMES, rows.swapaxes(0, 1), strict=False))
    return arrays | {"weights": rows[:, 4].view(np.float32)}
