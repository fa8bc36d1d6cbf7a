"""Writes all log lines to a file, and only warnings to standard error.

The terminal shows a run's progress; the file has source lines, and shapes of
programs.
"""

import contextlib
import logging
from collections.abc import Iterator

from absl import logging as absl_logging

from rstar_jax import outside
from rstar_jax.storage import store
from rstar_jax.storage.append_only import Mirror


class _Shown(logging.Formatter):
  """Makes another formatter's output safe to print; see `outside.shown`."""

  def __init__(self, inner: logging.Formatter):
    super().__init__()
    self._inner = inner

  def format(self, record: logging.LogRecord) -> str:
    return outside.shown(self._inner.format(record))


_TO_FILE = "%(asctime)s %(levelname)s %(filename)s:%(lineno)d] %(message)s"


def to_terminal() -> None:
  """Makes log lines on standard error safe to show, from now on."""
  # At INFO it says that there is no TPU, on each machine without one.
  logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
  shown = absl_logging.get_absl_handler()
  shown.setFormatter(_Shown(shown.python_handler.formatter))


@contextlib.contextmanager
def to_file(path: store.Path | None, *, quiet: bool = True) -> Iterator[None]:
  """Appends all log lines to a file while a block runs.

  Args:
    path: the file; its folder is created if missing. None writes no file.
    quiet: whether standard error gets only warnings and errors, without their
      source lines. Otherwise it is left as it is.
  """
  stack = contextlib.ExitStack()
  if path is not None:
    mirror = stack.enter_context(contextlib.closing(Mirror(path.parent)))
    handler = logging.FileHandler(mirror.resume(path.name), encoding="utf-8")
    stack.callback(handler.close)
    # A full disk is reported once, by the writer of a run's files.
    handler.handleError = lambda record: None
    handler.setFormatter(_Shown(logging.Formatter(_TO_FILE)))
    logging.getLogger().addHandler(handler)
    stack.callback(logging.getLogger().removeHandler, handler)
  shown = absl_logging.get_absl_handler()
  before = (
    shown.level,
    shown.python_handler.formatter,
    absl_logging.get_verbosity(),
  )
  if quiet:
    absl_logging.set_verbosity(absl_logging.INFO)
    shown.setLevel(logging.WARNING)
    shown.setFormatter(_Shown(logging.Formatter("%(levelname)s: %(message)s")))
  try:
    with stack:
      yield
  finally:
    level, formatter, verbosity = before
    shown.setLevel(level)
    shown.setFormatter(formatter)
    absl_logging.set_verbosity(verbosity)
