"""Processes that a worker forks, and how it listens to them and to the host.

A child reports over a *channel*, a socket of its own; what it says is a
program's word and proves nothing. Its end is the kernel's word: every child is
the worker's own, those that another child forked too (`fork_sibling`).

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

# What a child's channel is moved to, so that a program that opens a file gets
# the number that it gets elsewhere.
CHANNEL = 60
_CLONE_PARENT = 0x8000
_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid.

if sys.platform == "linux" and _CLONE is not None:
  # PyDLL, since nothing may run beside a fork.
  _syscall = ctypes.PyDLL(None).syscall
  _syscall.argtypes = [ctypes.c_long] * 6
  _syscall.restype = ctypes.c_long
else:
  _syscall = None


class Lost(Exception):
  """A process did not do what it was ordered."""


class Child:
  """A forked process.

  Attributes:
    pid: of the process.
    channel: socket to it.
    cpu_seconds: that it has been given in all.
    memory_bytes: that it holds as a snapshot, beyond what the worker does.
  """

  def __init__(self, pid: int, channel: socket.socket):
    self.pid, self.channel = pid, channel
    self.cpu_seconds = self.memory_bytes = 0
    self._buffer = bytearray()

  def send(self, message: object) -> None:
    """Sends a message. Raises Lost."""
    try:
      self.channel.sendall(wire.frame(message))
    except OSError as error:
      raise Lost from error

  def take(self) -> object | None:
    """Returns a message that has arrived. Raises Lost if it is none."""
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
    """Reads what has arrived; returns False at the end, or past the limit."""
    try:
      piece = self.channel.recv(1 << 16)
    except OSError:
      return False
    self._buffer += piece
    return bool(piece) and len(self._buffer) < limit + (1 << 16)

  def end(self) -> int:
    """Kills the process, unless it has ended. Returns its wait status."""
    self.channel.close()
    # One that closed its channel and goes on would never end by itself.
    os.kill(self.pid, signal.SIGKILL)
    return os.waitpid(self.pid, 0)[1]


class Watch:
  """Listens to the host and to one child at a time.

  Args:
    host: socket to the host. It may order the death of the child whose program
      has number `serial`; the clock is the host's.
    limit: longest message of a child, in bytes.

  Attributes:
    serial: number of the program whose time runs.
    killed: whether the host has ordered its death.
  """

  def __init__(self, host: socket.socket, limit: int):
    self._host, self._limit = host, limit
    self.serial = 0
    self.killed = False

  def start(self, serial: int) -> None:
    """Says which program is next."""
    self.serial, self.killed = serial, False

  def next(self, child: Child) -> object | None:
    """Returns the next message of a child, or None at its end.

    Raises:
      Lost: what it sent is no message.
    """
    poller = select.poll()
    poller.register(child.channel, select.POLLIN)
    # Without PR_SET_PDEATHSIG its hang-up is how the host's end is noticed.
    poller.register(self._host, select.POLLIN | getattr(select, "POLLRDHUP", 0))
    while (message := child.take()) is None:
      ready = dict(poller.poll())
      if self._host.fileno() in ready:
        self._hear(child)
      if child.channel.fileno() in ready and not child.fill(self._limit):
        return None
    return message

  def request(self) -> list | None:
    """Returns the host's next request, None once it is gone."""
    while (message := wire.receive(self._host)) is not None:
      if message[0] != "kill":  # Which comes too late.
        return message
    return None

  def _hear(self, child: Child) -> None:
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
  # So that the kernel says whose greeting it is.
  if hasattr(socket, "SO_PASSCRED"):
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
  return ours, theirs


def fork(action: Callable[[socket.socket], None]) -> Child:
  """Runs `action(channel)` in a child, which ends with it.

  Raises:
    OSError: there can be no more processes.
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
  """In a child, moves its channel, and closes what else it inherited.

  But for what landlock needs, which is closed when it is put on.
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

  No hook that a program has registered runs, in the parent or in the child, as
  none would if the program had gone on in one process. For a process with one
  thread.
  """
  pid = _syscall(_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
  if pid < 0:
    raise OSError("clone failed")
  return pid


def greet(channel: socket.socket) -> None:
  """Sends a first byte, from which the kernel tells the worker our pid."""
  channel.sendall(b".")


def pid_of(channel: socket.socket, seconds: float) -> int:
  """Returns the pid of who greets, a child of this process. Raises Lost."""
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
  """Returns a process's memory that is no file's, in bytes; 0 if unknown."""
  try:
    with open(f"/proc/{pid}/statm") as file:
      _, resident, shared, *_ = map(int, file.read().split())
  except OSError:
    return 0
  return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def end_orphans(spared: set[int]) -> None:
  """Kills what a program left running, this process being its new parent.

  Args:
    spared: pids of children that are wanted.
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
    for pid in left:  # Its own children are ours after it.
      os.kill(pid, signal.SIGKILL)
      os.waitpid(pid, 0)
