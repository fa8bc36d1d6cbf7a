"""Runs programs written by a model, many at once, each in its own process.

The sandbox keeps programs apart and contains endless loops, memory use, floods
of output, interpreter crashes, orphaned processes, and the usual ways to the
network, to files and to other processes. The audit hook alone is not a boundary
against hostile code; `Sandbox.isolation` says which layer enforces what on this
machine.

Each of `workers` slots is a thread that drives a worker process (`zygote.py`).
A program is queued at the slot that ran its prefix (`backlog.py`), where the
interpreter may still be alive (`snapshots.py`). The deadline of a step is
enforced by SIGKILL: the worker kills the program; if the worker does not
answer, the host kills the worker, and a new one runs the remaining programs.
"""

import atexit
import dataclasses
import math
import os
import threading
import time
from collections.abc import Sequence

from rstar_jax.sandbox import process
from rstar_jax.sandbox.backlog import Backlog, Call, Job
from rstar_jax.sandbox.isolation import landlock, probe
from rstar_jax.sandbox.recent import Recent
from rstar_jax.types import ExecResult

_RESTARTS = 15  # Retries of a failed start, over some twenty seconds.
_TRIES = 3  # Workers that end while they run a program before it is blamed.
_CACHE = 65536
_CACHED_OUTPUT = 4096  # Characters of an output that is cached.
# Time that a worker has to kill a program and report it, and to fork while the
# machine has no room for another process.
_KILL_SECONDS, _FORK_SECONDS = 10.0, 60.0
# -P -s -B are the parts of -I that leave PYTHONHASHSEED in force.
_FLAGS = ("-P", "-s", "-B")
# Programs that mention one of these run in a worker that has imported numpy and
# sympy, and seeded their generators. Its forks take milliseconds longer; an
# import in each fork would take hundreds.
_HEAVY = (
  *("sympy", "numpy"),
  # These import numpy.
  *("scipy", "pandas", "networkx", "sklearn", "statsmodels", "matplotlib"),
)


@dataclasses.dataclass(frozen=True)
class Limits:
  """Resource limits of one program.

  Attributes:
    wall_seconds: wall time of a step, or of the whole program if it is pure
      arithmetic or its steps do not compile alone; CPU time is limited to about
      a second more.
    memory_bytes: address space.
    output_bytes: longest output of a step.
    live: most interpreters that each worker keeps alive, for the prefixes that
      it ran last; some megabytes each.
  """

  wall_seconds: float = 5.0
  memory_bytes: int = 1 << 30
  output_bytes: int = 65536
  live: int = 32


