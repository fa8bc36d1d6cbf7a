"""Work that is divided: a function, items, and results as they finish.

Who computes an item is not said, and changes nothing: a function's result, or
the file that it writes, depends on the item alone. What is done and what is
left is in the workdir, and nowhere else.
"""

import concurrent.futures
import concurrent.futures.process
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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


class Local:
  """Processes of this machine; the caller alone, where it has one core."""

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
