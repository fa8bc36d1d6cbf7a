"""Runs programs; keeps the interpreters of executed prefixes alive.

If the last step of a program succeeds, its process stays alive as a *snapshot*
of the interpreter after those steps. A program that is one step longer runs in
a fork of it, so that only the new step is executed. The number of snapshots is
limited: the least recently used one ends, and its steps are executed again when
they are needed. Together, snapshots hold no more memory than one program may.
No result depends on which snapshots are alive, unless it shows pids, times, or
what derives from addresses: `id`, and the order of a set of objects that are
hashed by it. Addresses that are printed are left out (`program.py`).

A snapshot may be hostile. It is stopped (SIGSTOP) except for the moment in
which it forks, so that a process that reports its end too early neither
computes nor grows. Its memory is measured while it is stopped, and whatever
else it has forked is killed. A process that does not fork when told to is
killed, and the program is executed as a whole.

Some state does not survive a fork: timers, threads, open files (whose position
would be shared). A process with such state (`program_process.py`) does not
become a snapshot; it executes the rest of its program itself. Memory cannot be
shared (`seccomp.py`).

Runs inside a worker: standard library only.
"""

import collections
import functools
import os
import signal
import socket
import time
from collections.abc import Callable

from rstar_jax.sandbox import children, program
from rstar_jax.sandbox.isolation import confinement
from rstar_jax.sandbox.program import Report
from rstar_jax.sandbox.program_process import live

# Deadline of a fork. A healthy process needs milliseconds; past it the
# program is executed as a whole, with the same result.
_FORK_SECONDS = 5.0
# Attempts to fork, over half a minute, before the worker gives up.
_PATIENCE = 50
# How often a program that SIGKILL ends is run. A program cannot send a signal;
# the kernel sends this one when it is short of memory.
_TRIES = 3
# What a program's process may report; other statuses are the worker's and the
# host's verdicts.
_STATUSES = ("ok", "error", "blocked", "memory", "output_limit")
_LONGEST_LINE = 2000
_DEATH = "killed by signal {}"
_KILLED = _DEATH.format(int(signal.SIGKILL))
_INVALID = Report("crashed", error="sent no valid report")
# In the place of the report of a process that has ended.
_ENDED = Report("ended")


