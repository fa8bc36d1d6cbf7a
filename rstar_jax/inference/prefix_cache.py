"""The prefix cache: which tokens each page has, as a tree of pages.

This is the host's record of `models/pages.py`: ids and counts, without keys and
values. A page follows the page before it on a path; paths with the same first
tokens share their first pages. The pages of a run are pinned, with all pages
before them. When pages run out, the least recently used leaves are dropped.
Their tokens are computed again when they are needed, to the same bits, so that
the cache changes no result.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from rstar_jax.inference.sizes import pages_for
from rstar_jax.models.config import PAGE

# Pages that are dropped at once, as a share of all: to find them takes a look
# at every page.
_DROPPED = 0.05


@dataclasses.dataclass(eq=False)
class Page:
  """A page of keys and values; a page of fewer than PAGE tokens is a leaf.

  Attributes:
    index: its index on the device; -1 for a root.
    tokens: its 1 to PAGE ids; () for a root.
    parent: the page before it; None for a root.
    pins: number of users of this page and of those after it.
    used: the time of its last use, of the cache's clock.
    after: the pages after it, by their tokens.
  """

  index: int
  tokens: tuple[int, ...] = ()
  parent: "Page | None" = None
  pins: int = 0
  used: int = 0
  after: dict[tuple[int, ...], "Page"] = dataclasses.field(default_factory=dict)

  def indices(self) -> list[int]:
    """Returns the indices of a path's pages up to this one."""
    found, page = [], self
    while page.parent is not None:
      found.append(page.index)
      page = page.parent
    return found[::-1]


class Match(NamedTuple):
  """A cached prefix of a path.

  Attributes:
    page: its last whole page, or a root.
    partial: a page after it that begins with the next tokens; None if there is
      none.
    length: number of its tokens.
  """

  page: Page
  partial: Page | None
  length: int


class PrefixCache:
  """Pages of one data shard; not thread-safe.

  Attributes:
    count: number of pages.
    dropped: pages dropped so far.
  """

  def __init__(self, count: int):
    self.count = count
    self.dropped = 0
    self._free = list(range(count))[::-1]
    self._roots: dict[int, Page] = {}
    # Pages of the tree, and how many of them are pinned.
    self._cached = self._pinned = 0
    self._clock = 0

  @property
  def available(self) -> int:
    """Returns the number of pages that `take` can give."""
    return len(self._free) + self._cached - self._pinned

  @property
  def used(self) -> int:
    """Returns the number of pages with tokens."""
    return self.count - len(self._free)

  def match(self, ids: Sequence[int], kind: int = 0) -> Match:
    """Finds the longest cached prefix.

    Args:
      ids: tokens of a path.
      kind: the kind of positions; paths of different kinds share no pages.
    """
    self._clock += 1
    page = self._roots.setdefault(kind, Page(-1))
    length = 0
    while len(ids) - length >= PAGE:
      found = page.after.get(tuple(ids[length : length + PAGE]))
      if found is None:
        break
      page, length = found, length + PAGE
      page.used = self._clock
    rest = tuple(ids[length : length + PAGE])
    best, most = None, 0
    for tokens, other in page.after.items():
      same = _common(tokens, rest)
      if same > most:
        best, most = other, same
    if best is not None:
      best.used = self._clock
    return Match(page, best, length + most)

  def pin(self, page: Page) -> None:
    """Keeps a page and all before it until `unpin`."""
    while page.parent is not None:
      self._pinned += not page.pins
      page.pins += 1
      page = page.parent

  def unpin(self, page: Page) -> None:
    """Ends one `pin`."""
    while page.parent is not None:
      page.pins -= 1
      self._pinned -= not page.pins
      page = page.parent

  def take(self) -> int:
    """Returns the index of a free page, which the caller then owns.

    Raises:
      ValueError: none is available.
    """
    if not self._free:
      self._drop()
    return self._free.pop()

  def give(self, indices: Sequence[int]) -> None:
    """Takes back pages from `take`."""
    self._free += indices

  def add(
    self, page: Page, tokens: Sequence[int], indices: Sequence[int]
  ) -> Page:
    """Puts pages from `take` into the tree, after a whole page.

    A page whose tokens the tree has already is freed.

    Args:
      page: a whole page, or a root; pinned.
      tokens: the ids that follow it.
      indices: a page for each PAGE of them; further ones are freed.

    Returns:
      The page of the last token, `page` if there is none.
    """
    self._clock += 1
    pages = pages_for(len(tokens))
    self.give(indices[pages:])
    for number in range(pages):
      part = tuple(tokens[number * PAGE : (number + 1) * PAGE])
      found = self._same(page, part)
      if found is not None:
        self.give([indices[number]])
      else:
        found = Page(indices[number], part, page)
        page.after[part] = found
        self._cached += 1
      found.used = self._clock
      page = found
    return page

  def _same(self, page: Page, tokens: tuple[int, ...]) -> Page | None:
    """Returns the page after a page that has these tokens, None without one.

    Pages whose tokens these continue are no longer needed, and are freed.
    """
    if (found := page.after.get(tokens)) is not None:
      return found
    for other, found in list(page.after.items()):
      same = _common(other, tokens)
      if same == len(tokens):
        return found
      if same == len(other) and not found.pins:
        self._forget(found)
    return None

  def _drop(self) -> None:
    """Frees the least recently used leaves."""
    wanted = max(1, int(_DROPPED * self.count))
    leaves = [
      page
      for page in _below(self._roots.values())
      if not page.after and not page.pins
    ]
    if not leaves:
      raise ValueError(f"all {self.count} pages are in use")
    leaves.sort(key=lambda page: page.used)
    for page in leaves[:wanted]:
      self._forget(page)
      self.dropped += 1

  def _forget(self, page: Page) -> None:
    del page.parent.after[page.tokens]
    self._free.append(page.index)
    self._cached -= 1


def _common(one: tuple[int, ...], two: tuple[int, ...]) -> int:
  """Returns the number of equal first ids."""
  for count, (a, b) in enumerate(zip(one, two, strict=False)):
    if a != b:
      return count
  return min(len(one), len(two))


def _below(pages) -> list[Page]:
  found, left = [], [child for page in pages for child in page.after.values()]
  while left:
    page = left.pop()
    found.append(page)
    left += page.after.values()
  return found
