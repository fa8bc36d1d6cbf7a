"""Work that is divided: items to results, and shards to files.

Who computes an item is not said, and changes nothing: a function's result, or
the file that it writes, depends on the item alone. What is done and what is
left is in the workdir, and nowhere else. So a backend may give an item to a
second process when the first one seems to be dead.

`Local` is the backend that a run has by itself; `on_ray.py` has another one.
"""

import collections
import concurrent.futures
import concurrent.futures.process
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from rstar_jax.config.schema import Config
from rstar_jax.pipeline.hosts import Host
from rstar_jax.pipeline.shards import Shard
from rstar_jax.storage import store

Item = TypeVar("Item")
Result = TypeVar("Result")


class Run(Protocol):
  """An open run; see `context.Context`."""

  config: Config
  workdir: store.Path
  host: Host


class Turns(Generic[Item]):
  """Whose turn it is: which searcher gets which shard.

  Shards go in their order, those that were lost before all others. A searcher
  has a turn as soon as it has room, in the order in which they had.

  Attributes:
    left: what nobody has.
  """

  def __init__(self, shards: Iterable[Item]):
    self.left = collections.deque(shards)
    self._room: collections.deque[int] = collections.deque()

  def has_room(self, searcher: int) -> None:
    """Notes that a searcher may have a shard more."""
    self._room.append(searcher)

  def gone(self, searcher: int) -> None:
    """Notes that a searcher has no room any more."""
    while searcher in self._room:
      self._room.remove(searcher)

  def lost(self, shard: Item) -> None:
    """Takes back a shard whose searcher died."""
    self.left.appendleft(shard)

  def take(self) -> Iterator[tuple[int, Item]]:
    """Yields turns while there are searchers with room, and shards."""
    while self.left and self._room:
      yield self._room.popleft(), self.left.popleft()


class Load:
  """How many problems the models of a host are at; threads share it."""

  def __init__(self, full: int):
    """Starts with none.

    Args:
      full: so many keep the models busy, at least 1.
    """
    self._full = full
    self._calls = self._left = 0
    self._changed = threading.Condition()

  def begin(self, count: int) -> None:
    """Adds the problems of a call."""
    with self._changed:
      self._calls += 1
      self._left += count
      self._changed.notify_all()

  def end(self, count: int) -> None:
    """Takes away problems that were done, or are given up."""
    with self._changed:
      self._left -= count
      self._changed.notify_all()

  @property
  def room(self) -> bool:
    """Whether fewer problems are left than keep the models busy."""
    return self._left < self._full

  def wait(self, calls: int) -> None:
    """Returns when fewer problems are left than keep the models busy.

    Args:
      calls: that were made so far; those that have not begun are waited for.
    """
    with self._changed:
      self._changed.wait_for(lambda: self._calls >= calls and self.room)


class Searcher(Protocol):
  """The models of a stage on one host, which search its problems.

  Attributes:
    load: what all calls are at. A shard that has but a few problems left does
      not keep the models busy, and then another call may begin in a thread.
  """

  load: Load

  def __call__(self, shards: Sequence[Shard]) -> None:
    """Writes the files of shards; what is there of them is not made again."""
    ...


class Work(Protocol):
  """A backend; see `Local`."""

  def map(
    self, function: Callable[[Item], Result], items: Iterable[Item]
  ) -> Iterator[tuple[Item, Result]]:
    """Yields each item with its result, in the order in which they finish.

    Args:
      function: of a module's top level, or a `functools.partial` of one: it is
        sent to other processes, as items and results are. It may be called
        again with an item, or twice at once, where a process was thought dead;
        so a file is written as a whole (`records.write_shard`).
      items: taken a few at a time, as there is room.

    Raises:
      Exception: what the function raised.
      OSError: a process died.
    """
    ...

  def search(
    self, run: Run, make: Callable[[Any], Searcher], shards: Sequence[Shard]
  ) -> None:
    """Writes the files of shards, by searchers that hold models.

    Args:
      run: the run, as this process has opened it.
      make: makes a searcher of an open run, once on each host. A class, or
        a `functools.partial` of one: it may be sent to other processes.
      shards: of the whole stage. When this returns, other hosts may still be
        at theirs; `shards.finish` waits for them.

    Raises:
      Exception: what a searcher raised.
    """
    ...


class Local:
  """This machine: processes of it for functions, this one for a search.

  A run on several hosts has no more than its files in common: host i of N makes
  every Nth shard.
  """

  def __init__(self, processes: int | None = None):
    """Starts nothing yet.

    Args:
      processes: how many; None is the number of cores. With one the caller
        computes.
    """
    self._processes = processes or os.cpu_count() or 1

  def map(
    self, function: Callable[[Item], Result], items: Iterable[Item]
  ) -> Iterator[tuple[Item, Result]]:
    """See `Work`."""
    if self._processes == 1:
      yield from ((each, function(each)) for each in items)
      return
    # Not forked: threads of jax may hold locks.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(self._processes, context)
    try:
      yield from _as_completed(pool, function, items, 2 * self._processes)
    except concurrent.futures.process.BrokenProcessPool:
      raise OSError(
        "a process of this machine was killed, perhaps since memory ran out: "
        "the same command goes on"
      ) from None
    finally:
      pool.shutdown(cancel_futures=True)

  def search(
    self, run: Run, make: Callable[[Any], Searcher], shards: Sequence[Shard]
  ) -> None:
    """See `Work`; all shards of this host are searched together."""
    make(run)(run.host.share(shards))


def _as_completed(
  pool: concurrent.futures.Executor,
  function: Callable[[Item], Result],
  items: Iterable[Item],
  ahead: int,
) -> Iterator[tuple[Item, Result]]:
  """Yields results as they finish, with at most so many items submitted."""
  left = iter(items)
  running: dict[concurrent.futures.Future, Item] = {}
  while True:
    for item in itertools.islice(left, ahead - len(running)):
      running[pool.submit(function, item)] = item
    if not running:
      return
    done, _ = concurrent.futures.wait(
      running, return_when=concurrent.futures.FIRST_COMPLETED
    )
    for each in done:
      yield running.pop(each), each.result()
