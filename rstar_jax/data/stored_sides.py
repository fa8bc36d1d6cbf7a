"""Items of reward models on the disk, which training reads by question.

A question is a record (`stored.py`) of int32: the number n of its items and G
of their sides, the length of each side, the bits of n weights and n targets,
and the token ids. Prefixes that sides share are repeated, and compress to
nothing.
"""

import pathlib
from typing import Any

import numpy as np

from rstar_jax.data import stored
from rstar_jax.data.sides import Encoded, Group


class Writer(stored.Writer):
  """Writes the items of questions; see `stored.Writer`."""

  def __init__(self, folder: pathlib.Path):
    """Opens a local folder; records that it has are overwritten."""
    super().__init__(folder)
    self._counts: list[int] = []
    self._above = self._longest = self._dropped = 0

  def put(self, sides: Encoded) -> None:
    """Adds questions."""
    for group in sides.groups:
      ids = [side for item in group.ids for side in item]
      self.write(
        np.concatenate(
          [
            np.array([len(group.ids), len(group.ids[0])], np.int32),
            np.array([len(each) for each in ids], np.int32),
            *(each.view(np.int32) for each in (group.weight, group.target)),
            *ids,
          ]
        )
      )
    self._counts += sides.counts.tolist()
    self._above += sides.above
    self._longest = max(self._longest, sides.longest)
    self._dropped += sides.dropped

  def index(self) -> dict[str, Any]:
    """See `stored.Writer`."""
    return {
      "counts": self._counts,
      "above": self._above,
      "longest": self._longest,
      "dropped": self._dropped,
    }


class StoredSides(stored.Reader):
  """Reads items that `Writer` wrote; see `sides.Sides`."""

  def __init__(self, folder: pathlib.Path):
    """Opens a local folder; see `stored.Reader`."""
    super().__init__(folder)
    self.counts = np.array(self.index["counts"], np.int64)
    self.above, self.longest = self.index["above"], self.index["longest"]
    self.dropped = self.index["dropped"]

  def group(self, question: int) -> Group:
    """See `sides.Sides`."""
    (record,) = self.read([question])
    count, sides = record[:2].tolist()
    sizes = [count * sides, count, count]
    lengths, weight, target, ids = np.split(record[2:], np.cumsum(sizes))
    each = np.split(ids, np.cumsum(lengths)[:-1])
    return Group(
      [tuple(each[i : i + sides]) for i in range(0, len(each), sides)],
      weight.view(np.float32),
      target.view(np.float32),
    )
