"""Keeps the interpreters of executed prefixes alive, one process for each.

If the last step of a program succeeds, its process stays alive as a *snapshot*
of the interpreter after those steps. A program that is one step longer runs in
a fork of it, so that only the new step is executed. The number of snapshots is
limited: the least recently used one ends, and its steps are executed again when
they are needed. Together, snapshots hold no more memory than one program may.
No result depends on which snapshots are alive.

Some state does not survive a fork: timers, threads, open files (whose position
would be shared), shared memory. A process with such state does not become a
snapshot; it executes the rest of its program itself. A process that does not
fork when told to is killed, and the program is executed as a whole.

Runs inside a worker: standard library only.
"""

import _thread
import collections
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from rstar_jax.sandbox import children, program, wire
from rstar_jax.sandbox.isolation import confinement

# Deadline of a fork. A healthy process needs milliseconds; past it the
# program is executed as a whole, with the same result.
_FORK_SECONDS = 5.0
_FILES = 64
# Attempts to fork, over half a minute, before the worker gives up.
_PATIENCE = 50


class Snapshots:
  """Runs programs whose steps each compile alone.

  Args:
    watch: receives the messages of children.
    enter: called in a new child of the worker before its first step; confines
      the child and returns its interpreter.
    progress: called after each step before the last.
    limit: largest number of snapshots; taken as 0 on machines without
      `children.fork_sibling`.
    memory_bytes: memory limit of all snapshots together.
    cpu_seconds: CPU time limit of a step.
  """

  def __init__(
    self,
    watch: children.Watch,
    enter: Callable[[], program.Interpreter],
    progress: Callable[[], None],
    *,
    limit: int,
    memory_bytes: int,
    cpu_seconds: int,
  ):
    self._watch = watch
    self._enter = enter
    self._progress = progress
    self._limit = limit if children.can_fork_sibling() else 0
    self._memory_bytes = memory_bytes
    self._cpu_seconds = cpu_seconds
    self._live: collections.OrderedDict[tuple[str, ...], children.Child] = (
      collections.OrderedDict()
    )

  @property
  def pids(self) -> set[int]:
    """Pids of the snapshots."""
    return {child.pid for child in self._live.values()}

  def run(self, steps: list[str]) -> list:
    """Runs a program.

    Returns:
      [status, stdout, error, line, seconds] of the last step, or of an earlier
      one that failed.
    """
    key = tuple(steps)
    depth = next(
      n for n in range(len(key) - 1, -1, -1) if n == 0 or key[:n] in self._live
    )
    if depth == 0 and (len(key) == 1 or self._limit == 0):
      return self._finish(key, self._fork(), key)
    prefix = key[:depth]
    try:
      child = self._fork_of(prefix)
    except children.Lost:
      return self._as_a_whole(key)
    if depth < len(key) - 1:
      result, keep = self._execute(child, key[depth:-1], more=True)
      if result[0] != "ok":
        return self._ended(child, result)
      if not (keep and self._fits(child)):
        return self._finish(key, child, key[-1:])
      self._put(key[:-1], child)
      try:
        child = self._fork_of(key[:-1])
      except children.Lost:
        return self._as_a_whole(key)
    return self._finish(key, child, key[-1:])

  def clear(self) -> None:
    """Ends all snapshots."""
    while self._live:
      self._live.popitem()[1].end()

  def _finish(self, key, child, steps) -> list:
    """Executes the last steps of a program; may keep its process."""
    result, keep = self._execute(child, steps)
    if result[0] == "ok" and keep and self._limit and self._fits(child):
      self._put(key, child)
      return result
    return self._ended(child, result)

  def _as_a_whole(self, key: tuple[str, ...]) -> list:
    if self._watch.killed:
      return ["timeout", "", "", 0, 0.0]
    child = self._fork()
    result, _ = self._execute(child, key)
    return self._ended(child, result)

  def _execute(
    self, child: children.Child, steps: tuple[str, ...], more: bool = False
  ) -> tuple[list, bool]:
    """Has a child execute steps until one fails.

    Args:
      child: a process that has executed the steps before them.
      steps: the steps, in order.
      more: whether the program has steps after them.

    Returns:
      The result of the last executed step, and whether the process can be a
      snapshot. A status of None says that the process ended.
    """
    result, keep = [None], False
    try:
      child.cpu_seconds += self._cpu_seconds * len(steps)
      confinement.limit_cpu(child.pid, child.cpu_seconds)
      child.send(["run", steps])
      for index in range(len(steps)):
        answer = self._watch.next(child)
        if answer is None:
          return [None], False
        result, keep = checked(answer[:5]), bool(answer[5])
        if result[0] != "ok":
          break
        if more or index < len(steps) - 1:
          self._progress()
    except (OSError, children.Lost, TypeError, IndexError):
      return [None], False
    return result, keep

  def _ended(self, child: children.Child, result: list) -> list:
    status = child.end()
    return death(status, self._watch.killed) if result[0] is None else result

  def _fits(self, child: children.Child) -> bool:
    """Returns whether a child is small enough to stay alive."""
    more = children.memory_of(child.pid) - children.memory_of(os.getpid())
    child.memory_bytes = max(0, more)
    return more <= self._memory_bytes

  def _put(self, key: tuple[str, ...], child: children.Child) -> None:
    if key in self._live:  # Two programs of a request can be equal.
      self._live.pop(key).end()
    self._live[key] = child
    while len(self._live) > self._limit or self._memory() > self._memory_bytes:
      self._live.popitem(last=False)[1].end()

  def _memory(self) -> int:
    return sum(child.memory_bytes for child in self._live.values())

  def fork(self, action: Callable[[socket.socket], None]) -> children.Child:
    """Forks the worker itself; see `children.fork`.

    If no more processes can be started, ends the snapshots and retries.
    """
    for attempt in range(_PATIENCE):
      try:
        return children.fork(action)
      except OSError:
        self.clear()
        time.sleep(0.02 * attempt)
    return children.fork(action)

  def _fork(self) -> children.Child:
    return self.fork(lambda channel: live(channel, self._enter()))

  def _fork_of(self, key: tuple[str, ...]) -> children.Child:
    """Has a snapshot fork; if it does not, ends it and raises Lost."""
    if not key:
      return self._fork()
    parent = self._live[key]
    try:
      ours, theirs = children.pair()
    except OSError as error:  # No more descriptors.
      self.clear()
      raise children.Lost from error
    try:
      confinement.let_fork(parent.pid, True)
      with theirs:
        parent.send(["fork"])
        socket.send_fds(parent.channel, [b"."], [theirs.fileno()])
      pid = children.pid_of(ours, _FORK_SECONDS)
      confinement.let_fork(parent.pid, False)
      confinement.let_fork(pid, False)
    except (OSError, children.Lost) as error:
      ours.close()
      self._live.pop(key).end()
      raise children.Lost from error
    self._live.move_to_end(key)
    return children.Child(pid, ours)


