"""Which paths the device still holds, and how it comes to hold others.

The host's half of `cache.Pool`, in numpy: ids and counts, no keys and no
values. A slot holds one path, and may hold candidates that were sampled or
scored at its end. A path that is asked for is made of the longest beginning
that is there: kept tokens of a slot, then those of one of its candidates, then
a tail that has to be run. In a search the next leaf of a tree is mostly a child
of the last one, and else shares its ancestors.

This is a cache and nothing else: what is not held is run again. What is held
follows from the calls so far alone, never from timing.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

# Fewer shared tokens than this are not worth the copy of a path, and do not
# tie a path to a slot that another may come back to.
_WORTH = 8


@dataclasses.dataclass(frozen=True)
class Move:
  """How a slot comes to hold a path.

  Attributes:
    index: which of the paths that were asked for.
    slot: where it will be.
    source: the slot that it begins as: `slot` itself, another that is copied,
      or -1.
    kept: tokens of the source's path that it begins with.
    candidate: of which candidate the next ones are, None for none.
    committed: how many of that candidate's tokens.
  """

  index: int
  slot: int
  source: int
  kept: int
  candidate: tuple["Kept", int] | None
  committed: int

  @property
  def start(self) -> int:
    """Returns where the tail begins that is to be run."""
    return self.kept + self.committed


@dataclasses.dataclass(frozen=True, eq=False)
class Kept:
  """Candidates at the end of a slot's path.

  Attributes:
    source: the call that made them.
    row: which row of the call.
    tokens: int32 [C, S].
    usable: int32 [C], tokens of each whose keys and values there are.
  """

  source: Any
  row: int
  tokens: np.ndarray
  usable: np.ndarray

  def match(self, tail: np.ndarray) -> tuple[int, int]:
    """Returns the candidate that a tail begins with most of, and how much."""
    size = min(len(tail), self.tokens.shape[1])
    same = self.tokens[:, :size] == tail[:size]
    # The first difference, where there is one.
    common = np.where(same.all(1), size, same.argmin(1)) if size else 0
    common = np.minimum(common, self.usable)
    best = int(common.argmax())
    return best, int(common[best])


class Slots:
  """What the slots of one pool hold.

  Attributes:
    count: slots.
    banks: equal parts of them; a path that is copied stays in its bank.
    length: most tokens of a path.
  """

  def __init__(self, count: int, length: int, banks: int = 1):
    if count % banks:
      raise ValueError(f"{count} slots cannot be split into {banks} banks")
    self.count, self.banks, self.length = count, banks, length
    self._tokens = np.zeros((count, length), np.int32)
    self._lengths = np.zeros(count, np.int32)
    # Another kind of position: nothing of one is of use to the other.
    self._kinds = np.zeros(count, np.int8)
    # Whether the last token's hidden state is there.
    self._ready = np.zeros(count, bool)
    self._used = np.zeros(count, np.int64)
    self._versions = np.zeros(count, np.int64)
    self._kept: dict[int, Kept] = {}
    self._waves = 0

  def reset(self) -> None:
    """Forgets everything."""
    self._lengths[:] = 0
    self._ready[:] = False
    self._used[:] = 0
    self._waves = 0
    self._kept.clear()

  def place(
    self,
    paths: Sequence[np.ndarray],
    kinds: Sequence[int],
    *,
    hidden: bool,
    reuse: bool = True,
  ) -> list[Move]:
    """Gives slots to as many paths as there is room for.

    Moves are to be carried out in this order: all copies of slots, then all
    commits of candidates, then all tails.

    Args:
      paths: int32 arrays of 1 to `length` tokens.
      kinds: of positions, one for each path.
      hidden: whether the state at the last token is wanted, so that there must
        be a tail where it is not there.
      reuse: False gives each path an empty slot.

    Returns:
      Moves to different slots, at least one where there are paths. The others
      are to be asked for again when these have been used.
    """
    self._waves += 1
    found = [
      self._longest(path, kind) if reuse else (-1, 0, None, 0)
      for path, kind in zip(paths, kinds, strict=True)
    ]
    owners = self._owners(found)
    sources = set(owners)
    owning = {index: slot for slot, index in owners.items()}
    free = [
      [
        slot
        for slot in sorted(
          range(bank * self._size, (bank + 1) * self._size),
          key=lambda slot: (self._used[slot], slot),
        )
        if slot not in sources
      ]
      for bank in range(self.banks)
    ]
    moves = []
    for index, (source, kept, candidate, committed) in enumerate(found):
      if index in owning:
        slot = source
      else:
        # In the source's bank, else in the one with most room.
        bank = (
          source // self._size
          if source >= 0
          else max(range(self.banks), key=lambda b: (len(free[b]), -b))
        )
        if not free[bank]:
          continue
        slot = free[bank].pop(0)
      whole = kept + committed == len(paths[index])
      if (
        whole and hidden and not (committed == 0 and self._at_end(source, kept))
      ):
        if committed:
          committed -= 1
        else:
          kept -= 1
      if not committed:
        candidate = None
      moves.append(Move(index, slot, source, kept, candidate, committed))
    for move in moves:
      path = paths[move.index]
      self._hold(move.slot, path, kinds[move.index], hidden)
    return moves

  def version(self, slot: int) -> int:
    """Returns a number that changes with the slot's path."""
    return int(self._versions[slot])

  def keep(self, slot: int, version: int, kept: Kept) -> None:
    """Notes candidates at a slot's end, if it still holds the same path."""
    if self._versions[slot] == version:
      self._kept[slot] = kept

  def drop_kept(self) -> None:
    """Forgets all candidates, so that their memory can be freed."""
    self._kept.clear()

  @property
  def _size(self) -> int:
    return self.count // self.banks

  def _longest(
    self, path: np.ndarray, kind: int
  ) -> tuple[int, int, tuple[Kept, int] | None, int]:
    """Returns (slot, kept, candidate, committed) of the longest beginning."""
    size = len(path)
    same = self._tokens[:, :size] == path
    common = np.where(same.all(1), size, same.argmin(1))
    common = np.minimum(common, self._lengths)
    common[self._kinds != kind] = 0
    best, total = (-1, 0, None, 0), 0
    for slot in np.flatnonzero(common):
      kept, committed, candidate = int(common[slot]), 0, None
      if slot in self._kept and kept == self._lengths[slot]:
        column, committed = self._kept[slot].match(path[kept:])
        candidate = (self._kept[slot], column)
      if kept + committed > total:
        total = kept + committed
        best = (int(slot), kept, candidate, committed)
    # Some words that two prompts share do not make one the other's successor.
    source = best[0]
    if source >= 0 and total < min(_WORTH, int(self._lengths[source])):
      return (-1, 0, None, 0)
    return best

  def _owners(self, found) -> dict[int, int]:
    """Returns which path may take over each source: the one most alike."""
    owners: dict[int, int] = {}
    for index, (source, kept, _, committed) in enumerate(found):
      if source < 0:
        continue
      held = owners.get(source)
      if held is None or kept + committed > found[held][1] + found[held][3]:
        owners[source] = index
    return owners

  def _at_end(self, slot: int, kept: int) -> bool:
    return bool(self._ready[slot]) and kept == self._lengths[slot]

  def _hold(self, slot: int, path: np.ndarray, kind: int, hidden: bool) -> None:
    self._tokens[slot, : len(path)] = path
    self._lengths[slot] = len(path)
    self._kinds[slot] = kind
    self._ready[slot] = hidden
    self._used[slot] = self._waves
    self._versions[slot] += 1
    self._kept.pop(slot, None)
