"""Forks the processes of a worker and receives their messages.

A child reports over a *channel*, a socket of its own. A program may write
anything to it, so its messages are not trusted; the wait status is, since the
kernel reports it: every child is the worker's own, also one that another child
forked (`fork_sibling`).

Runs inside a worker: standard library only.
"""

import ctypes
import json
import os
import platform
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable

from rstar_jax.sandbox import program, wire
from rstar_jax.sandbox.isolation import kernel

# Descriptor of a child's channel: high, so that the files that a program opens
# get the usual numbers.
CHANNEL = 60
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
  """A process does not answer, or its answer is not a message."""


class Child:
  """A forked process.

  Attributes:
    channel: socket to the process.
    cpu_seconds: total CPU time granted to it so far.
    memory_bytes: memory that it holds as a snapshot beyond the worker's.
  """

  def __init__(self, pid: int, channel: socket.socket):
    self.pid, self.channel = pid, channel
    self.cpu_seconds = self.memory_bytes = 0
    self._buffer = bytearray()

  def send(self, message: object) -> None:
    """Sends a message; raises Lost if the process ended."""
    try:
      self.channel.sendall(wire.frame(message))
    except OSError as error:
      raise Lost from error

  def take(self) -> object | None:
    """Returns a complete message, or None; raises Lost if it is not JSON."""
    if len(self._buffer) < 4:
      return None
    end = 4 + struct.unpack_from(">I", self._buffer)[0]
    if len(self._buffer) < end:
      return None
    try:
      message = json.loads(self._buffer[4:end])
    except (ValueError, RecursionError) as error:
      raise Lost from error
    del self._buffer[:end]
    return message

  def fill(self, limit: int) -> bool:
    """Reads what has arrived; returns False at end of file or past `limit`."""
    try:
      piece = self.channel.recv(1 << 16)
    except OSError:
      return False
    self._buffer += piece
    return bool(piece) and len(self._buffer) < limit + (1 << 16)

  def end(self) -> int:
    """Kills the process unless it has ended, and returns its wait status."""
    self.channel.close()
    # A process that closed its channel and goes on would never end by itself.
    os.kill(self.pid, signal.SIGKILL)
    return os.waitpid(self.pid, 0)[1]


class Watch:
  """Waits for messages of the host and of one child at a time.

  Args:
    host: socket to the host, which keeps the time and may order to kill the
      child that runs program `serial`.
    limit: longest message of a child, in bytes.

  Attributes:
    serial: number of the running program.
    killed: whether the host has ordered to kill it.
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
    # Without PR_SET_PDEATHSIG, this hang-up is the only sign of the host's end.
    poller.register(self._host, select.POLLIN | getattr(select, "POLLRDHUP", 0))
    while (message := child.take()) is None:
      ready = dict(poller.poll())
      if self._host.fileno() in ready:
        self._obey_host(child)
      if child.channel.fileno() in ready and not child.fill(self._limit):
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
      os.kill(child.pid, signal.SIGKILL)
      os._exit(0)
    if message == ["kill", self.serial]:
      self.killed = True
      os.kill(child.pid, signal.SIGKILL)


def pair() -> tuple[socket.socket, socket.socket]:
  """Returns the worker's and the child's end of a channel."""
  ours, theirs = socket.socketpair()
  # The kernel then adds the sender's pid to a greeting.
  if hasattr(socket, "SO_PASSCRED"):
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
  return ours, theirs


def fork(action: Callable[[socket.socket], None]) -> Child:
  """Runs `action(channel)` in a child, which exits afterwards.

  Raises:
    OSError: if no more processes can be started.
  """
  ours, theirs = pair()
  try:
    pid = os.fork()
  except OSError:
    ours.close()
    theirs.close()
    raise
  if pid == 0:
    try:
      channel = settle(theirs)
      action(channel)
    except MemoryError:
      os._exit(program.NO_MEMORY)
    finally:
      os._exit(0)
  theirs.close()
  return Child(pid, ours)


def settle(channel: socket.socket) -> socket.socket:
  """In a child, moves its channel to CHANNEL and closes inherited descriptors.

  The descriptor of landlock's rules stays open until they are applied.
  """
  os.dup2(channel.detach(), CHANNEL)
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
  result must be as if the program had gone on in one process. Safe only with a
  single thread.
  """
  pid = _syscall(_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
  if pid < 0:
    raise OSError("clone failed")
  return pid


def greet(channel: socket.socket) -> None:
  """Sends one byte; the kernel adds this process's pid for the worker."""
  channel.sendall(b".")


def pid_of(channel: socket.socket, seconds: float) -> int:
  """Returns the pid of the child that greets; raises Lost if none does."""
  channel.settimeout(seconds)
  try:
    space = socket.CMSG_SPACE(_CREDENTIALS.size)
    data, extra, *_ = channel.recvmsg(1, space)
    if not data:
      raise Lost
    pid = _CREDENTIALS.unpack(extra[0][2])[0]
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


def end_orphans(spared: set[int]) -> None:
  """Kills processes that a program left running, now children of this one.

  Args:
    spared: pids of children to keep.
  """
  path = f"/proc/self/task/{os.getpid()}/children"
  while True:
    try:
      with open(path) as file:
        left = {int(pid) for pid in file.read().split()} - spared
    except OSError:
      return
    if not left:
      return
    for pid in left:  # Its own children become ours, hence the loop.
      os.kill(pid, signal.SIGKILL)
      os.waitpid(pid, 0)
