"""Divides work: maps items to results, and shards to files.

A backend chooses which process computes an item. The choice changes nothing: a
function's result, or the file that it writes, depends on the item alone, and
only the workdir records what is done. So a backend may give an item to a second
process when the first one seems dead.

`Local` is the default backend; `on_ray.py` has another one.
"""

import collections
import concurrent.futures
import concurrent.futures.process
import dataclasses
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from rstar_jax.config.schema import Config
from rstar_jax.pipeline import processes
from rstar_jax.pipeline.hosts import Host
from rstar_jax.pipeline.shards import Shard, unfinished
from rstar_jax.storage import store

Item = TypeVar("Item")
Result = TypeVar("Result")


class Run(Protocol):
  """An open run; see `context.Context`."""

  config: Config
  workdir: store.Path
  host: Host


class Turns(Generic[Item]):
  """Assigns shards to searchers.

  Shards are given out in order, lost ones first. Searchers are served in the
  order in which they had room.

  Attributes:
    left: shards that no searcher has.
  """

  def __init__(self, shards: Iterable[Item]):
    self.left = collections.deque(shards)
    self._room: collections.deque[int] = collections.deque()

  def has_room(self, searcher: int) -> None:
    """Notes that a searcher has room for one more shard."""
    self._room.append(searcher)

  def gone(self, searcher: int) -> None:
    """Notes that a searcher has no room any longer."""
    while searcher in self._room:
      self._room.remove(searcher)

  def lost(self, shard: Item) -> None:
    """Takes back a shard whose searcher died."""
    self.left.appendleft(shard)

  def take(self) -> Iterator[tuple[int, Item]]:
    """Yields (searcher, shard) while there are both."""
    while self.left and self._room:
      yield self._room.popleft(), self.left.popleft()


class Load:
  """Counts the problems that a host's models are working on; thread-safe."""

  def __init__(self, full: int):
    """Starts with no problems.

    Args:
      full: number of problems that keeps the models busy, at least 1.
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
    """Subtracts problems that are done or given up."""
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
      calls: number of calls made so far; those that have not begun are awaited.
    """
    with self._changed:
      self._changed.wait_for(lambda: self._calls >= calls and self.room)


class Searcher(Protocol):
  """The models of a stage on one host, which search its problems.

  Attributes:
    load: counts the problems of all calls. A shard with few problems left does
      not keep the models busy; then another thread may begin a call.
  """

  load: Load

  def __call__(self, shards: Sequence[Shard]) -> None:
    """Writes the files of shards; finished units are not made again."""
    ...


class Work(Protocol):
  """A backend; see `Local`."""

  def map(
    self, function: Callable[[Item], Result], items: Iterable[Item]
  ) -> Iterator[tuple[Item, Result]]:
    """Yields each item with its result, in order of completion.

    Args:
      function: at the top level of a module other than `__main__`, or a
        `functools.partial` of one: it is pickled, as items and results are. If
        a process was taken for dead, it may be called with an item again, or
        twice at once; so it writes files atomically (`records.write_shard`).
      items: taken a few at a time, as there is room.

    Raises:
      Exception: what the function raised.
      OSError: a process died.
    """
    ...

  def search(
    self, run: Run, make: Callable[[Any], Searcher], shards: Sequence[Shard]
  ) -> None:
    """Writes the files of shards, with searchers that hold models.

    Args:
      run: the run, as this process has opened it.
      make: makes a searcher for an open run, once per host. A class, or a
        `functools.partial` of one: it may be pickled.
      shards: all shards of the stage. When this returns, other hosts may still
        be working on theirs; `shards.finish` waits for them.

    Raises:
      Exception: what a searcher raised.
    """
    ...


class Local:
  """This machine: a pool of processes for `map`, this process for `search`.

  Hosts of a run share files and nothing else: host i of N makes every Nth
  shard.
  """

  def __init__(self, processes: int | None = None):
    """Starts nothing yet.

    Args:
      processes: number of processes; None is the number of cores. With 1 the
        calling process computes.
    """
    self._processes = processes or os.cpu_count() or 1

  def map(
    self, function: Callable[[Item], Result], items: Iterable[Item]
  ) -> Iterator[tuple[Item, Result]]:
    """See `Work`."""
    if self._processes == 1:
      yield from ((each, function(each)) for each in items)
      return
    pool = processes.pool(self._processes)
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
    host = run.host
    share = host.share(shards)
    if not unfinished(share):
      return
    if run.config.servers.load:
      before = [
        each for n, each in enumerate(shards) if n % host.count < host.index
      ]
      run = dataclasses.replace(run, loads=not unfinished(before))
    # All, since its progress counts those that are done.
    make(run)(share)


def _as_completed(
  pool: concurrent.futures.Executor,
  function: Callable[[Item], Result],
  items: Iterable[Item],
  ahead: int,
) -> Iterator[tuple[Item, Result]]:
  """Yields results as they finish, with at most `ahead` items submitted."""
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
