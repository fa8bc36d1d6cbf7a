"""Forks the processes of a worker, stops them, and receives their messages.

A child reports over a *channel*, a socket of its own. A program may write
anything to it, so its messages are not trusted. The wait status is trusted,
since the kernel reports it: every child is the worker's own, even if another
child forked it (`fork_sibling`). A child dies with the worker.

Runs inside a worker: standard library only.
"""

import contextlib
import ctypes
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Collection
from typing import NoReturn

from rstar_jax.sandbox import program, wire
from rstar_jax.sandbox.isolation import confinement, kernel

# Descriptor of a child's channel: high, so that the files that a program opens
# get the usual numbers.
CHANNEL = 60
# Between looks whether a child has ended, on systems without pidfd.
_LOOK_MILLISECONDS = 100
# Rounds of `end_orphans` before it gives up.
_ROUNDS = 200
_CLONE_PARENT = 0x8000
_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid.

if sys.platform == "linux" and _CLONE is not None:
  # PyDLL holds the GIL: no other thread may run during a fork.
  _syscall = ctypes.PyDLL(None).syscall
  _syscall.argtypes = [ctypes.c_long] * 6
  _syscall.restype = ctypes.c_long
else:
  _syscall = None


class Lost(Exception):
  """A process that does not answer, or answers with no message."""


class Child:
  """A forked process.

  Attributes:
    channel: socket to the process.
    cpu_seconds: total CPU time granted to it so far.
    memory_bytes: memory that it holds as a snapshot beyond the worker's.
    is_new: whether it has executed nothing.
  """

  def __init__(self, pid: int, channel: socket.socket):
    self.pid, self.channel = pid, channel
    self.cpu_seconds = self.memory_bytes = 0
    self.is_new = False
    # The wait status of a process that has been reaped.
    self._status: int | None = None
    self._inbox = wire.Inbox()
    # Readable once the process has ended. End of file on the channel does not
    # say so: the process that forked this one may hold a copy of its end.
    try:
      self.pidfd = os.pidfd_open(pid)
    except (OSError, AttributeError):
      self.pidfd = -1

  def send(self, message: object) -> None:
    """Sends a message; raises OSError if the process has ended."""
    self.channel.sendall(wire.frame(message))

  def take(self) -> object | None:
    """Returns a complete message, or None; raises Lost if it is not JSON."""
    try:
      return self._inbox.take()
    except (ValueError, RecursionError) as error:
      raise Lost from error

  def fill(self, limit: int) -> bool:
    """Reads what has arrived.

    Returns:
      False at end of file or past `limit`, or if nothing has arrived.
    """
    try:
      piece = self.channel.recv(1 << 16, socket.MSG_DONTWAIT)
    except OSError:
      return False
    self._inbox.add(piece)
    return bool(piece) and len(self._inbox) < limit + (1 << 16)

  def has_ended(self) -> bool:
    """Returns whether the process has ended; what it sent may be unread."""
    if hasattr(os, "waitid"):
      flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
      return os.waitid(os.P_PID, self.pid, flags) is not None
    # macOS has it from Python 3.13 on.
    if self._status is None:
      pid, status = os.waitpid(self.pid, os.WNOHANG)
      self._status = status if pid else None
    return self._status is not None

  def kill(self) -> None:
    """Kills the process unless it has ended."""
    if self._status is None:  # Else the pid may be another's by now.
      os.kill(self.pid, signal.SIGKILL)

  def stop(self) -> None:
    """Stops the process.

    Until `resume` it executes nothing and takes no memory, whatever it was told
    to do and whatever it reported.
    """
    os.kill(self.pid, signal.SIGSTOP)

  def wait_until_stopped(self) -> None:
    """Waits for the effect of `stop`; raises Lost if the process has ended."""
    flags = os.WSTOPPED | os.WEXITED | os.WNOWAIT
    if os.waitid(os.P_PID, self.pid, flags).si_code != os.CLD_STOPPED:
      raise Lost

  def resume(self) -> None:
    """Lets a stopped process go on."""
    os.kill(self.pid, signal.SIGCONT)

  def end(self) -> int:
    """Kills the process unless it has ended, and returns its wait status."""
    self.channel.close()
    if self.pidfd >= 0:
      os.close(self.pidfd)
      self.pidfd = -1
    # A process that closed its channel and goes on would never end by itself.
    self.kill()
    if self._status is None:
      self._status = os.waitpid(self.pid, 0)[1]
    return self._status


