"""JSON as it is written: the same bytes for equal values.

Keys are sorted, and numpy values and dataclasses are converted. JSON has no NaN
and no infinity: a value with one is refused.
"""

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np
from absl import logging
from etils import epath

from rstar_jax import outside
from rstar_jax.storage import stopping, store

# Bytes of a document or a row: a tree of many rollouts has some megabytes.
MOST = 1 << 28


def line(row: Any) -> bytes:
  """Returns a JSON-able value as the one line that stands for it.

  Raises:
    ValueError: it has NaN or infinity.
  """
  # ASCII, so that lone surrogates and Unicode line breaks survive.
  text = json.dumps(
    row,
    sort_keys=True,
    separators=(",", ":"),
    allow_nan=False,
    default=_plain,
  )
  return text.encode() + b"\n"


def digest(value: Any) -> str:
  """Returns the SHA-256 of a JSON-able value, in any order of its keys."""
  return hashlib.sha256(line(value)).hexdigest()


@stopping.deferred()
def write(path: epath.PathLike, obj: Any) -> None:
  """Writes one JSON document, atomically and with sorted keys.

  Raises:
    ValueError: the object has NaN or infinity.
  """
  text = json.dumps(
    obj, sort_keys=True, indent=2, allow_nan=False, default=_plain
  )
  store.write(store.path(path), text.encode() + b"\n")


def read(path: epath.PathLike) -> Any:
  """Returns a JSON document; None if there is none that can be read.

  The log says why not.
  """
  data = store.read(store.path(path))
  if data is None:
    return None
  try:
    return outside.parse(data, most=MOST)
  except outside.Bad as error:
    logging.warning("%s %s: taken as missing", path, error)
    return None


def _plain(value: Any) -> Any:
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, np.ndarray):
    return value.tolist()
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return dataclasses.asdict(value)
  raise TypeError(f"{type(value).__name__} is not JSON-able: {value!r}")
