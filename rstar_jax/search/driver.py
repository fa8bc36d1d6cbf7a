"""Runs many searches at once; each waits for its own answers alone.

The calling thread moves the searches on. Each callable has a queue: an answer
that comes back moves its search on at once, whatever the others wait for. What
a search returns depends on its own answers alone, and so neither on their order
nor on how many searches are in flight.
"""

import concurrent.futures
import dataclasses
import functools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from rstar_jax.grading import judging
from rstar_jax.search.requests import Calls, Kind, Request, Search

# Most calls of `verify` and `judge` at once: more than a sandbox has workers.
_THREADS = 256


@dataclasses.dataclass
class Usage:
  """What the callables of one kind were asked.

  Attributes:
    requests: number of requests.
    calls: number of calls that answered them.
    seconds: time in which at least one request waited for its answer.
    waiting: requests that wait for their answer now.
    most_waiting: most requests that waited at once.
    since: when the first of those that wait began to.
  """

  requests: int = 0
  calls: int = 0
  seconds: float = 0.0
  waiting: int = 0
  most_waiting: int = 0
  since: float = 0.0

  def begin(self) -> None:
    """Counts a request."""
    if not self.waiting:
      self.since = time.perf_counter()
    self.requests += 1
    self.waiting += 1
    self.most_waiting = max(self.waiting, self.most_waiting)

  def end(self) -> None:
    """Counts an answer."""
    self.waiting -= 1
    if not self.waiting:
      self.seconds += time.perf_counter() - self.since


def run(
  searches: Iterable[tuple[Search, Calls]],
  in_flight: int,
  done: Callable[[int, Any], None],
  usage: dict[Kind, Usage] | None = None,
) -> None:
  """Runs searches to their ends.

  An exception of a search, of a callable or of `done`, or one that a signal
  raises in this thread, ends all of it: it is raised when the calls that are
  being made have returned. No other call is begun.

  Args:
    searches: searches and the callables of each; each is asked for when there
      is room for it.
    in_flight: most searches at once.
    done: called with the number of a search and what it returned, as each ends,
      in this thread.
    usage: updated while searches run; an entry for each kind of request that
      was made.

  Raises:
    ValueError: in_flight < 1, or a search asks for a callable that is None.
  """
  if in_flight < 1:
    raise ValueError(f"in_flight={in_flight} must be at least 1")
  with _Queues(in_flight, {} if usage is None else usage) as queues:
    _Driver(enumerate(searches), in_flight, done, queues).run()


