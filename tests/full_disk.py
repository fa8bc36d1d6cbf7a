"""A disk that takes no more, to this process."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def full(left: int = 100) -> Iterator[None]:
  """Lets no file grow beyond `left` bytes while a block runs."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  # Python ignores the signal that would come too.
  resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
