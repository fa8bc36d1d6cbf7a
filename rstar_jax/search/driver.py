"""Runs many searches at once; each waits only for its own answers.

The calling thread moves the searches on. An answer moves its own search on at
once, whatever the other searches wait for; `queues.py` gets the answers. A
search depends only on its own answers, and thus neither on their order nor on
the number of searches in flight.
"""

import concurrent.futures
import dataclasses
import queue
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

from rstar_jax.search.queues import Queues, Usage
from rstar_jax.search.requests import Calls, Kind, Request, Search


def run(
  searches: Iterable[tuple[Search, Calls]],
  in_flight: int,
  done: Callable[[int, Any], None],
  usage: dict[Kind, Usage] | None = None,
  stop: concurrent.futures.Future | None = None,
) -> None:
  """Runs searches to their ends.

  An exception of a search, of a callable or of `done`, or one that a signal
  raises in this thread, ends the run: it is raised once the calls that are
  going on have returned. No other call is begun.

  Args:
    searches: searches and the callables of each; the next is taken when there
      is room for it.
    in_flight: most searches at once.
    done: called with the number of a search and its result, as each ends, in
      this thread.
    usage: updated while searches run, with an entry for each kind of request.
    stop: ends the run at once when it is done, from any thread.

  Raises:
    ValueError: in_flight < 1, or a search asks for a callable that is None.
    CancelledError: `stop` is done.
  """
  if in_flight < 1:
    raise ValueError(f"in_flight={in_flight} must be at least 1")
  with Queues(in_flight, {} if usage is None else usage) as queues:
    driver = _Driver(enumerate(searches), in_flight, done, queues)
    if stop is not None:
      stop.add_done_callback(lambda _: driver.stop())
    driver.run()


def run_searches(
  searches: Sequence[Search],
  calls: Calls,
  in_flight: int,
  progress: Callable[[int], None] | None = None,
) -> list[Any]:
  """Runs searches on the same callables; returns their results, in order.

  Args:
    searches: the searches.
    calls: the callables.
    in_flight: most searches at once.
    progress: called with 1 as each search ends, in this thread.
  """
  found: list[Any] = [None] * len(searches)

  def done(index: int, result: Any) -> None:
    found[index] = result
    if progress is not None:
      progress(1)

  run(((each, calls) for each in searches), in_flight, done)
  return found


@dataclasses.dataclass(eq=False)
class _Going:
  """A search in flight, and what it waits for.

  Attributes:
    answers: to its newest requests.
    missing: how many of them have not come yet.
    many: whether it yielded a list of requests.
  """

  index: int
  search: Search
  calls: Calls
  answers: list[concurrent.futures.Future] = dataclasses.field(
    default_factory=list
  )
  missing: int = dataclasses.field(init=False)
  many: bool = dataclasses.field(init=False)


class _Driver:
  """The event loop: searches and their answers."""

  def __init__(
    self,
    searches: Iterator[tuple[int, tuple[Search, Calls]]],
    in_flight: int,
    done: Callable[[int, Any], None],
    queues: Queues,
  ):
    self._searches = searches
    self._in_flight = in_flight
    self._done = done
    self._queues = queues
    self._going: set[_Going] = set()
    # Each answer with its search and the counts of its kind; None ends the run.
    self._answered: queue.SimpleQueue = queue.SimpleQueue()
    self._stopped = False

  def stop(self) -> None:
    """Ends the run; from any thread."""
    self._stopped = True
    self._answered.put(None)

  def run(self) -> None:
    """Runs all searches; if that fails, cancels what they wait for."""
    try:
      while self._fill():
        # Every search waits now: a call gets as many rows as it can.
        if self._answered.empty():
          self._queues.flush()
        answered = self._answered.get()
        if self._stopped:
          raise concurrent.futures.CancelledError
        going, usage, answer = answered
        usage.end()
        found = answer.result()  # Raises what the callable raised.
        going.missing -= 1
        if going.missing:
          continue
        if going.many:
          found = [each.result() for each in going.answers]
        self._move_on(going, found)
    finally:
      for going in self._going:
        for answer in going.answers:
          answer.cancel()
        going.search.close()

  def _fill(self) -> bool:
    """Begins searches while there is room; returns whether any is in flight."""
    while len(self._going) < self._in_flight:
      found = next(self._searches, None)
      if found is None:
        break
      index, (search, calls) = found
      if not isinstance(search, Generator):
        raise TypeError(
          f"a search is a generator, not {search!r:.80}: write `yield from "
          "rj.grow(...)` in its function"
        )
      going = _Going(index, search, calls)
      self._going.add(going)
      self._move_on(going, None)
    return bool(self._going)

  def _move_on(self, going: _Going, answer: Any) -> None:
    """Sends a search its answer, and its next requests to the queues."""
    asked: Request | list[Request] = []
    while asked == []:
      try:
        asked = going.search.send(answer)
      except StopIteration as end:
        self._going.discard(going)
        self._done(going.index, end.value)
        return
      answer = []
    going.many = isinstance(asked, list)
    requests = asked if going.many else [asked]
    going.missing = len(requests)
    going.answers = []
    for request in requests:
      if not isinstance(request, Request):
        raise TypeError(
          f"a search has yielded {request!r:.80}, and no request: write `yield "
          "from rj.grow(...)`"
        )
      usage, future = self._queues.send(going.calls, request)
      going.answers.append(future)
      future.add_done_callback(
        lambda future, usage=usage: self._answered.put((going, usage, future))
      )