def results(
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
  """A search in flight, and what it waits for."""

  index: int
  search: Search
  calls: Calls
  answers: list[concurrent.futures.Future] = dataclasses.field(
    default_factory=list
  )
  missing: int = 0
  many: bool = False


class _Driver:
  """The event loop: searches and their answers."""

  def __init__(
    self,
    searches: Iterator[tuple[int, tuple[Search, Calls]]],
    in_flight: int,
    done: Callable[[int, Any], None],
    queues: "_Queues",
  ):
    self._searches = searches
    self._in_flight = in_flight
    self._done = done
    self._queues = queues
    self._going: set[_Going] = set()
    # The search of each answer, and what counts it.
    self._answered: queue.SimpleQueue = queue.SimpleQueue()

  def run(self) -> None:
    """Runs all searches; if that fails, cancels what they wait for."""
    try:
      while self._fill():
        # What can be asked for has been: a call has as many rows as can be.
        if self._answered.empty():
          self._queues.flush()
        going, usage, answer = self._answered.get()
        usage.end()
        answer.result()  # Raises what the callable raised.
        going.missing -= 1
        if not going.missing:
          found = [each.result() for each in going.answers]
          self._move_on(going, found if going.many else found[0])
    finally:
      for going in self._going:
        for answer in going.answers:
          answer.cancel()
        going.search.close()

  def _fill(self) -> bool:
    """Begins searches while there is room; says whether any is in flight."""
    while len(self._going) < self._in_flight:
      found = next(self._searches, None)
      if found is None:
        break
      index, (search, calls) = found
      going = _Going(index, search, calls)
      self._going.add(going)
      self._move_on(going, None)
    return bool(self._going)

  def _move_on(self, going: _Going, answer: Any) -> None:
    """Gives a search its answer, and sends what it asks for next."""
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
      usage, future = self._queues.send(going.calls, request)
      going.answers.append(future)
      future.add_done_callback(
        lambda future, usage=usage: self._answered.put((going, usage, future))
      )


class _Queues:
  """Sends requests to callables: to `submit`, in batches, or to threads."""

  def __init__(self, in_flight: int, usage: dict[Kind, Usage]):
    self._usage = usage
    self._lock = threading.Lock()
    self._batches: dict[tuple[int, int], _Batches] = {}
    self._threads = concurrent.futures.ThreadPoolExecutor(
      min(in_flight, _THREADS)
    )

  def __enter__(self) -> "_Queues":
    return self

  def __exit__(self, *_) -> None:
    self._threads.shutdown(cancel_futures=True)
    for each in self._batches.values():
      each.close()

  def flush(self) -> None:
    """Lets the callables that take batches have what waits for them."""
    for each in self._batches.values():
      each.flush()

  def send(
    self, calls: Calls, request: Request
  ) -> tuple[Usage, concurrent.futures.Future]:
    """Sends a request; returns what counts it, and its answer."""
    usage = self._usage.setdefault(request.to, Usage())
    usage.begin()
    return usage, self._submit_of(calls, request.to, usage)(*request.args)

  def _submit_of(
    self, calls: Calls, kind: Kind, usage: Usage
  ) -> Callable[..., concurrent.futures.Future]:
    """Returns what sends a request of a kind."""
    if kind == "judge":
      call = functools.partial(
        judging.judge, grade=calls.grade, reward=calls.reward
      )
    else:
      call = getattr(calls, kind)
    if call is None:
      raise ValueError(f"a search asks for calls.{kind}, which is None")
    submit = getattr(call, "submit", None)
    if submit is None and kind in ("expand", "score"):
      return self._batches_of(call, usage).submit
    with self._lock:
      usage.calls += 1
    return submit or functools.partial(self._threads.submit, call)

  def _batches_of(self, call: Callable, usage: Usage) -> "_Batches":
    # A method is another object each time that it is named.
    owner = getattr(call, "__self__", call)
    key = id(owner), id(getattr(call, "__func__", call))
    if key not in self._batches:
      self._batches[key] = _Batches(call, usage, self._lock)
    return self._batches[key]


_Row = tuple[tuple[Any, ...], concurrent.futures.Future]


class _Batches:
  """Calls an `Expand` or a `Score` with all rows that wait, in one thread."""

  def __init__(self, call: Callable, usage: Usage, lock: threading.Lock):
    self._call = call
    self._usage = usage
    self._lock = lock
    self._thread = concurrent.futures.ThreadPoolExecutor(1)
    self._waiting: list[_Row] = []
    self._working = False

  def close(self) -> None:
    """Waits for the call that is being made; no other follows."""
    with self._lock:
      self._waiting = []
    self._thread.shutdown(cancel_futures=True)

  def submit(self, *args: Any) -> concurrent.futures.Future:
    """Adds a row to those that wait for the next call."""
    future: concurrent.futures.Future = concurrent.futures.Future()
    with self._lock:
      self._waiting.append((args, future))
    return future

  def flush(self) -> None:
    """Has the rows answered, if they are not being answered already."""
    with self._lock:
      if not self._waiting or self._working:
        return
      self._working = True
    self._thread.submit(self._work)

  def _work(self) -> None:
    while rows := self._take():
      rows = [each for each in rows if each[1].set_running_or_notify_cancel()]
      futures = [future for _, future in rows]
      try:
        answers = self._answers([args for args, _ in rows])
        pairs = list(zip(futures, answers, strict=True))
      except BaseException as error:
        # Nothing more is answered: the run ends.
        for future in futures:
          future.set_exception(error)
        return
      for future, answer in pairs:
        future.set_result(answer)

  def _take(self) -> list[_Row]:
    """Returns the rows that wait and can share a call, none if none waits."""
    with self._lock:
      if not self._waiting:
        self._working = False
        return []
      size = _size(self._waiting[0])
      rows = [each for each in self._waiting if _size(each) == size]
      self._waiting = [each for each in self._waiting if _size(each) != size]
    return rows

  def _answers(self, rows: list[tuple[Any, ...]]) -> Sequence[Any]:
    if not rows:
      return []
    with self._lock:
      self._usage.calls += 1
    *columns, last = map(list, zip(*rows, strict=True))
    if isinstance(last[0], np.ndarray):
      last = np.stack(last)
    return self._call(*columns, last)


def _size(row: _Row) -> int | None:
  """Returns the number of a row's seeds, which rows of a call share."""
  last = row[0][-1]
  return len(last) if isinstance(last, np.ndarray) else None
