"""Paths that are being computed, and the pages of a data shard for them."""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from rstar_jax.inference.prefix_cache import Page, PrefixCache
from rstar_jax.inference.sizes import pages_for
from rstar_jax.models.config import PAGE


class Request:
  """A request to a model.

  Attributes:
    prefix: ids of its path, or of one of its paths.
    future: gets the result.
    shard: the data shard that has its paths; None before the thread takes it.
    runs: its runs that have begun and not ended.
  """

  def __init__(self, prefix: list[int]):
    self.prefix = prefix
    self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    self.shard: Shard | None = None
    self.runs: set[Run] = set()


@dataclasses.dataclass(eq=False)
class Run:
  """A path that is being computed: pages that it shares, then its own.

  Attributes:
    request: the request that it belongs to.
    ids: the tokens that are known.
    next: position of the next token to compute.
    span: most tokens of the path, or of those that go on from it.
    shared: the last whole page that it shares.
    pinned: the last page that it shares or copies.
    first: number of pages that it shares.
    table: indices of its pages.
    promised: pages that it may still take.
    done: called with the run, once all of `ids` are computed.
    value: that of its last token then, of a model with a scalar head.
    copy: a page, and the run's own page that becomes its copy before anything
      is computed; None if there is none, or it has been planned.
  """

  request: Request
  ids: list[int]
  next: int
  span: int
  shared: Page
  pinned: Page
  first: int
  table: list[int]
  promised: int
  done: Callable[["Run"], None] | None = None
  value: float = 0.0
  copy: tuple[int, int] | None = None

  @property
  def left(self) -> int:
    """Returns the number of known tokens that are not computed yet."""
    return len(self.ids) - self.next


class Shard:
  """The pages of one data shard, and the requests that use them.

  Attributes:
    cache: the pages.
    kind_of: the kind of positions of a path by its span; see
      `PrefixCache.match`.
    requests: number of requests that are open in the shard.
    waiting: requests that have not started.
    prefills: runs whose known tokens are not all computed.
    reserved: pages that are promised and not taken yet.
  """

  def __init__(self, count: int, kind_of: Callable[[int], int]):
    self.cache = PrefixCache(count)
    self.kind_of = kind_of
    self.requests = 0
    self.waiting: collections.deque[Request] = collections.deque()
    self.prefills: list[Run] = []
    self.reserved = 0

  def start(
    self,
    request: Request,
    ids: Sequence[int],
    *,
    reuse: int,
    pages: int,
    span: int,
    margin: int = 0,
    done: Callable[[Run], None] | None = None,
  ) -> Run | None:
    """Begins a run after its longest cached prefix.

    Args:
      request: the request that the run belongs to.
      ids: the path's known tokens.
      reuse: most first tokens to take from the cache.
      pages: most tokens that the run will have in pages.
      span: most tokens of the path, or of those that go on from it.
      margin: pages that must stay available.
      done: see `Run`.

    Returns:
      The run; None if there are too few pages.
    """
    shared, partial, length = self.cache.match(ids[:reuse], self.kind_of(span))
    pinned = partial or shared
    self.cache.pin(pinned)
    table = shared.indices()
    promised = pages_for(pages) - len(table)
    needed = self.reserved + promised + margin
    if self.cache.available < needed and partial is not None:
      # The page that would be copied may be the one that is missing.
      self.cache.unpin(partial)
      self.cache.pin(shared)
      pinned, length = shared, len(table) * PAGE
    if self.cache.available < needed:
      self.cache.unpin(pinned)
      return None
    self.reserved += promised
    run = Run(
      request=request,
      ids=list(ids),
      next=length,
      span=span,
      shared=shared,
      pinned=pinned,
      first=len(table),
      table=table,
      promised=promised,
      done=done,
    )
    request.runs.add(run)
    return run

  def cover(self, run: Run, position: int) -> None:
    """Gives a run its pages up to a position."""
    while len(run.table) <= position // PAGE:
      run.table.append(self.cache.take())
      run.promised -= 1
      self.reserved -= 1
      if len(run.table) == run.first + 1 and run.pinned is not run.shared:
        run.copy = run.pinned.index, run.table[-1]

  def end(self, run: Run, keep: bool = True) -> Page:
    """Ends a run.

    Args:
      run: of this shard.
      keep: whether what it computed goes into the cache.

    Returns:
      The page of its last token.
    """
    own, page = run.table[run.first :], run.pinned
    if own and keep:
      page = self.cache.add(
        run.shared, run.ids[run.first * PAGE : run.next], own
      )
    else:
      self.cache.give(own)
    self.cache.unpin(run.pinned)
    self.reserved -= run.promised
    run.request.runs.discard(run)
    return page

  def take_prefilled(self) -> list[Run]:
    """Takes the runs out of `prefills` whose tokens have all been planned."""
    taken = [run for run in self.prefills if not run.left]
    self.prefills = [run for run in self.prefills if run.left]
    return taken

  def forget(self, request: Request) -> None:
    """Ends a request and its runs; nothing goes into the cache."""
    if request in self.waiting:
      self.waiting.remove(request)
    for run in list(request.runs):
      self.end(run, keep=False)
    self.prefills = [run for run in self.prefills if run.request is not request]