class Watch:
  """Waits for messages from the host and from one child at a time.

  Args:
    host: socket to the host, which keeps the time and may order the worker to
      kill the child that runs program `serial`.
    limit: longest message of a child, in bytes.

  Attributes:
    serial: number of the running program.
    killed: whether the host has ordered its end.
  """

  def __init__(self, host: socket.socket, limit: int):
    self._host, self._limit = host, limit
    self.serial = 0
    self.killed = False

  def start(self, serial: int) -> None:
    """Sets the running program."""
    self.serial, self.killed = serial, False

  def next(self, child: Child) -> object | None:
    """Returns the next message of a child, or None once it has ended.

    Raises:
      Lost: if it sends something that is not a message.
    """
    poller = select.poll()
    poller.register(child.channel, select.POLLIN)
    if child.pidfd >= 0:
      poller.register(child.pidfd, select.POLLIN)
    # Without PR_SET_PDEATHSIG, only this hang-up tells that the host has ended.
    poller.register(self._host, select.POLLIN | getattr(select, "POLLRDHUP", 0))
    while (message := child.take()) is None:
      ready = dict(
        poller.poll(None if child.pidfd >= 0 else _LOOK_MILLISECONDS)
      )
      if self._host.fileno() in ready:
        self._obey_host(child)
      if child.channel.fileno() in ready or child.has_ended():
        if not child.fill(self._limit):
          return None
    return message

  def request(self) -> list | None:
    """Returns the host's next request, None once the host has ended."""
    while (message := wire.receive(self._host)) is not None:
      if message[0] != "kill":  # A late one: its program has ended.
        return message
    return None

  def _obey_host(self, child: Child) -> None:
    try:
      message = wire.receive(self._host)
    except OSError:
      message = None
    if message is None:
      child.kill()
      os._exit(0)
    if message == ["kill", self.serial]:
      self.killed = True
      child.kill()


def pair() -> tuple[socket.socket, socket.socket]:
  """Returns the worker's and the child's end of a channel."""
  ours, theirs = socket.socketpair()
  # The kernel then adds the sender's pid to a greeting.
  if hasattr(socket, "SO_PASSCRED"):
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
  return ours, theirs


class Born(BaseException):
  """Unwinds the stack of a new child, so that it finds no frame of the worker.

  Whatever calls `fork` must let it pass; the outermost function catches it and
  calls `live`.

  Args:
    action: called in the child with its channel.
    channel: descriptor of its channel.
    forgets: whether the child must find nothing of the programs that the worker
      knows.
  """

  def __init__(
    self,
    action: Callable[[socket.socket], None],
    channel: int,
    forgets: bool = True,
  ):
    super().__init__()
    self._action, self._channel = action, channel
    self.forgets = forgets

  def live(self) -> NoReturn:
    """Runs the action of the child, and exits."""
    try:
      self.__traceback__ = None
      # Held until the end: a child that closes its channel counts as ended.
      channel = settle(self._channel, open_null())
      self._action(channel)
    except MemoryError:
      os._exit(program.NO_MEMORY)
    finally:
      os._exit(0)


def fork(
  action: Callable[[socket.socket], None], forgets: bool = True
) -> Child:
  """Forks a child that runs `action(channel)` and exits; see `Born`.

  Raises:
    Born: in the child.
    OSError: if no more processes can be started.
  """
  ours, theirs = pair()
  worker = os.getpid()
  try:
    pid = os.fork()
  except OSError:
    ours.close()
    theirs.close()
    raise
  if pid == 0:
    confinement.die_with_parent(worker)
    ours.close()
    raise Born(action, theirs.detach(), forgets)
  theirs.close()
  return Child(pid, ours)


def open_null() -> int:
  """Returns a new descriptor of the null device.

  The copies of a descriptor share its flags, so each process opens its own.
  """
  return os.open(os.devnull, os.O_RDWR)


