"""Answers questions about untrusted text in forks that can be killed.

For a worker that runs only our code and libraries, which parse text that a
model wrote: some libraries evaluate it, some never end. The worker imports what
is needed; its fork answers, under the sandbox's limits and layers. If it takes
too long, it is killed; the next fork is ready within milliseconds.

Runs inside a worker: standard library only.
"""

import os
import signal
import socket
from collections.abc import Callable, Sequence

from rstar_jax.sandbox import wire
from rstar_jax.sandbox.isolation import confinement

_LONGEST = 65536  # Bytes of an answer.


class Fork:
  """A child process that answers questions.

  It has no open descriptor but its socket and the null device.

  Args:
    act: returns the answer to a question, in the child.
    packages: importable names of packages that it may still import.
    memory_bytes: its address space.
    seconds: time for an answer.

  Attributes:
    pid: pid of the child.
  """

  def __init__(
    self,
    act: Callable[[object], object],
    packages: Sequence[str],
    memory_bytes: int,
    seconds: float,
  ):
    self._seconds = seconds
    self._socket, theirs = socket.socketpair()
    parent = os.getpid()
    self.pid = os.fork()
    if self.pid == 0:
      try:
        confinement.die_with_parent(parent)
        _close_all_but(theirs.fileno())
        confinement.limit_worker(memory_bytes)
        notes = confinement.confine_service(packages)
        confinement.refuse_spawn()
        while (question := wire.receive(theirs)) is not None:
          found = act(*question) if question else notes
          theirs.sendall(wire.frame(found))
      finally:
        os._exit(1)
    theirs.close()

  def ask(self, question: object) -> object | None:
    """Returns the answer; None if the child ended or sent what is no message.

    Raises:
      TimeoutError: it did not answer in time.
    """
    return self._ask([question])

  def missing(self) -> list[str]:
    """Returns a line for each layer that the child lacks, and why.

    Raises:
      TimeoutError: it did not answer in time.
    """
    notes = self._ask([]) or {}
    return [f"{name} ({why})" for name, why in notes.items() if why]

  def _ask(self, question: list) -> object | None:
    try:
      self._socket.settimeout(self._seconds)
      self._socket.sendall(wire.frame(question))
      return wire.receive_within(
        self._socket, wire.Inbox(), self._seconds, _LONGEST
      )
    except TimeoutError:
      raise
    except (OSError, ValueError, RecursionError):
      return None

  def end(self) -> None:
    """Kills and reaps the child."""
    os.kill(self.pid, signal.SIGKILL)
    os.waitpid(self.pid, 0)
    self._socket.close()


def _close_all_but(descriptor: int) -> None:
  null = os.open(os.devnull, os.O_RDWR)
  for number in range(3):
    os.dup2(null, number)
  os.closerange(3, descriptor)
  os.closerange(descriptor + 1, max(descriptor, null) + 65536)


def missing(make: Callable[[], Fork]) -> list[str]:
  """Returns what `Fork.missing` does, of a fork of its own; [] if late."""
  fork = make()
  try:
    return fork.missing()
  except TimeoutError:
    return []
  finally:
    fork.end()


def answer(
  fork: Fork, question: object, make: Callable[[], Fork], otherwise: object
) -> tuple[Fork, object]:
  """Returns the answer to a question, and the fork to ask next.

  Args:
    fork: asked first.
    question: any that JSON can express.
    make: returns a new fork.
    otherwise: the answer if there is none in time.
  """
  for _ in range(2):  # Retries once if the fork was killed from outside.
    try:
      found = fork.ask(question)
    except TimeoutError:
      fork.end()
      return make(), otherwise
    if found is not None:
      return fork, found
    fork.end()
    fork = make()
  return fork, otherwise