class Sandbox:
  """Runs programs in parallel, isolated and deterministically.

  Args:
    workers: number of worker processes, at least 1.
    limits: resource limits of one program.
    cache: number of finished programs whose results are cached.
    require: what a boundary has to enforce, names of `probe.REQUIRABLE` such as
      "net", "read" and "write".
    without: layers to leave out, names of `confinement.LAYERS`.

  Attributes:
    isolation: the layers that enforce "net", "read", "write", "exec", "fork",
      "kill" and so on, each tried at start-up; and "degraded", a list of what
      no boundary enforces; see `probe.probe`. The list is logged as a warning,
      once in a process, unless `without` asks for it.

  Raises:
    RuntimeError: if a worker process cannot be started, or something required
      cannot be enforced.
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
    self._results: Recent[tuple[str, ...], ExecResult] = Recent(cache)
    self._backlog = Backlog(workers, cache)
    self._lock = threading.Lock()
    self._waiting = threading.Condition(self._lock)
    self._live: dict[int, process.Process] = {}
    self._closed = False
    # When the interpreter is finalised, threads can no longer be joined.
    atexit.register(self._close_at_exit, os.getpid())
    boot = Call(workers)
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

  def _close_at_exit(self, pid: int) -> None:
    if os.getpid() == pid:  # The workers of a fork are its parent's.
      self.close()

  def close(self) -> None:
    """Kills the workers; programs still waiting fail with RuntimeError."""
    atexit.unregister(self._close_at_exit)
    with self._lock:
      self._closed = True
      workers = list(self._live.values())
      self._waiting.notify_all()
    for worker in workers:
      worker.kill_tree()
    for thread in self._threads:
      thread.join()
    self._backlog.fail(RuntimeError("the sandbox is closed"))

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
      The result of the LAST step of each program, in order; the result of an
      earlier step if that one fails.

    Raises:
      TypeError: a program is one text instead of steps.
      RuntimeError: if the sandbox is closed, or no worker can be started.
    """
    keys = [_key(steps) for steps in programs]
    found: dict[tuple[str, ...], ExecResult] = {}
    with self._lock:
      if self._closed:
        raise RuntimeError("the sandbox is closed")
      for key in keys:
        if key not in found and key in self._results:
          found[key] = self._results[key]
      fresh = [key for key in dict.fromkeys(keys) if key not in found]
      call = Call(len(fresh))
      for index, key in enumerate(fresh):
        self._backlog.add(Job(call, index, key))
      self._waiting.notify(len(self._threads))
    if fresh:
      try:
        call.done.wait()
      except BaseException:  # Ctrl-C: drop the jobs of this call.
        with self._lock:
          self._backlog.drop(call)
        raise
      if call.error:
        raise call.error
      found.update(zip(fresh, call.results, strict=True))
      self._remember(fresh, call.results)
    return [found[key] for key in keys]

  def _remember(self, keys: list, results: list) -> None:
    """Caches results that are the same whenever the program runs."""
    with self._lock:
      for key, result in zip(keys, results, strict=True):
        if (
          result.status in ("ok", "error")
          and len(result.stdout) <= _CACHED_OUTPUT
        ):
          self._results[key] = result

  def _take(self, slot: int) -> list[Job]:
    """Waits for jobs and returns some, [] once the sandbox is closed."""
    with self._waiting:
      while not self._backlog and not self._closed:
        self._waiting.wait()
      return [] if self._closed else self._backlog.take(slot)

  def _drive(self, slot: int, boot: Call) -> None:
    """Runs the thread of one slot: boots its worker, then serves the queue."""
    workers: dict[bool, process.Process] = {}
    try:
      workers[False] = self._start(slot, False, attempt=slot == 0)
      if slot == 0:
        self.isolation = workers[False].greeting
        if failures := probe.lacking(self.isolation, self._require):
          raise RuntimeError(
            "sandbox.require asks for what this machine cannot enforce: "
            f"{'; '.join(failures)}"
          )
        if (lines := self.isolation["degraded"]) and not self._without:
          process.warn(
            f"the sandbox is degraded on this machine: {'; '.join(lines)}. "
            "docs/security.md says what that means and what helps; with these "
            "names in sandbox.require a run refuses to start"
          )
      boot.finish(slot, ExecResult("ok"))
    except BaseException as error:
      self._end(slot, workers)
      boot.fail(error)
      return
    while jobs := self._take(slot):
      try:
        for heavy in (False, True):
          some = [job for job in jobs if _is_heavy(job.steps) == heavy]
          self._serve(slot, heavy, workers, some)
      except BaseException as error:
        # Answers that are not read would go to the programs that run next.
        self._end(slot, workers)
        for job in jobs:
          job.call.fail(error)
    self._end(slot, workers)

  def _end(self, slot: int, workers: dict[bool, process.Process]) -> None:
    """Kills and forgets workers of a slot, which start again when needed."""
    while workers:
      heavy, worker = workers.popitem()
      with self._lock:
        self._live.pop(2 * slot + heavy, None)
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
    path = process.path_of(landlock.PACKAGES)
    worker = process.Process(
      "rstar_jax.sandbox.zygote", options, _FLAGS, process.ENV, path
    )
    if failures := worker.greeting.get("imports"):
      process.warn(
        f"programs cannot import {'; '.join(failures)}: those that do will "
        "fail. Install it again beside this package"
      )
    with self._lock:
      # `close` may have run while the worker booted.
      closed = self._closed
      if not closed:
        self._live[2 * slot + heavy] = worker
    if closed:
      worker.kill()
      raise RuntimeError("the sandbox is closed")
    return worker

  def _restart(self, slot: int, heavy: bool) -> process.Process:
    """Starts a new worker; retries while the machine has no room for it."""
    for attempt in range(_RESTARTS):
      try:
        return self._start(slot, heavy)
      except (OSError, RuntimeError):
        if self._closed:
          raise
        time.sleep(0.2 * attempt)
    return self._start(slot, heavy)

  def _serve(
    self, slot: int, heavy: bool, workers: dict, jobs: list[Job]
  ) -> None:
    """Runs jobs on one worker and (re)starts it as needed."""
    done = tries = 0
    while done < len(jobs):
      if self._closed:
        raise RuntimeError("the sandbox is closed")
      if heavy not in workers:
        workers[heavy] = self._restart(slot, heavy)
      worker = workers[heavy]
      # After the end of a worker, one program at a time in a new worker: the
      # program that ran may not be the cause.
      end = done + 1 if tries else len(jobs)
      try:
        worker.send(["run", done, [job.steps for job in jobs[done:end]]])
        while done < end:
          answer = self._answer(worker, done)
          # `close` kills programs first, whose workers may still report that.
          if self._closed:
            raise RuntimeError("the sandbox is closed")
          jobs[done].finish(answer)
          done, tries = done + 1, 0
      except (process.Gone, TimeoutError) as error:
        self._end(slot, {heavy: workers.pop(heavy)})
        tries += 1
        if tries >= _TRIES and not self._closed:
          jobs[done].finish(self._failure(error))
          done, tries = done + 1, 0

  def _answer(self, worker: process.Process, serial: int) -> ExecResult:
    """Returns a program's result; has it killed at the deadline.

    Raises:
      process.Gone: if the worker ended.
      TimeoutError: if the worker does not answer.
    """
    # Time counts as the program's only while a step runs.
    seconds = {"step": self._limits.wall_seconds, "fork": _FORK_SECONDS}
    answer: object = "fork"
    try:
      while isinstance(answer, str):
        began = answer
        answer = worker.receive(seconds[answer])
    except TimeoutError:
      if began == "fork":
        raise
      worker.send(["kill", serial])
      while isinstance(answer, str):
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


def _key(steps: Sequence[str]) -> tuple[str, ...]:
  if isinstance(steps, str):  # Its letters would be its steps.
    raise TypeError(
      "a program is a list of steps: give [['x = 1', 'print(x)']], or "
      "[[text]] for one text"
    )
  return tuple(steps)


def _is_heavy(steps: tuple[str, ...]) -> bool:
  """Returns whether to use the worker with heavy modules.

  Only random numbers of numpy depend on it: there they are seeded.
  """
  return any(name in step for step in steps for name in _HEAVY)