def settle(channel: int, null: int) -> socket.socket:
  """Sets the descriptors of this child and closes those that it inherited.

  The descriptor of landlock's rules stays open until they are applied.

  Args:
    channel: descriptor of its channel, which becomes CHANNEL.
    null: of the null device, which becomes 0, 1 and 2.
  """
  # Out of the way of the numbers that are assigned here.
  channel = fcntl.fcntl(channel, fcntl.F_DUPFD, kernel.RULESET + 1)
  null = fcntl.fcntl(null, fcntl.F_DUPFD, kernel.RULESET + 1)
  for number in range(3):
    os.dup2(null, number)
  os.dup2(channel, CHANNEL, inheritable=False)
  os.closerange(3, CHANNEL)
  os.closerange(CHANNEL + 1, kernel.RULESET)
  os.closerange(kernel.RULESET + 1, CHANNEL + 4096)
  return socket.socket(fileno=CHANNEL)


def can_fork_sibling() -> bool:
  """Says whether `fork_sibling` works on this kind of machine."""
  return _syscall is not None


def fork_sibling() -> int:
  """Forks a child of this process's parent; returns as `os.fork` does.

  Unlike `os.fork`, it runs no `os.register_at_fork` hooks of the program: the
  result has to be as if the program had continued in one process. It is safe
  only in a process of one thread.
  """
  pid = _syscall(_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
  if pid < 0:
    raise OSError("clone failed")
  return pid


def greet(channel: socket.socket) -> None:
  """Sends one byte; the kernel adds this process's pid for the worker."""
  channel.sendall(b".")


def pid_of(
  channel: socket.socket, seconds: float, known: Collection[int] = ()
) -> int:
  """Returns the pid of the new child that greets.

  Args:
    channel: the worker's end of the child's channel.
    seconds: most time to wait.
    known: pids of the children that are known; none of them is new.

  Raises:
    Lost: if no process greets, or one that is not a new child of this process.
  """
  channel.settimeout(seconds)
  try:
    space = socket.CMSG_SPACE(_CREDENTIALS.size)
    data, extra, *_ = channel.recvmsg(1, space)
    pid = _CREDENTIALS.unpack(extra[0][2])[0]
    if not data or pid in known:
      raise Lost
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
  except (OSError, IndexError, struct.error) as error:
    raise Lost from error
  channel.settimeout(None)
  return pid


def memory_of(pid: int) -> int:
  """Returns a process's anonymous resident memory in bytes; 0 if unknown."""
  try:
    with open(f"/proc/{pid}/statm") as file:
      _, resident, shared, *_ = map(int, file.read().split())
  except OSError:
    return 0
  return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def children_of(pid: int) -> list[int]:
  """Returns the pids of a process's children; none if unknown."""
  try:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
      return [int(each) for each in file.read().split()]
  except OSError:
    return []


def end_orphans(spared: Collection[int]) -> None:
  """Kills processes that a program left running, now children of this one.

  Ends this process if they fork faster than they can be killed: then the host
  kills all that is below it.

  Args:
    spared: pids of children to keep.
  """
  worker = os.getpid()
  for _ in range(_ROUNDS):
    left = [pid for pid in children_of(worker) if pid not in spared]
    if not left:
      return
    # They and all their descendants are stopped before one is killed: where the
    # number of processes is limited, a fork bomb would refill each place.
    stopped: set[int] = set()
    while new := _below(left) - stopped:
      for pid in new:
        _signal(pid, signal.SIGSTOP)
      stopped |= new
    for pid in stopped:
      _signal(pid, signal.SIGKILL)
    for pid in left:
      os.waitpid(pid, 0)
  os._exit(1)


def _below(pids: Collection[int]) -> set[int]:
  """Returns processes and all their descendants."""
  found, queue = set(pids), list(pids)
  while queue:
    new = set(children_of(queue.pop())) - found
    found |= new
    queue += new
  return found


def _signal(pid: int, number: int) -> None:
  with contextlib.suppress(ProcessLookupError):  # A grandchild may have ended.
    os.kill(pid, number)
