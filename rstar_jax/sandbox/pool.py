"""Runs programs written by a model, many at once, each in its own process.

What it covers: state that leaks between programs, endless loops, memory, floods
of output, crashes of the interpreter, processes left behind, and the usual ways
to the network, to files and to other processes. What only the audit hook holds
is no boundary against hostile code; `Sandbox.isolation` says which layer holds
what on this machine.

Each of `workers` slots is a thread that drives a worker process (`zygote.py`).
A program goes to the slot that has run its prefix, whose interpreter may still
be alive there (`snapshots.py`); a slot with nothing to do takes what others
have. The deadline of a step is this side's and ends in SIGKILL: of the program,
by its worker, or of everything in a worker that does not answer; a new one
takes the rest.
"""

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Sequence

from rstar_jax.sandbox import process
from rstar_jax.sandbox.isolation import probe
from rstar_jax.types import ExecResult

_BATCH = 32  # Most programs in one request.
_RESTARTS = 15  # Failed ones, over some twenty seconds, that are forgiven.
_TRIES = 3  # Deaths before a request is begun that are forgiven.
_CACHE = 65536
# What a worker gets to kill a program and say so.
_KILL_SECONDS = 10.0
# -P -s -B are what -I is, except that the hash seed still counts.
_FLAGS = ("-P", "-s", "-B")
_ENV = {
  "PYTHONHASHSEED": "0",
  "OPENBLAS_NUM_THREADS": "1",
  "OMP_NUM_THREADS": "1",
}
# Programs that mention one of these go to a worker that has imported them: a
# fork of it costs milliseconds more, an import in each fork costs hundreds.
_HEAVY = ("sympy", "numpy")


@dataclasses.dataclass(frozen=True)
class Limits:
  """What one program may use.

  Attributes:
    wall_seconds: wall time of a step, in seconds (of a whole program where it
      is plain arithmetic, or its steps do not compile alone); CPU time is
      limited just above it.
    memory_bytes: address space, in bytes.
    output_bytes: longest output of a step, in bytes.
    live: most interpreters that each worker keeps alive, one for each prefix
      that it ran last; some megabytes each.
  """

  wall_seconds: float = 5.0
  memory_bytes: int = 1 << 30
  output_bytes: int = 65536
  live: int = 32


class _Call:
  """One call of `run`: its unique programs and their results."""

  def __init__(self, count: int):
    self.results: list[ExecResult | None] = [None] * count
    self.error: BaseException | None = None
    self._left = count
    self._lock = threading.Lock()
    self.done = threading.Event()

  def finish(self, index: int, result: ExecResult) -> None:
    with self._lock:
      self.results[index] = result
      self._left -= 1
      if self._left == 0:
        self.done.set()

  def fail(self, error: BaseException) -> None:
    self.error = error
    self.done.set()


_Job = tuple[_Call, int, tuple[str, ...]]


