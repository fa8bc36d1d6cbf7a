"""Runs requests, with limits on their number and time, and a queue.

Each request's search runs the driver in a thread of its own. All share the
engine, which fills its rows from all searches (continuous batching): a request
joins by calling it, and leaves by cancelling its calls.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from absl import logging

from rstar_jax.pipeline.solve import Asked, Solution, Solver
from rstar_jax.report import trees
from rstar_jax.search.tree import Tree
from rstar_jax.serve.wire import Refused

# Most seconds in Retry-After.
_RETRY = 60
# Seconds without news after which an empty event is sent.
_QUIET = 15.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """Limits on requests.

  Attributes:
    places: most requests that are answered at once.
    line: most requests that wait for a place.
    seconds: most seconds of a request, its wait included.
  """

  places: int
  line: int
  seconds: float


@dataclasses.dataclass(frozen=True)
class Event:
  """News of a request.

  Attributes:
    index: index of the question.
    solution: the question's solution; None while its tree grows.
    grown: added nodes, in the page's format; None if trees are not watched.
  """

  index: int
  solution: Solution | None = None
  grown: dict[str, Any] | None = None


_END = Event(-1)


class Growth:
  """Tracks the part of a tree that was sent; see `trees.compact`."""

  def __init__(self):
    self._nodes = self._rollouts = 0

  def news(self, tree: Tree) -> dict[str, Any] | None:
    """Returns a tree's news, None if there are none."""
    nodes, rollouts = len(tree), tree.rollouts
    if (nodes, rollouts) == (self._nodes, self._rollouts):
      return None
    grown = trees.grown(tree, self._nodes, self._rollouts)
    self._nodes, self._rollouts = nodes, rollouts
    return grown


class Service:
  """Answers requests with a solver; used from one event loop.

  Attributes:
    solver: holds the models.
    limits: on requests.
    stopping: whether new requests are refused.
  """

  def __init__(self, solver: Solver, limits: Limits):
    self.solver, self.limits = solver, limits
    self.stopping = False
    self._threads = concurrent.futures.ThreadPoolExecutor(
      limits.places, thread_name_prefix="request"
    )
    self._lock = threading.Lock()
    self._open: set[concurrent.futures.Future] = set()
    self._running = 0
    # Seconds that the last requests took.
    self._took: collections.deque[float] = collections.deque([1.0], 32)

  @property
  def running(self) -> int:
    """The number of requests in progress."""
    return self._running

  @property
  def waiting(self) -> int:
    """The number of requests that wait for a place."""
    return max(len(self._open) - self._running, 0)

  @property
  def idle(self) -> bool:
    """Whether no request is left."""
    return not self._open

  def close(self) -> None:
    """Ends all requests, and waits for their threads."""
    self.end_all()
    self._threads.shutdown()

  def end_all(self) -> None:
    """Ends all requests, and notifies their clients."""
    self.stopping = True
    with self._lock:
      left = list(self._open)
    for each in left:
      each.cancel()

  async def answer(
    self, asked: Sequence[Asked], *, watch: bool = False
  ) -> AsyncIterator[Event | None]:
    """Yields news of a request; whoever leaves ends the search.

    The first is None, when there is room for it, and so are some while there is
    nothing new.

    Args:
      asked: its questions.
      watch: whether news of trees are wanted.

    Raises:
      Refused: there is no room, no time, or an error; or the server stops.
    """
    loop = asyncio.get_running_loop()
    news: asyncio.Queue[Event] = asyncio.Queue()

    def tell(event: Event) -> None:
      # The loop may have ended before the search.
      with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(news.put_nowait, event)

    stop, job = self._admitted(asked, tell, watch)
    late = False

    def expire() -> None:
      nonlocal late
      if not job.done():
        late = not stop.done()
        stop.cancel()

    # The deadline is the search's, and holds even while the client does not
    # read. What is found before it may be read after it.
    clock = loop.call_later(self.limits.seconds, expire)
    try:
      event: Event | None = None
      while event is not _END:
        yield event
        try:
          event = await asyncio.wait_for(news.get(), _QUIET)
        except TimeoutError:
          event = None
      if stop.cancelled():
        raise _late(self.limits.seconds) if late else stopping()
      if error := job.exception():
        logging.error("a request failed", exc_info=error)
        raise Refused(
          f"the search failed with {type(error).__name__}; the server's log "
          "has the rest",
          500,
        )
    finally:
      clock.cancel()
      stop.cancel()

  def _admitted(
    self, asked: Sequence[Asked], tell: Callable[[Event], None], watch: bool
  ) -> tuple[concurrent.futures.Future, concurrent.futures.Future]:
    """Gives a request a place, or one in the line.

    Args:
      asked: its questions.
      tell: takes its news, in any thread, `_END` the last.
      watch: whether news of trees are wanted.

    Returns:
      The future whose cancelling ends the request, and the one of its search.

    Raises:
      Refused: there is no room, or the server stops.
    """
    if self.stopping:
      raise stopping()
    if len(self._open) >= self.limits.places + self.limits.line:
      seconds = sum(self._took) / len(self._took)
      after = math.ceil(seconds * (1 + len(self._open) / self.limits.places))
      raise Refused(
        "too many requests are being answered: try again later",
        429,
        code="rate_limit_exceeded",
        headers={"Retry-After": str(min(after, _RETRY))},
      )
    stop: concurrent.futures.Future = concurrent.futures.Future()
    with self._lock:
      self._open.add(stop)
    try:
      job = self._threads.submit(self._run, asked, stop, tell, watch)
    except RuntimeError as error:
      # The pool has kept the job, and another thread may begin it.
      stop.cancel()
      with self._lock:
        self._open.discard(stop)
      logging.error("no thread for a request: %s", error)
      raise Refused(
        "no thread can be started for the request: try again later",
        503,
        headers={"Retry-After": str(_RETRY)},
      ) from None

    def ended(_: concurrent.futures.Future) -> None:
      with self._lock:
        self._open.discard(stop)
      tell(_END)

    def stopped(_: concurrent.futures.Future) -> None:
      job.cancel()
      tell(_END)  # At once: a call that cannot be cancelled may go on a while.

    job.add_done_callback(ended)
    stop.add_done_callback(stopped)
    return stop, job

  def _run(
    self,
    asked: Sequence[Asked],
    stop: concurrent.futures.Future,
    tell: Callable[[Event], None],
    watch: bool,
  ) -> None:
    """Answers a request; runs in a thread of its own.

    Args:
      asked: the request's questions.
      stop: its cancelling ends the search.
      tell: takes news, in any thread.
      watch: whether news of trees are wanted.
    """
    growth = [Growth() for _ in asked]

    def grown(index: int, tree: Tree) -> None:
      if (news := growth[index].news(tree)) is not None:
        tell(Event(index, grown=news))

    with self._lock:
      self._running += 1
    began = time.monotonic()
    try:
      self.solver.solve(
        asked,
        lambda index, solution: tell(Event(index, solution)),
        len(asked),
        watch=grown if watch else None,
        stop=stop,
      )
      self._took.append(time.monotonic() - began)
    except concurrent.futures.CancelledError:
      pass  # The code that cancelled it handles this.
    finally:
      with self._lock:
        self._running -= 1


def _late(seconds: float) -> Refused:
  return Refused(
    f"no answer within {seconds:g} s: ask for less, or try again later",
    504,
    code="timeout",
  )


def stopping() -> Refused:
  """Returns the refusal of what the end of the server leaves unanswered."""
  return Refused(
    "the server is stopping", 503, headers={"Retry-After": str(_RETRY)}
  )
