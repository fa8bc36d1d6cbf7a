"""Live interpreters of a worker: a forked process for each executed prefix.

A program's process stays when its last step went well, as a *snapshot* of the
interpreter after those steps. The program that is one step longer is run in a
fork of it, so that only the new step is executed. Snapshots are capped: what
was used longest ago ends, and its steps are executed anew when they are wanted
again. All together hold no more memory than one program may. No result depends
on what happens to be alive.

Some states do not survive a fork: timers, threads, open files (whose position
would be shared), shared memory. A process that has them is no snapshot; it
executes the rest of its program itself. A process that does not fork when it is
told to is dropped, and the program is executed as a whole.

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

# A healthy process forks in milliseconds; else the program is executed as a
# whole, with the same result.
_FORK_SECONDS = 5.0
_FILES = 64
# Attempts to fork, over half a minute, before the worker gives up.
_PATIENCE = 50


class Snapshots:
  """Runs programs whose steps each compile alone.

  Args:
    watch: over the children.
    enter: called in a child of the worker itself, before its first step;
      returns its interpreter.
    progress: called when a step before the last has been executed.
    limit: most snapshots; 0 where there are none on this kind of machine.
    memory_bytes: most memory of all snapshots together.
    cpu_seconds: of a step, at most.
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
    """Of the live processes."""
    return {child.pid for child in self._live.values()}

  def run(self, steps: list[str]) -> list:
    """Runs a program.

    Returns:
      [status, stdout, error, line, seconds] of its last step, or of an earlier
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
    """Ends all."""
    while self._live:
      self._live.popitem()[1].end()

  def _finish(self, key, child, steps) -> list:
    """Executes the last steps of a program, whose process may stay."""
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
    """Has a child execute steps.

    Args:
      child: that has executed those before them.
      steps: in order; until one fails.
      more: whether the program has steps after them.

    Returns:
      The result of the last that was executed, and whether the process is good
      as a snapshot. A status of None says that the process ended.
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
    """Says whether a child is small enough to stay."""
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

    Where there can be no more processes, it ends the snapshots, and waits a
    little for others to end.
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
    """Has a live process fork. Raises Lost, and drops it, if it does not."""
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
  """Returns what a program's process reported, if it looks like a report.

  Raises:
    TypeError: it does not.
  """
  try:
    status, stdout, error, line, seconds = answer
    return [str(status), str(stdout), str(error), int(line), float(seconds)]
  except (TypeError, ValueError, OverflowError):
    raise TypeError("no report") from None


def death(status: int, killed: bool = False) -> list:
  """Returns the result of a program whose process ended without a report.

  Args:
    status: wait status of the process.
    killed: whether the host ordered its end.
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
  """Serves orders in a child: to execute steps, and to fork."""
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
  """Forks; returns the channel that is this process's own."""
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
  """Says whether a fork of this process is as good as the process itself."""
  timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
  if any(map(any, map(signal.getitimer, timers))) or _thread._count():
    return False
  if "mmap" in sys.modules or "_posixshmem" in sys.modules:
    return False  # May share memory.
  poller = select.poll()
  for descriptor in range(3, _FILES):
    if descriptor != children.CHANNEL:
      poller.register(descriptor, 0)
  # Descriptors that are not open are reported as such.
  return len(poller.poll(0)) == _FILES - 4
