"""How long a device works, whichever threads call it."""

import threading
import time


class Busy:
  """A clock that runs while any thread is inside; a context manager.

  Attributes:
    seconds: wall time with at least one thread inside.
  """

  def __init__(self):
    self.seconds = 0.0
    self._inside = 0
    self._since = 0.0
    self._lock = threading.Lock()

  def __enter__(self) -> "Busy":
    with self._lock:
      if not self._inside:
        self._since = time.perf_counter()
      self._inside += 1
    return self

  def __exit__(self, *_) -> None:
    with self._lock:
      self._inside -= 1
      if not self._inside:
        self.seconds += time.perf_counter() - self._since
