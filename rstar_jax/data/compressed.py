"""Opens files as they are, or compressed by gzip (.gz) or zstd (.zst)."""

import contextlib
import gzip
import pathlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from etils import epath

from rstar_jax import outside
from rstar_jax.data.rows import ProblemError
from rstar_jax.storage.records import zstd

_OPENERS = {".gz": gzip.open, ".zst": zstd.open}


def bare(name: str) -> str:
  """Returns a file's name without the suffix of its compression."""
  path = pathlib.PurePosixPath(name)
  return path.stem if path.suffix.lower() in _OPENERS else path.name


@contextlib.contextmanager
def opened(path: epath.Path) -> Iterator[BinaryIO]:
  """Opens a file for reading, decompressed as it is read.

  Raises:
    ProblemError: while reading, if the file is truncated or not compressed so.
  """
  ending = path.suffix.lower()
  with path.open("rb") as file:
    if ending not in _OPENERS:
      yield file
      return
    try:
      with _OPENERS[ending](file) as unpacked:
        yield unpacked
    except (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError) as error:
      reason = outside.line(str(error)).rstrip(".")
      raise ProblemError(
        f"{path} cannot be unpacked ({reason}): copy it again"
      ) from None