def checked(answer: object) -> list:
  """Returns the report of a program's process, with its types checked.

  Raises:
    TypeError: if it is not a report.
  """
  try:
    status, stdout, error, line, seconds = answer
    return [str(status), str(stdout), str(error), int(line), float(seconds)]
  except (TypeError, ValueError, OverflowError):
    raise TypeError("not a report") from None


def death(status: int, killed: bool = False) -> list:
  """Returns the result of a program whose process ended without a report.

  Args:
    status: wait status of the process.
    killed: whether the host ordered to kill it.
  """
  line, seconds = 0, 0.0
  if killed:
    return ["timeout", "", "", line, seconds]
  if os.WIFEXITED(status) and os.WEXITSTATUS(status) == program.TOO_MUCH:
    return ["output_limit", "", program.OVER, line, seconds]
  if os.WIFEXITED(status) and os.WEXITSTATUS(status) == program.NO_MEMORY:
    return ["memory", "", "MemoryError", line, seconds]
  if not os.WIFSIGNALED(status):
    reason = f"exited with status {os.WEXITSTATUS(status)}"
    return ["crashed", "", reason, line, seconds]
  number = os.WTERMSIG(status)
  if number == signal.SIGXCPU:
    return ["timeout", "", "CPU time limit", line, seconds]
  return ["crashed", "", f"killed by signal {number}", line, seconds]


def live(channel: socket.socket, interpreter: program.Interpreter) -> None:
  """Serves requests in a child: to execute steps, or to fork."""
  worker = os.getppid()
  while (order := wire.receive(channel)) is not None:
    if order[0] == "fork":
      channel = _fork_here(channel, worker)
    else:
      _run(channel, interpreter, order[1])


def _run(channel, interpreter, steps: list[str]) -> None:
  for step in steps:
    start = time.perf_counter()
    code = compile(step, program.STEP, "exec", 0, True)
    result = interpreter.run(code)
    seconds = time.perf_counter() - start
    channel.sendall(wire.frame([*result, seconds, _is_forkable()]))
    if result[0] != "ok":
      return


def _fork_here(channel: socket.socket, worker: int) -> socket.socket:
  """Forks; returns this process's channel, in the child a new one."""
  _, descriptors, *_ = socket.recv_fds(channel, 1, 1)
  if children.fork_sibling() != 0:
    os.close(descriptors[0])
    return channel
  confinement.die_with_parent(worker)
  channel.detach()
  channel = children.settle(socket.socket(fileno=descriptors[0]))
  children.greet(channel)
  return channel


def _is_forkable() -> bool:
  """Returns whether this process has no state that a fork would lose."""
  timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
  if any(map(any, map(signal.getitimer, timers))) or _thread._count():
    return False
  if "mmap" in sys.modules or "_posixshmem" in sys.modules:
    return False  # May share memory.
  poller = select.poll()
  for descriptor in range(3, _FILES):
    if descriptor != children.CHANNEL:
      poller.register(descriptor, 0)
  # `poll` reports descriptors that are not open.
  return len(poller.poll(0)) == _FILES - 4
