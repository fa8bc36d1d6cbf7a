"""Where log lines go: all of them to a file, and the grave ones to people too.

What a newcomer should see of a run is its progress. The names of source files
and the shapes of programs are for whoever looks for a fault.
"""

import contextlib
import logging
from collections.abc import Iterator

from absl import logging as absl_logging

from rstar_jax.storage import store
from rstar_jax.storage.append_only import Mirror

_TO_FILE = "%(asctime)s %(levelname)s %(filename)s:%(lineno)d] %(message)s"


@contextlib.contextmanager
def kept(path: store.Path, *, quiet: bool = True) -> Iterator[None]:
  """Appends all log lines to a file while a block runs.

  Args:
    path: of the file; its folder is made.
    quiet: whether standard error gets warnings and errors alone, without the
      places that they come from. Otherwise it gets what it would get anyway.
  """
  mirror = Mirror(path.parent)
  handler = logging.FileHandler(mirror.resume(path.name), encoding="utf-8")
  handler.setFormatter(logging.Formatter(_TO_FILE))
  shown = absl_logging.get_absl_handler()
  before = (
    shown.level,
    shown.python_handler.formatter,
    absl_logging.get_verbosity(),
  )
  if quiet:
    absl_logging.set_verbosity(absl_logging.INFO)
    shown.setLevel(logging.WARNING)
    shown.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
  logging.getLogger().addHandler(handler)
  try:
    yield
  finally:
    logging.getLogger().removeHandler(handler)
    handler.close()
    mirror.close()
    level, formatter, verbosity = before
    shown.setLevel(level)
    shown.setFormatter(formatter)
    absl_logging.set_verbosity(verbosity)