class Snapshots:
  """Runs programs whose steps each compile alone.

  Args:
    watch: receives the messages of children.
    enter: called in a new child of the worker before its first step; confines
      the child and returns its interpreter. Refers to nothing of the worker.
    tell: sends the host "step" when a step and its time begin, and "fork" when
      a step has ended and a fork begins.
    limit: largest number of snapshots; taken as 0 on machines without
      `children.fork_sibling`, and where /proc does not say how large they are.
    memory_bytes: memory limit of all snapshots together.
    cpu_seconds: CPU time limit of a step.
    output_bytes: output limit of a step.
  """

  def __init__(
    self,
    watch: children.Watch,
    enter: Callable[[], program.Interpreter],
    tell: Callable[[str], None],
    *,
    limit: int,
    memory_bytes: int,
    cpu_seconds: int,
    output_bytes: int,
  ):
    self._watch = watch
    self._enter = enter
    self._tell = tell
    self._own_bytes = children.memory_of(os.getpid())
    known = children.can_fork_sibling() and self._own_bytes > 0
    self._limit = limit if known else 0
    self._memory_bytes = memory_bytes
    self._cpu_seconds = cpu_seconds
    self._output_bytes = output_bytes
    self._live: collections.OrderedDict[tuple[str, ...], children.Child] = (
      collections.OrderedDict()
    )
    # Keys of those that were told to stop and have not been measured since.
    self._stopping: list[tuple[str, ...]] = []
    # A process that has executed nothing, for the next program.
    self._spare: children.Child | None = None

  @property
  def pids(self) -> set[int]:
    """Pids of the snapshots."""
    return {child.pid for child in self._live.values()}

  def run(self, steps: list[str]) -> Report | None:
    """Runs a program.

    Returns:
      The report of the last step, or of an earlier one that failed; None if the
      steps do not each compile alone.
    """
    return again(lambda: (self._run(tuple(steps)),))[0]

  def _run(self, key: tuple[str, ...]) -> Report | None:
    depth = next(
      n for n in range(len(key) - 1, -1, -1) if n == 0 or key[:n] in self._live
    )
    if depth == 0 and (len(key) == 1 or self._limit == 0):
      return self._finish(key, self._fork(), key)
    try:
      child = self._fork_of(key[:depth])
      if depth < len(key) - 1:
        report, keep = self._execute(child, key[depth:-1], after=key[-1])
        if report is None or report.status != "ok":
          return self._end(child, report)
        if not keep:
          return self._finish(key, child, key[-1:])
        self._put(key[:-1], child)
        self.settle()
        if key[:-1] not in self._live:
          raise children.Lost
        self._tell("fork")
        child = self._fork_of(key[:-1])
    except children.Lost:
      child = self._fork()
      report, _ = self._execute(child, key)
      return self._end(child, report)
    return self._finish(key, child, key[-1:])

  def clear(self) -> None:
    """Ends all snapshots."""
    if self._spare:
      self._spare.end()
      self._spare = None
    while self._live:
      self._live.popitem()[1].end()

  def run_whole(self, steps: list[str]) -> Report:
    """Runs a program whose steps do not each compile alone.

    The output of the longest proper prefix that compiles is removed from the
    front of the program's.

    Returns:
      The report of the last step; of that prefix if it does not end by itself.
    """
    report, before = again(lambda: self._whole(steps))
    stdout = report.stdout
    if before and stdout:
      self._tell("fork")
      prefix, _ = again(lambda: self._whole(["\n".join(steps[:before])]))
      if prefix.status not in ("ok", "error"):
        # What it would have printed is not known.
        return prefix._replace(stdout="", line=0)
      stdout = stdout.removeprefix(prefix.stdout)
    above = "\n".join(steps[:-1]).count("\n") + 1 if len(steps) > 1 else 0
    return report._replace(stdout=stdout, line=max(0, report.line - above))

  def _whole(self, steps: list[str]) -> tuple[Report, int]:
    """Returns the report of steps that run as one, and the prefix's length."""
    child, before = self._fork(), 0
    report = None
    try:
      confinement.limit_cpu(child.pid, self._cpu_seconds)
      self._tell("step")
      child.send(["whole", steps])
      answer = self._watch.next(child)
      if isinstance(answer, list) and answer[:1] == ["before"]:
        before = min(int(answer[1]), len(steps) - 1)
        answer = self._watch.next(child)
      report = answer and self.checked(answer)[0]
    except OSError:
      pass
    except Exception:  # Whatever a program sends must not end the worker.
      report = _INVALID
    status = child.end()
    return report or death(status, self._watch.killed), before

  def _finish(
    self, key: tuple[str, ...], child: children.Child, steps: tuple[str, ...]
  ) -> Report | None:
    """Executes the last steps of a program; may keep its process."""
    report, keep = self._execute(child, steps)
    if report and report.status == "ok" and keep and self._limit:
      self._put(key, child)
      return report
    return self._end(child, report)

  def _execute(
    self, child: children.Child, steps: tuple[str, ...], after: str = ""
  ) -> tuple[Report | None, bool]:
    """Has a child execute steps until one fails.

    Args:
      child: a process that has executed the steps before them.
      steps: the steps, in order.
      after: the program's next step, which must compile, too.

    Returns:
      The report of the last executed step, None if a step does not compile
      alone, `_ENDED` if the process has ended; and whether the process can be a
      snapshot.
    """
    report, keep = _ENDED, False
    try:
      child.cpu_seconds += self._cpu_seconds * len(steps)
      confinement.limit_cpu(child.pid, child.cpu_seconds)
      self._tell("step")
      child.send(["run", steps, after])
      for index in range(len(steps)):
        answer = self._watch.next(child)
        if answer == "whole" and index == 0:
          return None, False
        child.is_new = False
        if answer is None:
          return _ENDED, False
        report, keep = self.checked(answer)
        if report.status != "ok":
          break
        if index < len(steps) - 1:
          self._tell("step")
    except (TypeError, children.Lost):
      return _INVALID, False
    except OSError:
      return _ENDED, False
    return report, keep

  def _end(self, child: children.Child, report: Report | None) -> Report | None:
    """Ends a child; returns its report, or how it ended before."""
    if report is None and child.is_new:
      self._spare = child  # The program runs as one there.
      return None
    status = child.end()
    return death(status, self._watch.killed) if report is _ENDED else report

  def _put(self, key: tuple[str, ...], child: children.Child) -> None:
    if key in self._live:  # Two programs of a request can be equal.
      self._live.pop(key).end()
    self._live[key] = child
    self._stop(key)

  def _stop(self, key: tuple[str, ...]) -> None:
    self._live[key].stop()
    self._stopping.append(key)

  def settle(self) -> None:
    """Waits until stopped processes stand still, and applies the limits.

    Ends snapshots that are too large or have children of their own, then those
    that were used least recently.
    """
    while self._stopping:
      if (child := self._live.get(key := self._stopping.pop())) is None:
        continue
      try:
        child.wait_until_stopped()
        more = children.memory_of(child.pid) - self._own_bytes
        child.memory_bytes = max(0, more)
        fits = more <= self._memory_bytes
      except children.Lost:
        fits = False
      if not fits or children.children_of(child.pid):
        self._live.pop(key).end()
    while len(self._live) > self._limit or self._memory() > self._memory_bytes:
      self._live.popitem(last=False)[1].end()

  def _memory(self) -> int:
    return sum(child.memory_bytes for child in self._live.values())

  def fork(
    self, action: Callable[[socket.socket], None], forgets: bool = True
  ) -> children.Child:
    """Forks the worker itself; see `children.fork`.

    If no more processes can be started, ends the snapshots and retries.
    """
    for attempt in range(_PATIENCE):
      try:
        return children.fork(action, forgets)
      except OSError:
        self.clear()
        children.end_orphans(())
        time.sleep(0.02 * attempt)
    return children.fork(action, forgets)

  def _fork(self) -> children.Child:
    if self._spare:
      child, self._spare = self._spare, None
      return child
    child = self.fork(functools.partial(live, enter=self._enter))
    child.is_new = True
    return child

  def _fork_of(self, key: tuple[str, ...]) -> children.Child:
    """Has a snapshot fork; if it does not, ends it and raises Lost."""
    if not key:
      return self._fork()
    parent, known = self._live[key], self.pids
    try:
      ours, theirs = children.pair()
      null = children.open_null()
    except OSError as error:  # No more descriptors.
      self.clear()
      raise children.Lost from error
    try:
      confinement.let_fork(parent.pid, True)
      parent.resume()
      try:
        parent.send(["fork"])
        descriptors = [theirs.fileno(), null]
        socket.send_fds(parent.channel, [b"."], descriptors)
      finally:
        theirs.close()
        os.close(null)
      pid = children.pid_of(ours, _FORK_SECONDS, known)
      self._stop(key)
      confinement.let_fork(pid, False)
    except (OSError, children.Lost) as error:
      ours.close()
      self._live.pop(key).end()
      # Its own forks would take time from the program that runs next.
      children.end_orphans(self.pids)
      raise children.Lost from error
    self._live.move_to_end(key)
    return children.Child(pid, ours)

  def checked(self, answer: object) -> tuple[Report, bool]:
    """Checks what a program's process has sent.

    Returns:
      The report, and whether the process can go on.

    Raises:
      TypeError: if it is not a report that an honest process sends.
    """
    try:
      status, stdout, error, line, seconds, more = answer
      honest = (
        status in _STATUSES
        and len(stdout) <= self._output_bytes
        and len(error) <= _LONGEST_LINE
        and 0 <= line < 1 << 31
        and 0 <= seconds < 1 << 31
      )
      # A lone surrogate fails, and what is no text.
      stdout.encode(), error.encode()
      if honest:
        report = Report(status, stdout, error, int(line), float(seconds))
        return report, more is True
    except Exception as failure:
      raise TypeError("not a report") from failure
    raise TypeError("not a report")


