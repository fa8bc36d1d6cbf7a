"""Ends a run on SIGTERM or Ctrl-C, at a point where it can resume.

The first signal raises `Stopped`: immediately, when a running call of jax
returns, or at the end of a `deferred` block, such as a training update with its
checkpoint. A second signal ends the process immediately.

Within jax nothing is raised. An exception while a program is lowered would keep
MLIR objects alive in its traceback, whose context is destroyed first, and the
process would end with a segmentation fault. One in a callback of the garbage
collector would be swallowed.

A preempted machine gets SIGTERM and is shut down soon after. So a deadline ends
the process even while the main thread is in a call that handles no signals,
such as a compilation. All files are written atomically, so the folder stays
consistent.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence

from rstar_jax import outside

# Cloud TPU spot VMs and Kubernetes pods get 30 seconds.
GRACE_SECONDS = 25.0

_asked = threading.Event()
_JAX = ("jax", "jaxlib")
# Depth of nested `deferred` blocks in the main thread.
_deferred = 0
# Returns what is lost if the process ends now; see `losing`.
_lost: Callable[[], str] | None = None
# The handled signals, with their previous handlers.
_before: dict[signal.Signals, object] = {}


class Stopped(SystemExit):
  """The process was told to end; not an error, so the exit code is 0."""

  def __init__(self):
    super().__init__(0)


def asked() -> bool:
  """Returns whether the process was told to end."""
  return _asked.is_set()


def check() -> None:
  """Raises `Stopped` if the process was told to end."""
  if _asked.is_set():
    raise Stopped


@contextlib.contextmanager
def deferred() -> Iterator[None]:
  """Defers signals until the end of a block; also a decorator.

  For short work that should be completed, such as writing a file. Threads other
  than the main one are never interrupted, so it does nothing there.

  Raises:
    Stopped: after the block, if the process was told to end within it.
  """
  global _deferred
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  _deferred += 1
  try:
    yield
  finally:
    _deferred -= 1
  if not _deferred:
    check()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
  """Lets signals interrupt a block, even within `deferred`.

  Raises:
    Stopped: in the block, or before it.
  """
  global _deferred
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before, _deferred = _deferred, 0
  try:
    check()
    yield
  finally:
    _deferred = before


@contextlib.contextmanager
def losing(lost: Callable[[], str]) -> Iterator[None]:
  """Prints what is lost if the deadline comes within a block.

  Args:
    lost: returns a line; called in another thread.
  """
  global _lost
  _lost = lost
  try:
    yield
  finally:
    _lost = None


@contextlib.contextmanager
def listening(
  grace: float | None = None,
  signals: Sequence[signal.Signals] = (signal.SIGTERM,),
) -> Iterator[None]:
  """Handles signals while a block runs.

  It does nothing within another such block, or outside the main thread.

  Args:
    grace: seconds from SIGTERM to the end of the process, with exit code 0; a
      second signal ends it immediately. None leaves both to the caller.
    signals: the signals that end the process.
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


@contextlib.contextmanager
def interrupted() -> Iterator[Callable[[], bool]]:
  """Makes Ctrl-C end a block instead of the program.

  SIGTERM still ends the program.

  Yields:
    A function that returns, after the block, whether Ctrl-C ended it.
  """
  found = False

  def stop(number: int, frame: types.FrameType | None) -> None:
    nonlocal found
    found = True
    _stop(number, frame)

  # An outer `listening` must not handle this signal.
  before = _before.pop(signal.SIGINT, None)
  previous = signal.signal(signal.SIGINT, stop)
  try:
    yield lambda: found
    check()
  except Stopped:
    if not found:
      raise
    _asked.clear()
  finally:
    signal.signal(signal.SIGINT, previous)
    if before is not None:
      _before[signal.SIGINT] = before


def listen_again() -> None:
  """Installs the handlers again, after a library has replaced them."""
  for each in _before:
    signal.signal(each, _stop)


def _stop(_: int, frame: types.FrameType | None) -> None:
  _asked.set()
  if _deferred:
    return
  caller = _caller_of_jax(frame)
  if caller is None:
    raise Stopped
  caller.f_trace = _stop_here
  # A frame's trace function is called only if tracing is on.
  sys.settrace(lambda *_: None)


def _caller_of_jax(frame: types.FrameType | None) -> types.FrameType | None:
  """Returns the frame that called jax, None if jax is not running."""
  caller = None
  while frame is not None:
    if frame.f_globals.get("__name__", "").partition(".")[0] in _JAX:
      caller = frame.f_back
    frame = frame.f_back
  return caller


def _stop_here(frame: types.FrameType, *_) -> None:
  """Raises `Stopped` at a frame's next line, or when it returns."""
  sys.settrace(None)
  frame.f_trace = None
  if not _deferred:
    check()


class _Watch:
  """A thread that receives signals, and ends the process at the deadline.

  The interpreter writes a signal's number to a file descriptor immediately,
  even while the main thread is in a C call; Python handlers run only after it.
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
      # The thread goes on: an exit takes long if hosts wait for one another.
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
    _say(f"{first.name}: stopping; a second signal ends the process at once")
    self._said.set()
    # After Ctrl-C there is no deadline, since the user can press it again.
    deadline = self._grace if first == signal.SIGTERM else None
    self._ours.settimeout(deadline)
    try:
      again = self._next()
    except TimeoutError:
      lost = f"; {_lost()}" if _lost else ""
      _say(f"not done {deadline:g} s after {first.name}: ending now{lost}")
      _end(0)
    if again is not None:
      _end(128 + again)

  def _next(self) -> signal.Signals | None:
    """Returns the next handled signal, None at the end of the block."""
    while byte := self._ours.recv(1):
      if byte[0] in _before:
        return signal.Signals(byte[0])
    return None


def _say(text: str) -> None:
  # On a terminal the current line may hold a progress bar or a ^C.
  below = "\n" if sys.stderr.isatty() else ""
  outside.say(f"{below}rstar_jax: {text}", sys.stderr)


def _end(code: int) -> None:
  sys.stdout.flush()
  os._exit(code)
