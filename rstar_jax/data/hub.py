"""Reads data sets from the Hugging Face Hub, or from a folder in its format.

  hf:OWNER/NAME/SPLIT           hf:meta-math/MetaMathQA/train
  hf:OWNER/NAME/CONFIG/SPLIT    hf:openai/gsm8k/main/train
  hf:FOLDER/SPLIT               hf:./problems/train

A folder begins with "/" or "." and holds parquet, JSON or CSV files named after
the split (train.parquet, test-0.jsonl), as `datasets` expects. The library
`datasets` is the extra `hub`; it is imported at first use.
"""

import contextlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

from rstar_jax import outside
from rstar_jax.data.rows import ProblemError, Row, table_row

FORM = "hf:OWNER/NAME[/CONFIG]/SPLIT"
_SECONDS = 5.0  # Timeout of a connection to the Hub.


class Name(NamedTuple):
  """The parts of a source's name.

  Attributes:
    path: "OWNER/NAME", or a folder.
    config: name of the configuration; "" for the default.
    split: name of the split.
  """

  path: str
  config: str
  split: str


def parse(name: str) -> Name:
  """Parses the part of a source after "hf:".

  Raises:
    ProblemError: the name has another form.
  """
  parts = name.split("/")
  if name.startswith(("/", ".")) and len(parts) > 1 and parts[-1]:
    return Name("/".join(parts[:-1]) or "/", "", parts[-1])
  if len(parts) not in (3, 4) or not all(parts):
    raise ProblemError(
      f"source 'hf:{name}' is neither {FORM!r} nor 'hf:FOLDER/SPLIT' with a "
      "folder that begins with / or ."
    )
  return Name("/".join(parts[:2]), "/".join(parts[2:-1]), parts[-1])


def hub_rows(name: str) -> Iterator[Row]:
  """Returns the rows of a split; downloads it if it is not cached.

  Args:
    name: the part of the source after "hf:". If the Hub cannot be reached, the
      cache is read.

  Raises:
    ProblemError: the library is missing, there is no such data set, config or
      split, or it cannot be downloaded.
  """
  path, config, split = parse(name)
  try:
    import datasets
  except ImportError:
    raise ProblemError(
      f"source 'hf:{name}' needs the library datasets: pip install "
      "'rstar_jax[hub]'"
    ) from None
  no_network = ""
  if not (path.startswith(("/", ".")) or datasets.config.HF_HUB_OFFLINE):
    no_network = _no_network(datasets.config.HF_ENDPOINT)
  try:
    with _offline(datasets.config) if no_network else contextlib.nullcontext():
      table = datasets.load_dataset(path, config or None, split=split)
  except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
    if no_network and isinstance(error, ConnectionError):
      raise ProblemError(
        f"source 'hf:{name}' is not in the cache, and {no_network}: try again "
        "with a network, or copy its files here and give 'hf:FOLDER/SPLIT'"
      ) from None
    # For a malformed file the reason is only in the error's cause.
    cause = error.__cause__ or error
    reason = outside.line(str(cause)).rstrip(".") or type(cause).__name__
    raise ProblemError(
      f"source 'hf:{name}': {reason} (want {FORM!r} or 'hf:FOLDER/SPLIT')"
    ) from None
  return _rows(f"hf:{name}", table)


@contextlib.contextmanager
def _offline(config: Any) -> Iterator[None]:
  """Makes `datasets` read its cache at once, without waiting for the Hub."""
  config.HF_HUB_OFFLINE = True
  try:
    yield
  finally:
    config.HF_HUB_OFFLINE = False


def _no_network(endpoint: str) -> str:
  """Returns why the Hub cannot be reached; "" if it can, or via a proxy."""
  if {"https", "all"} & urllib.request.getproxies().keys():
    return ""
  where = urllib.parse.urlsplit(endpoint)
  port = where.port or {"http": 80}.get(where.scheme, 443)
  try:
    socket.create_connection((where.hostname, port), _SECONDS).close()
  except OSError as error:
    return f"{where.hostname} cannot be reached ({error.strerror or error})"
  return ""


def _rows(source: str, table: Any) -> Iterator[Row]:
  """Yields the rows of a table; rows are read one by one after an error."""
  done = 0
  try:
    for row in table:
      yield table_row(f"{source}[{done}]", done, row)
      done += 1
  except UnicodeDecodeError:
    # A text of this batch is not UTF-8; none of its rows was yielded.
    for index in range(done, len(table)):
      place = f"{source}[{index}]"
      try:
        yield table_row(place, index, table[index])
      except UnicodeDecodeError as error:
        yield Row(place, index, error=f"is not UTF-8 ({error.reason})")
