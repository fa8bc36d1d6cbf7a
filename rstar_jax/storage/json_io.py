"""Writes and reads JSON; equal values give equal bytes.

Keys are sorted, and numpy values and dataclasses are converted. JSON has
neither NaN nor infinity, so they raise.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from etils import epath

from rstar_jax import outside
from rstar_jax.storage import stopping, store

# Most bytes of a document or row; a tree of many rollouts takes megabytes.
MOST = 1 << 28


def line(row: Any) -> bytes:
  """Returns a JSON-able value as one canonical line.

  Raises:
    ValueError: it has NaN or infinity.
  """
  # ASCII preserves lone surrogates and Unicode line breaks.
  text = json.dumps(
    row,
    sort_keys=True,
    separators=(",", ":"),
    allow_nan=False,
    default=_plain,
  )
  return text.encode() + b"\n"


def digest(value: Any) -> str:
  """Returns the SHA-256 of a JSON-able value, independent of key order."""
  return hashlib.sha256(line(value)).hexdigest()


@stopping.deferred()
def write(path: epath.PathLike, obj: Any) -> None:
  """Writes a JSON document, atomically and with sorted keys.

  Raises:
    ValueError: the object has NaN or infinity.
  """
  text = json.dumps(
    obj, sort_keys=True, indent=2, allow_nan=False, default=_plain
  )
  store.write(store.path(path), text.encode() + b"\n")


def update(path: epath.PathLike, fields: Mapping[str, Any]) -> None:
  """Writes fields of a document that is an object; its others stay."""
  write(path, (read(path) or {}) | fields)


def read(path: epath.PathLike) -> Any:
  """Returns a JSON document; None if it is missing or cannot be read.

  The reason is logged.
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