def again(run: Callable[[], tuple]) -> tuple:
  """Returns what a run of a program returns; repeats it if SIGKILL ended it.

  Args:
    run: runs the program once; its first result is the report, or None.
  """
  for _ in range(_TRIES - 1):
    found = run()
    if found[0] is None or not was_killed(found[0]):
      return found
  return run()


def was_killed(report: Report) -> bool:
  """Returns whether neither the program nor a limit ended its process."""
  return report.error == _KILLED


def death(status: int, killed: bool = False) -> Report:
  """Returns the report of a program whose process ended without one.

  Args:
    status: wait status of the process.
    killed: whether the host ordered to kill it.
  """
  if killed:
    return Report("timeout")
  if os.WIFEXITED(status) and os.WEXITSTATUS(status) == program.TOO_MUCH:
    return Report("output_limit", error=program.OVER)
  if os.WIFEXITED(status) and os.WEXITSTATUS(status) == program.NO_MEMORY:
    return Report("memory", error="MemoryError")
  if not os.WIFSIGNALED(status):
    reason = f"exited with status {os.WEXITSTATUS(status)}"
    return Report("crashed", error=reason)
  number = os.WTERMSIG(status)
  if number == signal.SIGXCPU:
    return Report("timeout", error="CPU time limit")
  return Report("crashed", error=_DEATH.format(number))
