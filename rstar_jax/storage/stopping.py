"""SIGTERM and Ctrl-C: a run ends soon, and at a place that it can go on from.

The first of either ends what runs: at once where waiting would save nothing,
and else at the end of the block that is `held`, such as an update of a training
with its checkpoint. A second one ends the process there and then.

A machine that is taken back says so with SIGTERM and then waits, but not for
long. So there is a deadline, which holds even while the main thread is in a
call that hears no signal, a compilation for example. What is on the disk is
whole at every moment, and so is what a process leaves that ends like this.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence

# Spot VMs of Cloud TPU and pods of Kubernetes have 30.
GRACE_SECONDS = 25.0

_asked = threading.Event()
# Blocks that hold the end back; the main thread's alone.
_held = 0
# Those that are listened to, and what they did before.
_before: dict[signal.Signals, object] = {}


class Stopped(SystemExit):
  """The process was told to end; nothing is wrong, so the exit code is 0."""

  def __init__(self):
    super().__init__(0)


def asked() -> bool:
  """Says whether the process was told to end."""
  return _asked.is_set()


def check() -> None:
  """Ends what runs if it was told to end, however that was missed.

  Raises:
    Stopped: it was.
  """
  if _asked.is_set():
    raise Stopped


@contextlib.contextmanager
def held() -> Iterator[None]:
  """Lets a block be finished before the process is ended.

  To be used for what is worth more done than not begun, and is soon done. Also
  a decorator. In another thread than the main one it does nothing: none is
  interrupted.

  Raises:
    Stopped: after the block, where the process was told to end in it.
  """
  global _held
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  _held += 1
  try:
    yield
  finally:
    _held -= 1
  if not _held:
    check()


@contextlib.contextmanager
def listening(
  grace: float | None = None,
  signals: Sequence[signal.Signals] = (signal.SIGTERM,),
) -> Iterator[None]:
  """Listens to signals while a block runs.

  Does nothing within another such block, or in a thread that cannot.

  Args:
    grace: seconds after SIGTERM in which a process ends, with exit code 0. One
      that was told twice ends at once. None leaves both to the caller.
    signals: that tell the process to end.
  """
  main = threading.current_thread() is threading.main_thread()
  if _before or not main:
    yield
    return
  with contextlib.ExitStack() as stack:
    if grace is not None:
      stack.enter_context(_Watch(grace))
    try:
      for each in signals:
        _before[each] = signal.signal(each, _stop)
      yield
    finally:
      if grace is None or not asked():
        for each, previous in _before.items():
          signal.signal(each, previous)
        _before.clear()
        _asked.clear()


def listen_again() -> None:
  """Takes signals back from a library that has taken them meanwhile."""
  for each in _before:
    signal.signal(each, _stop)


def _stop(*_) -> None:
  _asked.set()
  if not _held:
    raise Stopped


class _Watch:
  """A thread that hears of each signal as it comes, and ends the process.

  The interpreter writes a signal's number to a file at once, even while the
  main thread is busy elsewhere; its handlers run only when that is back.
  """

  def __init__(self, grace: float):
    self._grace = grace
    self._ours, self._theirs = socket.socketpair()
    self._theirs.setblocking(False)
    self._said = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True)

  def __enter__(self) -> None:
    self._previous = signal.set_wakeup_fd(
      self._theirs.fileno(), warn_on_full_buffer=False
    )
    self._thread.start()

  def __exit__(self, *_) -> None:
    if asked():
      # It stays: the way out may be long as well, where hosts wait for others.
      self._said.wait(self._grace)
      return
    signal.set_wakeup_fd(self._previous)
    self._theirs.close()
    self._thread.join()
    self._ours.close()

  def _run(self) -> None:
    first = self._next()
    if first is None:
      return
    _say(f"{first.name}: stopping; once more ends this at once")
    self._said.set()
    # A person who waits can say for himself that it takes too long.
    deadline = self._grace if first == signal.SIGTERM else None
    self._ours.settimeout(deadline)
    try:
      again = self._next()
    except TimeoutError:
      _say(f"not done {deadline:g} s after {first.name}, so this ends now")
      _end(0)
    if again is not None:
      _end(128 + again)

  def _next(self) -> signal.Signals | None:
    """Returns the next signal that is listened to, None at the end."""
    while byte := self._ours.recv(1):
      if byte[0] in _before:
        return signal.Signals(byte[0])
    return None


def _say(text: str) -> None:
  # On a terminal there may be a progress bar, or what Ctrl-C leaves there.
  below = "\n" if sys.stderr.isatty() else ""
  print(f"{below}rstar_jax: {text}", file=sys.stderr, flush=True)


def _end(code: int) -> None:
  sys.stdout.flush()
  os._exit(code)
