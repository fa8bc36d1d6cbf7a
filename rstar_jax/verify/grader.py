"""Grades answers: exactly where that is easy, else in killable processes.

math-verify can run forever, in C, deaf to signals and to its own timeouts. So
it runs in processes of its own that are killed at a deadline; the verdict is
then "undecided", which is logged, counted and never taken for right. Those
processes start at first need: grading plain numbers needs none.
"""

import collections
import concurrent.futures
import logging
import sys
import threading
from collections.abc import Sequence

from rstar_jax.types import Verdict
from rstar_jax.verify import answers, process

_MEMORY = 4 << 30  # Address space of a process; big powers would take it all.
_CACHE = 65536


class Grader:
  """Compares predicted answers with gold ones; never hangs.

  Args:
    workers: killable processes, at least 1.
    seconds: deadline of one comparison.
    cache: most pairs remembered.

  Attributes:
    counts: how often each verdict was given.
  """

  def __init__(
    self, workers: int = 2, seconds: float = 4.0, cache: int = _CACHE
  ):
    if workers < 1:
      raise ValueError(f"workers={workers} must be at least 1")
    self.counts: dict[Verdict, int] = dict.fromkeys(
      ("equal", "different", "undecided"), 0
    )
    self._seconds = seconds
    self._cache_size = cache
    self._cache: collections.OrderedDict = collections.OrderedDict()
    self._lock = threading.Lock()
    # One process a thread: it ends when the thread that started it does.
    self._local = threading.local()
    self._live: set[process.Process] = set()
    self._executor = concurrent.futures.ThreadPoolExecutor(workers)

  def __enter__(self) -> "Grader":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    """Kills the processes; what is under way fails."""
    self._executor.shutdown(wait=False, cancel_futures=True)
    with self._lock:
      live = list(self._live)
    for worker in live:
      worker.strike()
    self._executor.shutdown(wait=True)
    for worker in self._live:
      worker.kill()
    self._live.clear()

  @property
  def pids(self) -> list[int]:
    """Pids of the live processes."""
    with self._lock:
      return [worker.pid for worker in self._live]

  def grade(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """Compares answers; may be called from several threads at once.

    Args:
      pairs: (gold, predicted) answers.

    Returns:
      A verdict for each, in order.

    Raises:
      RuntimeError: math-verify is needed but missing or broken, or the grader
        is closed.
    """
    pairs = [(gold, predicted) for gold, predicted in pairs]
    found: dict[tuple[str, str], Verdict] = {}
    pending = {}
    for pair in dict.fromkeys(pairs):
      with self._lock:
        known = self._cache.get(pair)
      if known is not None:
        found[pair] = known
      elif (decision := answers.decide(*pair)) is not None:
        found[pair] = "equal" if decision else "different"
      else:
        pending[pair] = self._executor.submit(self._judge, pair)
    for pair, future in pending.items():
      found[pair] = future.result()
    with self._lock:
      for pair in found:
        self._cache[pair] = found[pair]
        self._cache.move_to_end(pair)
      while len(self._cache) > self._cache_size:
        self._cache.popitem(last=False)
      for pair in pairs:
        self.counts[found[pair]] += 1
    return [found[pair] for pair in pairs]

  def _judge(self, pair: tuple[str, str]) -> Verdict:
    """Runs in a thread of the executor, which owns one process."""
    for _ in range(2):
      worker = self._worker()
      try:
        worker.send(pair)
        verdict = worker.receive(self._seconds)
        break
      except TimeoutError:
        self._bury(worker)
        verdict = "undecided"
        break
      except process.Gone:  # Killed by someone; it is tried once more.
        self._bury(worker)
        verdict = "undecided"
    if verdict == "undecided":
      logging.warning("no verdict on gold %.200r, predicted %.200r", *pair)
    return verdict

  def _worker(self) -> process.Process:
    """Returns this thread's process, started if need be."""
    worker = getattr(self._local, "worker", None)
    if worker is None:
      options = {"path": sys.path, "memory_bytes": _MEMORY}
      worker = process.Process("judge.py", options, ("-P",))
      if worker.greeting:
        worker.kill()
        raise RuntimeError(
          f"math-verify cannot be relied on: {worker.greeting}; install "
          "math-verify[antlr4_13_2] of version 0.9 or later"
        )
      self._local.worker = worker
      with self._lock:
        self._live.add(worker)
    return worker

  def _bury(self, worker: process.Process) -> None:
    self._local.worker = None
    with self._lock:
      self._live.discard(worker)
    worker.kill()
