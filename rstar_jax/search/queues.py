"""Sends the requests of searches to their callables, many at once.

A callable with a method `submit` gets each request as it comes. Any other
`expand` or `score` is called by one thread with all requests that wait for it.
The other callables are called by a pool of threads, once a request, so that a
slow program delays only its own search.
"""

import concurrent.futures
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rstar_jax.grading import judging
from rstar_jax.search.requests import Calls, Kind, Request

# The most calls of the pool at once: more than a sandbox has workers.
_THREADS = 256


@dataclasses.dataclass
class Usage:
  """How long the requests of one kind wait.

  Attributes:
    waited: seconds that requests waited for their answers, summed.
    waiting: requests that wait for their answers now.
  """

  waited: float = 0.0
  waiting: int = 0
  _since: float = dataclasses.field(default=0.0, init=False, repr=False)

  def begin(self) -> None:
    """Counts a request."""
    self._count(1)

  def end(self) -> None:
    """Counts an answer."""
    self._count(-1)

  def _count(self, change: int) -> None:
    now = time.perf_counter()
    self.waited += self.waiting * (now - self._since)
    self.waiting, self._since = self.waiting + change, now


def shares(usage: Mapping[Kind, Usage]) -> dict[str, float]:
  """Returns each kind's share of the time that searches waited.

  Args:
    usage: of a run.

  Returns:
    The shares by the name of a metric, such as "waited_expand"; their sum is 1.
  """
  total = sum(each.waited for each in usage.values())
  return {
    f"waited_{kind}": each.waited / total
    for kind, each in usage.items()
    if total
  }


class Queues:
  """Sends requests to callables; a context manager, used by one thread.

  At the end of its block requests without an answer are dropped, and no call is
  going on.
  """

  def __init__(self, in_flight: int, usage: dict[Kind, Usage]):
    """Starts no thread before the first request.

    Args:
      in_flight: most searches at once, which bounds the threads.
      usage: gets an entry for each kind of request.
    """
    self._usage = usage
    self._batches: dict[tuple[int, int], _BatchQueue] = {}
    self._threads = concurrent.futures.ThreadPoolExecutor(
      min(in_flight, _THREADS)
    )

  def __enter__(self) -> "Queues":
    return self

  def __exit__(self, *_) -> None:
    self._threads.shutdown(cancel_futures=True)
    for each in self._batches.values():
      each.close()

  def flush(self) -> None:
    """Starts calls of the callables that take batches, with what waits."""
    for each in self._batches.values():
      each.flush()

  def send(
    self, calls: Calls, request: Request
  ) -> tuple[Usage, concurrent.futures.Future]:
    """Sends a request; returns the usage of its kind, and its answer."""
    usage = self._usage.setdefault(request.to, Usage())
    usage.begin()
    return usage, self._submit_of(calls, request.to)(*request.args)

  def _submit_of(
    self, calls: Calls, kind: Kind
  ) -> Callable[..., concurrent.futures.Future]:
    """Returns the function that sends a request of a kind."""
    if kind == "judge":
      call = functools.partial(
        judging.judge,
        grade=calls.grade,
        reward=calls.reward,
        verify=calls.verify,
      )
    else:
      call = getattr(calls, kind)
    if call is None:
      raise ValueError(f"a search asks for calls.{kind}, which is None")
    submit = getattr(call, "submit", None)
    if submit is None and kind in ("expand", "score"):
      return self._batches_of(call).submit
    return submit or functools.partial(self._threads.submit, call)

  def _batches_of(self, call: Callable) -> "_BatchQueue":
    # Each access to a method makes another object.
    owner = getattr(call, "__self__", call)
    key = id(owner), id(getattr(call, "__func__", call))
    if key not in self._batches:
      self._batches[key] = _BatchQueue(call)
    return self._batches[key]


_Row = tuple[tuple[Any, ...], concurrent.futures.Future]


class Batched:
  """An `Expand` or a `Score` of batches that several runs of the driver share.

  One thread calls it, with rows of all runs. An error of a call reaches the
  runs whose rows the call had, and no other.
  """

  def __init__(self, call: Callable):
    self._batches = _BatchQueue(call, survives=True)

  def submit(self, *row: Any) -> concurrent.futures.Future:
    """Asks for one row."""
    future = self._batches.submit(*row)
    self._batches.flush()
    return future

  def __call__(self, *columns: Sequence[Any]) -> list[Any]:
    """Asks for rows, and waits for all of them."""
    asked = [self.submit(*row) for row in zip(*columns, strict=True)]
    return [each.result() for each in asked]


class _BatchQueue:
  """Calls an `Expand` or a `Score` with all rows that wait, in one thread.

  Args:
    call: takes batches.
    survives: whether calls go on after an error or the end of a run, since
      other runs use the queue too.
  """

  def __init__(self, call: Callable, survives: bool = False):
    self._call = call
    self._lock = threading.Lock()  # Guards `_waiting` and `_working`.
    self._survives = survives
    self._thread = concurrent.futures.ThreadPoolExecutor(1)
    self._waiting: list[_Row] = []
    self._working = False

  def close(self) -> None:
    """Waits for the call that is going on; no other follows."""
    with self._lock:
      self._waiting = []
    self._thread.shutdown()

  def submit(self, *args: Any) -> concurrent.futures.Future:
    """Adds a row to those that wait for the next call."""
    future: concurrent.futures.Future = concurrent.futures.Future()
    with self._lock:
      self._waiting.append((args, future))
    return future

  def flush(self) -> None:
    """Starts to answer the rows, unless the thread is at work already."""
    with self._lock:
      if not self._waiting or self._working:
        return
      self._working = True
    self._thread.submit(self._work)

  def _work(self) -> None:
    while rows := self._take():
      rows = [each for each in rows if each[1].set_running_or_notify_cancel()]
      if not rows:
        if self._survives:
          continue
        return  # The run is over.
      futures = [future for _, future in rows]
      try:
        answers = self._answers([args for args, _ in rows])
        pairs = list(zip(futures, answers, strict=True))
      except BaseException as error:
        for future in futures:
          future.set_exception(error)
        if self._survives:
          continue
        return  # Nothing more is answered: the run ends.
      for future, answer in pairs:
        future.set_result(answer)

  def _take(self) -> list[_Row]:
    """Removes and returns rows that wait and can share a call."""
    with self._lock:
      waiting = self._waiting
      self._working = bool(waiting)
      sizes = [_size(each) for each in waiting]
      # Rows with as many seeds as the first.
      rows = [e for e, n in zip(waiting, sizes, strict=True) if n == sizes[0]]
      self._waiting = [
        e for e, n in zip(waiting, sizes, strict=True) if n != sizes[0]
      ]
    return rows

  def _answers(self, rows: list[tuple[Any, ...]]) -> Sequence[Any]:
    *columns, last = map(list, zip(*rows, strict=True))
    if isinstance(last[0], np.ndarray):
      last = np.stack(last)
    return self._call(*columns, last)


def _size(row: _Row) -> int | None:
  """Returns the number of a row's seeds, the same in all rows of a call."""
  last = row[0][-1]
  return len(last) if isinstance(last, np.ndarray) else None
