"""A pool of processes that load neither jax nor the script they work for.

They are spawned, since a fork would copy locks that jax's threads may hold.
"""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.context
import os
import sys
import threading
from collections.abc import Iterator

_starting = threading.Lock()


def pool(count: int) -> concurrent.futures.ProcessPoolExecutor:
  """Returns a pool whose processes end with this one, even if it is killed.

  Args:
    count: number of processes. They import the modules of the functions that
      they are given, which cannot be functions of `__main__`.
  """
  return concurrent.futures.ProcessPoolExecutor(
    count, _Context(), initializer=_end_with_parent
  )


class _Process(multiprocessing.context.SpawnProcess):
  def start(self) -> None:
    with _main_set_aside():
      super().start()


class _Context(multiprocessing.context.SpawnContext):
  Process = _Process


@contextlib.contextmanager
def _main_set_aside() -> Iterator[None]:
  """Hides which script runs from processes that start meanwhile.

  They would run it again. Without `if __name__ == "__main__"` it would end them
  by starting processes itself.
  """
  main = sys.modules["__main__"].__dict__
  with _starting:
    kept = {
      name: main.pop(name) for name in ("__spec__", "__file__") if name in main
    }
    main["__spec__"] = None
    try:
      yield
    finally:
      main.update(kept)


def _end_with_parent() -> None:
  """Ends this process once its parent has ended, however that did."""
  parent = multiprocessing.parent_process()
  assert parent is not None

  def wait() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
