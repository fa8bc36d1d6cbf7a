"""The host's record of a prefix cache, and its plan for new paths.

This is the host's half of `cache.Pool`, in numpy: ids and counts, without keys
and values. A slot has one path, and the cached candidates that were sampled or
scored after it. A new path takes its longest cached beginning: tokens of a
slot, then tokens of one of its candidates, then a tail that must be prefilled.
In a search the next leaf of a tree is mostly a child of the last one, and
otherwise shares its ancestors.

A miss costs time and changes no result. What is cached depends on the calls so
far alone, never on timing.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

# With fewer shared tokens than this a copy of the path does not pay, and the
# slot stays free for a path that continues it.
_WORTH = 8


@dataclasses.dataclass(frozen=True)
class Move:
  """How a slot gets a path.

  Attributes:
    index: the path's index in the request.
    slot: the slot that gets it.
    source: the slot whose path it begins with: `slot` itself, another one that
      is copied, or -1 for none.
    reused: tokens taken from the source's path.
    candidate: the cached candidate (and its column) that comes next, or None.
    appended: tokens taken from that candidate.
  """

  index: int
  slot: int
  source: int
  reused: int
  candidate: tuple["CachedCandidates", int] | None
  appended: int

  @property
  def start(self) -> int:
    """Returns the position of the first token that must be prefilled."""
    return self.reused + self.appended


@dataclasses.dataclass(frozen=True, eq=False)
class CachedCandidates:
  """Candidates after a slot's path, whose keys and values are on the device.

  Attributes:
    source: the keys and values that a call returned.
    row: the row of that call.
    tokens: int32 [C, S].
    usable: int32 [C], tokens of each candidate that are in `source`.
  """

  source: Any
  row: int
  tokens: np.ndarray
  usable: np.ndarray

  def match(self, tail: np.ndarray) -> tuple[int, int]:
    """Returns the candidate with the longest common prefix, and its length."""
    size = min(len(tail), self.tokens.shape[1])
    same = self.tokens[:, :size] == tail[:size]
    # The first difference, where there is one.
    common = np.where(same.all(1), size, same.argmin(1)) if size else 0
    common = np.minimum(common, self.usable)
    best = int(common.argmax())
    return best, int(common[best])


class Slots:
  """The paths and cached candidates in the slots of one pool.

  Attributes:
    count: number of slots.
    data_shards: equal parts of the slots; a copy stays in its source's part.
    length: most tokens of a path.
  """

  def __init__(self, count: int, length: int, data_shards: int = 1):
    if count % data_shards:
      raise ValueError(
        f"{count} slots cannot be split into {data_shards} shards"
      )
    self.count, self.data_shards, self.length = count, data_shards, length
    self._tokens = np.zeros((count, length), np.int32)
    self._lengths = np.zeros(count, np.int32)
    # Kinds of positions; paths of different kinds share no keys.
    self._kinds = np.zeros(count, np.int8)
    # Whether the pool has the hidden state of the last token.
    self._ready = np.zeros(count, bool)
    self._used = np.zeros(count, np.int64)
    self._versions = np.zeros(count, np.int64)
    self._candidates: dict[int, CachedCandidates] = {}
    self._clock = 0

  def reset(self) -> None:
    """Empties all slots."""
    self._lengths[:] = 0
    self._ready[:] = False
    self._used[:] = 0
    self._clock = 0
    self._candidates.clear()

  def place(
    self,
    paths: Sequence[np.ndarray],
    kinds: Sequence[int],
    *,
    hidden: bool,
    reuse: bool = True,
  ) -> list[Move]:
    """Gives slots to as many paths as there is room for.

    The caller carries the moves out in this order: all copies of slots, then
    all appends of candidates, then all prefills.

    Args:
      paths: int32 arrays of 1 to `length` tokens.
      kinds: the kind of positions of each path.
      hidden: whether the hidden state at the last token is needed; where the
        pool lacks it, at least that token is prefilled.
      reuse: False gives each path an empty slot.

    Returns:
      Moves to different slots, at least one if there are paths. The caller asks
      again for the other paths when it has used these.
    """
    self._clock += 1
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
          range(shard * self._size, (shard + 1) * self._size),
          key=lambda slot: (self._used[slot], slot),
        )
        if slot not in sources
      ]
      for shard in range(self.data_shards)
    ]
    moves = []
    for index, (source, reused, candidate, appended) in enumerate(found):
      if index in owning:
        slot = source
      else:
        # The source's shard, or the one with most free slots.
        shard = (
          source // self._size
          if source >= 0
          else max(range(self.data_shards), key=lambda b: (len(free[b]), -b))
        )
        if not free[shard]:
          continue
        slot = free[shard].pop(0)
      whole = reused + appended == len(paths[index])
      if (
        whole
        and hidden
        and not (appended == 0 and self._at_end(source, reused))
      ):
        if appended:
          appended -= 1
        else:
          reused -= 1
      if not appended:
        candidate = None
      moves.append(Move(index, slot, source, reused, candidate, appended))
    for move in moves:
      path = paths[move.index]
      self._hold(move.slot, path, kinds[move.index], hidden)
    return moves

  def version(self, slot: int) -> int:
    """Returns a number that changes whenever the slot's path does."""
    return int(self._versions[slot])

  def cache_candidates(
    self, slot: int, version: int, candidates: CachedCandidates
  ) -> None:
    """Records candidates, if the slot still has the path of `version`."""
    if self._versions[slot] == version:
      self._candidates[slot] = candidates

  def drop_candidates(self) -> None:
    """Forgets all candidates, so that their memory can be freed."""
    self._candidates.clear()

  @property
  def _size(self) -> int:
    return self.count // self.data_shards

  def _longest(
    self, path: np.ndarray, kind: int
  ) -> tuple[int, int, tuple[CachedCandidates, int] | None, int]:
    """Returns (slot, reused, candidate, appended) of the longest match."""
    size = len(path)
    same = self._tokens[:, :size] == path
    common = np.where(same.all(1), size, same.argmin(1))
    common = np.minimum(common, self._lengths)
    common[self._kinds != kind] = 0
    best, total = (-1, 0, None, 0), 0
    for slot in np.flatnonzero(common):
      reused, appended, candidate = int(common[slot]), 0, None
      if slot in self._candidates and reused == self._lengths[slot]:
        column, appended = self._candidates[slot].match(path[reused:])
        candidate = (self._candidates[slot], column)
      if reused + appended > total:
        total = reused + appended
        best = (int(slot), reused, candidate, appended)
    # A few words that two prompts share are not worth a copy.
    source = best[0]
    if source >= 0 and total < min(_WORTH, int(self._lengths[source])):
      return (-1, 0, None, 0)
    return best

  def _owners(self, found) -> dict[int, int]:
    """Returns the path that takes over each source: its longest match."""
    owners: dict[int, int] = {}
    for index, (source, reused, _, appended) in enumerate(found):
      if source < 0:
        continue
      taken = owners.get(source)
      if taken is None or reused + appended > found[taken][1] + found[taken][3]:
        owners[source] = index
    return owners

  def _at_end(self, slot: int, reused: int) -> bool:
    return bool(self._ready[slot]) and reused == self._lengths[slot]

  def _hold(self, slot: int, path: np.ndarray, kind: int, hidden: bool) -> None:
    self._tokens[slot, : len(path)] = path
    self._lengths[slot] = len(path)
    self._kinds[slot] = kind
    self._ready[slot] = hidden
    self._used[slot] = self._clock
    self._versions[slot] += 1
    self._candidates.pop(slot, None)
