"""Trees of a recorded search, replayed by an engine at its own pace.

Each tree is a list of expansions, one after the other; trees know nothing of
each other. An engine goes on with a tree the moment that the expansion before
has ended, and from the tokens that it sampled itself. Nothing here needs more
than the standard library; `benchmarks.trace` makes the lists.
"""

import collections
import dataclasses
import time
from collections.abc import Sequence

# Any ids do for an interpreter's output that are the same each time.
_SHOWN = 100


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One expansion of a tree.

  Attributes:
    path: which candidate was chosen at each depth, from the root.
    limit: tokens of each of its candidates.
    shown: tokens that follow the last step of its path and that no policy
      wrote: the interpreter's output.
  """

  path: tuple[int, ...]
  limit: int
  shown: int


class Replay:
  """What of all trees may be expanded now, and of which prefix.

  Attributes:
    decoded: tokens sampled so far.
  """

  def __init__(
    self,
    prompts: Sequence[Sequence[int]],
    trees: Sequence[Sequence[Leaf]],
    think: float = 0.0,
  ):
    """Begins a search.

    Args:
      prompts: ids of the questions, one list for each tree.
      trees: expansions of each tree, in order.
      think: seconds between the end of an expansion and the tree's next, for
        what a search does with candidates meanwhile.
    """
    self._prompts = [list(each) for each in prompts]
    self._left = [collections.deque(each) for each in trees]
    self._think = think
    # Sampled ids of each step, by tree and path.
    self._steps: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    # Trees that nobody expands, and when each may go on, soonest first.
    self._due = collections.deque(
      (0.0, tree) for tree, left in enumerate(self._left) if left
    )
    self.decoded = 0

  @property
  def over(self) -> bool:
    """Returns whether all expansions have ended."""
    return not any(self._left)

  def ready(self) -> list[tuple[int, list[int], int]]:
    """Takes what may be expanded now: tree, ids of the prefix, limit."""
    found = []
    while self._due and self._due[0][0] <= time.monotonic():
      _, tree = self._due.popleft()
      leaf = self._left[tree][0]
      found.append((tree, self._prefix(tree, leaf), leaf.limit))
    return found

  def pause(self) -> float | None:
    """Returns the seconds until a tree may go on; None: none is thinking."""
    if not self._due:
      return None
    return max(self._due[0][0] - time.monotonic(), 0.0)

  def add(self, tree: int, steps: Sequence[Sequence[int]]) -> None:
    """Ends the expansion of a tree.

    Args:
      tree: its number.
      steps: sampled ids of each candidate.

    Raises:
      ValueError: a candidate has fewer or more tokens than were asked for.
    """
    leaf = self._left[tree].popleft()
    for index, ids in enumerate(steps):
      if len(ids) != leaf.limit:
        raise ValueError(f"{leaf} wants other steps than {len(ids)} tokens")
      self.decoded += len(ids)
      self._steps[tree, (*leaf.path, index)] = list(ids)
    if self._left[tree]:
      self._due.append((time.monotonic() + self._think, tree))

  def _prefix(self, tree: int, leaf: Leaf) -> list[int]:
    ids = list(self._prompts[tree])
    for depth in range(1, len(leaf.path) + 1):
      ids += self._steps[tree, leaf.path[:depth]]
    return [*ids, *range(_SHOWN, _SHOWN + leaf.shown)]


def of_json(rows: Sequence[Sequence[dict]]) -> list[list[Leaf]]:
  """Returns trees whose leaves came as dictionaries."""
  return [
    [Leaf(tuple(each["path"]), each["limit"], each["shown"]) for each in row]
    for row in rows
  ]
