"""Grades answers; comparisons that may hang run in processes that are killed.

math-verify can run forever in C code, where neither signals nor its own
timeouts stop it. So a warm worker process forks, and the fork compares; at a
deadline it is killed. The verdict is then "undecided", which is logged, counted
and never treated as right. Worker processes start when they are first needed;
plain numbers need none. The host itself parses short answers only, so it needs
no deadline.
"""

import collections
import concurrent.futures
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

import numpy as np

from rstar_jax.config import plugins
from rstar_jax.grading import answers
from rstar_jax.sandbox import process
from rstar_jax.types import Verdict

_MEMORY = 4 << 30  # Address space of a process in bytes; bounds big powers.
_CACHE = 65536
_NAMES: dict[Any, Verdict] = {True: "equal", False: "different"}
# Seconds after the worker's deadline at which the host kills it.
_GRACE = 1.0


class Grader:
  """Compares predicted answers with gold ones; never hangs.

  Args:
    workers: number of worker processes, at least 1.
    seconds: deadline of one comparison, at which it is killed; at half of it
      the comparison is interrupted.
    cache: most pairs whose verdicts are cached.
    percent_is_ratio: whether 25% also equals 1/4 and 0.25, and not only 25.
    function: replaces the comparison, in this process: (gold, predicted) -> a
      bool or a verdict.

  Attributes:
    counts: number of times that each verdict was given.
  """

  def __init__(
    self,
    workers: int = 2,
    seconds: float = 4.0,
    cache: int = _CACHE,
    percent_is_ratio: bool = False,
    function: Callable[[str, str], bool | Verdict] | None = None,
  ):
    if workers < 1:
      raise ValueError(f"workers={workers} must be at least 1")
    self.counts: dict[Verdict, int] = dict.fromkeys(
      ("equal", "different", "undecided"), 0
    )
    self._function = function and plugins.wrap(function, "function")
    self._seconds = seconds
    self._cache_size = cache
    self._percent_is_ratio = percent_is_ratio
    self._cache: collections.OrderedDict = collections.OrderedDict()
    self._closed = False
    self._lock = threading.Lock()
    # One process per thread, since it ends with the thread that started it.
    self._local = threading.local()
    self._live: set[process.Process] = set()
    self._executor = concurrent.futures.ThreadPoolExecutor(workers)

  def __enter__(self) -> "Grader":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    """Kills the processes; waiting calls of `grade` raise RuntimeError."""
    self._closed = True
    self._executor.shutdown(wait=False, cancel_futures=True)
    with self._lock:
      live = list(self._live)
    for worker in live:
      worker.kill_tree()
    self._executor.shutdown(wait=True)
    for worker in self._live:
      worker.kill()
    self._live.clear()

  @property
  def pids(self) -> list[int]:
    """Pids of the live processes."""
    with self._lock:
      return [worker.pid for worker in self._live]

  def grade(
    self, pairs: Sequence[tuple[str | Sequence[str], str | None]]
  ) -> list[Verdict]:
    """Compares answers; may be called from several threads at once.

    Args:
      pairs: (gold, predicted) answers. With several golds, in a list or tuple,
        equal to any of them is "equal". A predicted None, no answer, is
        "different".

    Returns:
      A verdict for each, in order.

    Raises:
      PluginError: `function` raises, or returns another type.
      RuntimeError: math-verify is needed but missing or broken, or the grader
        is closed, possibly while this call waits.
    """
    golds = [
      (gold,) if isinstance(gold, str) else tuple(gold) for gold, _ in pairs
    ]
    predicted = [each or "" for _, each in pairs]
    by_pair = self._find(
      dict.fromkeys(
        (gold, each)
        for several, each in zip(golds, predicted, strict=True)
        for gold in several
      )
    )
    verdicts = [
      best(by_pair[gold, each] for gold in several)
      for several, each in zip(golds, predicted, strict=True)
    ]
    with self._lock:
      for verdict in verdicts:
        self.counts[verdict] += 1
    return verdicts

  def _find(self, pairs: dict) -> dict[tuple[str, str], Verdict]:
    """Returns the verdict on each of the distinct pairs."""
    verdicts: dict[tuple[str, str], Verdict] = {}
    pending = {}
    for pair in pairs:
      if self._closed:
        raise RuntimeError("the grader is closed")
      with self._lock:
        known = self._cache.get(pair)
      if known is not None:
        verdicts[pair] = known
      elif (decision := self._decide(*pair)) is not None:
        verdicts[pair] = _NAMES.get(decision, decision)
      else:
        pending[pair] = self._submit(pair)
    lost = set()
    for pair, future in pending.items():
      try:
        verdicts[pair], kept = future.result()
      except concurrent.futures.CancelledError as error:
        raise RuntimeError("the grader is closed") from error
      if not kept:
        lost.add(pair)
    with self._lock:
      for pair in verdicts:
        if pair not in lost:
          self._cache[pair] = verdicts[pair]
          self._cache.move_to_end(pair)
      while len(self._cache) > self._cache_size:
        self._cache.popitem(last=False)
    return verdicts

  def _decide(self, gold: str, predicted: str) -> bool | Verdict | None:
    """Compares in this process if that is quick; otherwise None."""
    if self._function is None:
      return answers.decide(gold, predicted, self._percent_is_ratio)
    if not predicted:
      return False
    found = self._function(gold, predicted)
    if isinstance(found, bool | np.bool_):
      return bool(found)
    if isinstance(found, str) and found in get_args(Verdict):
      return found
    raise self._function.wrong(
      "True or False, or 'equal', 'different' or 'undecided'",
      plugins.shown(found),
    )

  def _submit(self, pair: tuple[str, str]) -> concurrent.futures.Future:
    try:
      return self._executor.submit(self._judge, pair)
    except RuntimeError as error:  # Closed by another thread just now.
      raise RuntimeError("the grader is closed") from error

  def _judge(self, pair: tuple[str, str]) -> tuple[Verdict, bool]:
    """Compares a pair in the process that belongs to the calling thread.

    Args:
      pair: (gold, predicted).

    Returns:
      The verdict, and whether to cache it: not if the process was killed from
      outside.
    """
    verdict: Verdict = "undecided"
    kept = False
    for _ in range(2):  # Retries once if the process was killed from outside.
      if self._closed:
        raise RuntimeError("the grader is closed")
      worker = self._worker()
      try:
        worker.send(pair)
        verdict, kept = worker.receive(self._seconds + _GRACE), True
        break
      except TimeoutError:
        self._discard(worker)
        break
      except process.Gone:
        self._discard(worker)
    if self._closed:
      raise RuntimeError("the grader is closed")
    if verdict == "undecided":
      logging.warning("no verdict on gold %.200r, predicted %.200r", *pair)
    return verdict, kept

  def _worker(self) -> process.Process:
    """Returns this thread's process, started at its first use."""
    worker = getattr(self._local, "worker", None)
    if worker is None:
      options = {
        "memory_bytes": _MEMORY,
        "seconds": self._seconds,
        "percent_is_ratio": self._percent_is_ratio,
      }
      # sympy's sets are ordered by hash, so hashes must not vary.
      worker = process.Process(
        "rstar_jax.grading.judge",
        options,
        ("-P",),
        env={**os.environ, "PYTHONHASHSEED": "0"},
        path=sys.path,
      )
      if problem := worker.greeting["problem"]:
        worker.kill()
        raise RuntimeError(
          f"math-verify is not reliable here: {problem}; install "
          "math-verify[antlr4_13_2] of version 0.9 or later"
        )
      process.warn_of(worker.greeting["missing"], "compares answers")
      self._local.worker = worker
      with self._lock:
        self._live.add(worker)
    return worker

  def _discard(self, worker: process.Process) -> None:
    self._local.worker = None
    with self._lock:
      self._live.discard(worker)
    worker.kill()


def best(verdicts: Iterable[Verdict]) -> Verdict:
  """Returns the verdict on several golds; "different" for none.

  Args:
    verdicts: on one answer against each of them.
  """
  order = ("equal", "undecided", "different")
  return min(verdicts, key=order.index, default="different")