class Sandbox:
  """Runs programs in parallel, in isolation, repeatably.

  Args:
    workers: worker processes, at least 1.
    limits: what one program may use.
    cache: most finished programs remembered.
    require: what has to be held by a boundary, of `probe.REQUIRABLE`: "net",
      "read", "write" and so on.
    without: layers to leave out, of `isolation.LAYERS`.

  Attributes:
    isolation: which layers hold what ("net", "read", "write", "exec", "fork",
      "kill" and so on), each tried at start-up, and "degraded", a list of what
      no boundary holds; see `probe.probe`.

  Raises:
    RuntimeError: a worker process cannot be started, or something required is
      not held.
  """

  def __init__(
    self,
    workers: int = 2,
    limits: Limits = Limits(),
    cache: int = _CACHE,
    require: Sequence[str] = (),
    without: Sequence[str] = (),
  ):
    if workers < 1:
      raise ValueError(f"workers={workers} must be at least 1")
    probe.check_names(require, without)
    self._require, self._without = tuple(require), tuple(without)
    self.isolation: dict[str, object] = {}
    self._limits = limits
    self._workers = workers
    self._cache_size = cache
    self._cache: collections.OrderedDict = collections.OrderedDict()
    # The last one is of programs that no slot has run a prefix of.
    self._queues: list[collections.deque[_Job]] = [
      collections.deque() for _ in range(workers + 1)
    ]
    self._homes: collections.OrderedDict[tuple[str, ...], int] = (
      collections.OrderedDict()
    )
    self._lock = threading.Lock()
    self._waiting = threading.Condition(self._lock)
    self._live: dict[int, process.Process] = {}
    self._closed = False
    boot = _Call(workers)
    # A worker dies with the thread that started it, hence these threads.
    self._threads = [
      threading.Thread(target=self._drive, args=(slot, boot), daemon=True)
      for slot in range(workers)
    ]
    for thread in self._threads:
      thread.start()
    boot.done.wait()
    if boot.error:
      self.close()
      raise boot.error

  def __enter__(self) -> "Sandbox":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    """Kills the workers; programs still waiting fail with RuntimeError."""
    with self._lock:
      self._closed = True
      workers = list(self._live.values())
      self._waiting.notify_all()
    for worker in workers:
      worker.strike()
    for thread in self._threads:
      thread.join()
    for queue in self._queues:
      for call, _, _ in queue:
        call.fail(RuntimeError("the sandbox is closed"))

  @property
  def pids(self) -> list[int]:
    """Pids of the live worker processes."""
    with self._lock:
      return [worker.pid for worker in self._live.values()]

  def run(self, programs: Sequence[Sequence[str]]) -> list[ExecResult]:
    """Runs programs; may be called from several threads at once.

    Args:
      programs: code steps of each program, oldest first. Equal programs run
        once.

    Returns:
      What the LAST step of each program did, in order. An exception in an
      earlier step is the program's.

    Raises:
      RuntimeError: the sandbox is closed, or no worker can be started.
    """
    keys = [tuple(steps) for steps in programs]
    found: dict[tuple[str, ...], ExecResult] = {}
    with self._lock:
      if self._closed:
        raise RuntimeError("the sandbox is closed")
      for key in keys:
        if key not in found and key in self._cache:
          self._cache.move_to_end(key)
          found[key] = self._cache[key]
      fresh = [key for key in dict.fromkeys(keys) if key not in found]
      call = _Call(len(fresh))
      for index, key in enumerate(fresh):
        home = self._homes.get(key[:-1], self._workers)
        self._queues[home].append((call, index, key))
      self._waiting.notify(self._workers)
    if fresh:
      try:
        call.done.wait()
      except BaseException:  # Ctrl-C: nobody waits for the rest.
        with self._lock:
          self._queues = [
            collections.deque(job for job in queue if job[0] is not call)
            for queue in self._queues
          ]
        raise
      if call.error:
        raise call.error
      found.update(zip(fresh, call.results, strict=True))
      self._remember(fresh, call.results)
    return [found[key] for key in keys]

  def _remember(self, keys: list, results: list) -> None:
    with self._lock:
      for key, result in zip(keys, results, strict=True):
        if result.status in ("ok", "error"):
          self._cache[key] = result
      while len(self._cache) > self._cache_size:
        self._cache.popitem(last=False)

  def _take(self, slot: int) -> list[_Job]:
    """Waits for jobs; returns some, none once closed."""
    with self._waiting:
      while not any(self._queues) and not self._closed:
        self._waiting.wait()
      if self._closed:
        return []
      others = sorted(self._queues, key=len)
      choices = (self._queues[slot], self._queues[-1], others[-1])
      queue = next(filter(None, choices))
      # Small at the end, so that no worker idles while another has a backlog.
      count = len(queue)
      if queue is not self._queues[slot]:
        count //= 2 * self._workers
      count = max(1, min(_BATCH, count))
      jobs = [queue.popleft() for _ in range(count)]
      # What is one step longer than these finds its prefix here.
      for _, _, key in jobs:
        self._homes[key] = slot
        self._homes.move_to_end(key)
      while len(self._homes) > self._cache_size:
        self._homes.popitem(last=False)
      return jobs

  def _drive(self, slot: int, boot: _Call) -> None:
    """Thread of one slot: boots its worker, then serves the queue."""
    workers: dict[bool, process.Process] = {}
    try:
      workers[False] = self._start(slot, False, attempt=slot == 0)
      if slot == 0:
        self.isolation = workers[False].greeting
        if failures := probe.lacking(self.isolation, self._require):
          raise RuntimeError(f"the sandbox is to hold {failures}")
      boot.finish(slot, ExecResult("ok"))
    except BaseException as error:
      boot.fail(error)
      return
    while jobs := self._take(slot):
      try:
        for heavy in (False, True):
          some = [job for job in jobs if _is_heavy(job[2]) == heavy]
          self._serve(slot, heavy, workers, some)
      except BaseException as error:
        for call, _, _ in jobs:
          call.fail(error)
    for worker in workers.values():
      worker.kill()

  def _start(
    self, slot: int, heavy: bool, attempt: bool = False
  ) -> process.Process:
    limits = self._limits
    options = {
      "heavy": heavy,
      "probe": attempt,
      "without": self._without,
      "memory_bytes": limits.memory_bytes,
      "output_bytes": limits.output_bytes,
      "cpu_seconds": math.ceil(limits.wall_seconds) + 1,
      "live": limits.live,
    }
    worker = process.Process("rstar_jax.sandbox.zygote", options, _FLAGS, _ENV)
    with self._lock:
      # While it booted; `close` knew nothing of it.
      closed = self._closed
      if not closed:
        self._live[2 * slot + heavy] = worker
    if closed:
      worker.kill()
      raise RuntimeError("the sandbox is closed")
    return worker

  def _restart(self, slot: int, heavy: bool) -> process.Process:
    """Starts a worker where others ran; waits for room on a full machine."""
    for attempt in range(_RESTARTS):
      try:
        return self._start(slot, heavy)
      except (OSError, RuntimeError):
        if self._closed:
          raise
        time.sleep(0.2 * attempt)
    return self._start(slot, heavy)

  def _serve(
    self, slot: int, heavy: bool, workers: dict, jobs: list[_Job]
  ) -> None:
    """Runs jobs on one worker, which is started and restarted as needed."""
    done = tries = 0
    while done < len(jobs):
      if self._closed:
        raise RuntimeError("the sandbox is closed")
      if heavy not in workers:
        workers[heavy] = self._restart(slot, heavy)
      worker = workers[heavy]
      begun = False
      # After such a death one at a time, to find out which program it is.
      end = done + 1 if tries else len(jobs)
      try:
        worker.send(["run", done, [job[2] for job in jobs[done:end]]])
        worker.receive(process.BOOT_SECONDS)
        begun = True
        while done < end:
          answer = self._answer(worker, done)
          # `close` kills the program first, and its worker may yet say so.
          if self._closed:
            raise RuntimeError("the sandbox is closed")
          _finish(jobs[done], answer)
          done, tries = done + 1, 0
      except (process.Gone, TimeoutError) as error:
        with self._lock:
          del self._live[2 * slot + heavy]
        worker.kill()
        del workers[heavy]
        tries += 1
        # A worker that died before it began need not be the program's doing.
        if (begun or tries >= _TRIES) and not self._closed:
          _finish(jobs[done], self._failure(error))
          done, tries = done + 1, 0

  def _answer(self, worker: process.Process, serial: int) -> ExecResult:
    """Returns a program's result; orders its death at the deadline.

    Raises:
      process.Gone: the worker ended.
      TimeoutError: it did not even do that.
    """
    seconds = self._limits.wall_seconds
    answer: object = "step"
    try:
      while answer == "step":  # One more of those before the last was executed.
        answer = worker.receive(seconds)
    except TimeoutError:
      worker.send(["kill", serial])
      while answer == "step":
        answer = worker.receive(_KILL_SECONDS)
    result = ExecResult(*answer)
    if result.status == "timeout" and not result.error:
      return self._failure(TimeoutError())
    return result

  def _failure(self, error: Exception) -> ExecResult:
    if isinstance(error, TimeoutError):
      seconds = self._limits.wall_seconds
      message = f"wall time limit of {seconds:g} s"
      return ExecResult("timeout", "", message, seconds=seconds)
    return ExecResult("crashed", "", "the worker process ended")


def _finish(job: _Job, result: ExecResult) -> None:
  call, index, _ = job
  call.finish(index, result)


def _is_heavy(steps: tuple[str, ...]) -> bool:
  """Says which worker is the faster one; the result is the same."""
  return any(name in step for step in steps for name in _HEAVY)
