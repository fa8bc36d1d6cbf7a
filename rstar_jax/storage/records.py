"""Records on disk: shards of rows with checksums.

A stage writes each shard atomically (`store.write`), and its manifest last
(`manifests.py`), so a run that is killed at any instant leaves either the old
state or the new one. The bytes depend on the rows alone (sorted keys, no time,
no host), so a resumed run can be compared with an uninterrupted one byte for
byte.

A shard is two frames of zstd: a skippable one with its header, a JSON object,
and one with its rows as JSON lines, which `zstdcat` prints. The header has the
number of rows, their compressed size and its SHA-256, the writer's own fields,
and a hash of itself. Rows are written and read one by one. (Shards of earlier
versions are plain JSON lines, with a footer as the last one; they can be read.)
"""

import contextlib
import hashlib
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from absl import logging
from etils import epath

from rstar_jax import outside
from rstar_jax.storage import json_io, stopping, store

if sys.version_info >= (3, 14):
  from compression import zstd
else:
  from backports import zstd

# The magic number of a skippable frame, before a shard's header and size.
_MARK = b"\x5a\x2a\x4d\x18"
_BEFORE = len(_MARK) + 4
# First read, in bytes, which holds most headers.
_HEAD = 1 << 16
# Compresses to a third; level 6 is 5% smaller and three times as slow.
_LEVEL = 3
# The last line of a shard of an earlier version.
_FOOTER = "footer"


class CorruptShard(ValueError):
  """A shard is missing, truncated or changed; the message names it."""


def shard_name(index: int, total: int) -> str:
  """Returns the file name of shard `index` (from 0) of `total`.

  Raises:
    ValueError: the index is not in [0, total).
  """
  if not 0 <= index < total:
    raise ValueError(f"shard index {index} is not in [0, {total})")
  return f"shard-{index:05d}-of-{total:05d}.jsonl.zst"


class ShardWriter:
  """Makes a shard, with its compressed rows in memory until it is written."""

  def __init__(self, path: epath.PathLike):
    """Begins a shard.

    Args:
      path: the file, which has one writer; its folder is created if missing.
    """
    self._path = store.path(path)
    self._count, self._packed = 0, io.BytesIO()
    self._compressor = zstd.ZstdCompressor(_LEVEL)

  def put(self, row: Any) -> None:
    """Adds a row: an object in JSON, or a dataclass; see `json_io.line`.

    Raises:
      ValueError: the row has NaN or infinity.
    """
    self._packed.write(self._compressor.compress(json_io.line(row)))
    self._count += 1

  def write(self, info: Mapping[str, Any] | None = None) -> None:
    """Writes the file, atomically.

    Args:
      info: further fields of the header; JSON-able.
    """
    self._packed.write(self._compressor.flush())
    packed = self._packed.getvalue()
    head = {
      "rows": self._count,
      "bytes": len(packed),
      "sha256": hashlib.sha256(packed).hexdigest(),
      "info": info or {},
    }
    text = json_io.line({**head, "check": json_io.digest(head)})
    size = len(text).to_bytes(4, "little")
    with stopping.deferred():
      store.write(self._path, b"".join([_MARK, size, text, packed]))


def write_shard(
  path: epath.PathLike,
  rows: Iterable[Any],
  info: Mapping[str, Any] | None = None,
) -> None:
  """Writes a shard of rows; see `ShardWriter.put`."""
  writer = ShardWriter(path)
  for row in rows:
    writer.put(row)
  writer.write(info)


def write_shards(folder: epath.PathLike, rows: Iterable[Any], size: int) -> int:
  """Writes rows as shards of at most `size` rows.

  The number of shards is known only at the end; until then they have temporary
  names. This is not atomic: the folder's manifest marks its end.

  Args:
    folder: for the shards; it has one writer.
    rows: see `write_shard`; no rows make one empty shard.
    size: rows per shard, at least 1.

  Returns:
    The number of rows.
  """
  parts, count, rows = [], 0, iter(rows)
  with store.staged(folder) as local:
    while (part := list(itertools.islice(rows, size))) or not parts:
      parts.append(local / f"part-{len(parts):05d}")
      write_shard(parts[-1], part)
      count += len(part)
    for index, path in enumerate(parts):
      path.replace(local / shard_name(index, len(parts)))
  return count


def read_shard(path: epath.PathLike) -> list[dict[str, Any]]:
  """Returns the rows of a shard; raises as `rows_of` does."""
  return list(rows_of(path))


def rows_of(path: epath.PathLike) -> Iterator[dict[str, Any]]:
  """Yields the rows of a shard one by one, then checks their hash.

  Raises:
    CorruptShard: the file is missing, truncated or changed. If only the hash
      differs, all rows have been yielded before: a reader that writes results
      waits for the end.
  """
  path = store.path(path)
  with _opened(path) as file:
    head = _header_of(path, file)
    if head is None:
      yield from _plain_rows(path, file)
      return
    count, packed = 0, _Hashed(file)
    try:
      for text in zstd.ZstdFile(packed):
        count += 1
        yield json.loads(text)
    except (zstd.ZstdError, EOFError, ValueError, RecursionError) as error:
      raise _corrupt(path, f"its rows cannot be read ({error})") from None
    _check_hash(path, head, count, packed.sums.hexdigest())


def header(path: epath.PathLike) -> dict[str, Any]:
  """Returns the header of a shard, without reading its rows.

  Returns:
    {"rows", "bytes", "sha256", "info"}; for a shard of an earlier version,
    which is read whole, "rows" and "sha256" alone.

  Raises:
    CorruptShard: the file is missing or truncated.
  """
  path = store.path(path)
  data = store.read(path, _HEAD)
  if data is None:
    raise CorruptShard(f"{path}: no such shard")
  need = _BEFORE + int.from_bytes(data[len(_MARK) : _BEFORE], "little")
  if data.startswith(_MARK) and len(data) == _HEAD < need:
    data = store.read(path, need) or b""
  found = _header_of(path, io.BytesIO(data))
  if found is None:
    with _opened(path) as file:
      return _footer_of(path, file)
  # An object in a bucket is never partial.
  if not store.is_remote(path):
    size = path.stat().st_size
    if size != need + found["bytes"]:
      raise _corrupt(path, f"has {size} bytes, not {need + found['bytes']}")
  return found


def each_row(path: epath.PathLike) -> Iterator[dict[str, Any]]:
  """Yields the rows of a shard or of any file of JSON lines, one by one.

  For reports, and for files that are still being written: nothing is checked.
  Lines that are no objects are left out, with a warning at the end unless it is
  only the last line, which may be incomplete. NaN and infinity become None. A
  missing file has no rows.
  """
  path = epath.Path(path)
  if not path.exists():
    return
  bad = []
  with path.open("rb") as file:
    packed = file.read(len(_MARK)) == _MARK
    file.seek(0)
    lines = outside.lines(zstd.ZstdFile(file) if packed else file, json_io.MOST)
    try:
      for number, text in enumerate(lines, 1):
        try:
          row = outside.parse(text, most=json_io.MOST, constant=lambda _: None)
          if not isinstance(row, dict):
            raise outside.Bad("is no object")
        except outside.Bad as error:
          if text.endswith(b"\n"):
            bad.append(f"line {number} {error}")
          continue
        if packed or _FOOTER not in row:
          yield row
    except (zstd.ZstdError, EOFError) as error:
      bad.append(f"the rest: {error}")
  if bad:
    logging.warning(
      "%s: left out %d lines that are no records; the first: %s",
      path,
      len(bad),
      bad[0],
    )


def is_complete(path: epath.PathLike) -> bool:
  """Returns whether a shard exists, with the size in its header.

  The rows are not read: `rows_of` compares their hash.
  """
  try:
    header(path)
  except CorruptShard:
    return False
  return True


def _corrupt(path: store.Path, reason: str) -> CorruptShard:
  return CorruptShard(f"{path}: {reason}; delete it to have it made again")


@contextlib.contextmanager
def _opened(path: store.Path) -> Iterator[BinaryIO]:
  """Opens a shard; an object is downloaded whole, in its compressed form."""
  if store.is_remote(path):
    data = store.read(path)
    file = None if data is None else io.BytesIO(data)
  else:
    try:
      file = open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
      file = None
  if file is None:
    raise CorruptShard(f"{path}: no such shard")
  with file:
    yield file


class _Hashed:
  """A file that hashes its bytes as they are read."""

  def __init__(self, file: BinaryIO):
    self._file, self.sums = file, hashlib.sha256()

  def read(self, size: int = -1) -> bytes:
    data = self._file.read(size)
    self.sums.update(data)
    return data


def _header_of(path: store.Path, file: BinaryIO) -> dict[str, Any] | None:
  """Reads the header of a file, up to its end.

  Returns:
    The header; None if the file has none, which is then at its start.
  """
  before = file.read(_BEFORE)
  if not before.startswith(_MARK):
    file.seek(0)
    return None
  size = int.from_bytes(before[len(_MARK) :], "little")
  text = file.read(min(size, json_io.MOST))
  try:
    found = outside.parse(text, most=json_io.MOST)
    same = found.pop("check") == json_io.digest(found)
  except (outside.Bad, KeyError, TypeError, AttributeError):
    same = False
  if not same:
    raise _corrupt(path, "its header is cut short or changed")
  return found


def _check_hash(
  path: store.Path, head: Mapping[str, Any], count: int, sha256: str
) -> None:
  if count != head["rows"]:
    raise _corrupt(path, f"says {head['rows']} rows, and has {count}")
  if sha256 != head["sha256"]:
    raise _corrupt(path, "the rows do not match their sha256")


def _plain_rows(path: store.Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
  """Yields an earlier version's rows; checks their hash at the end."""
  footer = _footer_of(path, file)
  file.seek(0)
  yield from map(json.loads, itertools.islice(file, footer["rows"]))


def _footer_of(path: store.Path, file: BinaryIO) -> dict[str, Any]:
  """Returns the footer of an earlier version's shard, which it reads whole."""
  count, sums, last = -1, hashlib.sha256(), b""
  for text in file:
    sums.update(last)
    count, last = count + 1, text
  if not last.endswith(b"\n"):
    raise _corrupt(path, "the last line is cut short")
  try:
    footer = outside.parse(last)[_FOOTER]
    head = {"rows": footer["rows"], "sha256": footer["sha256"]}
  except (ValueError, KeyError, TypeError):
    raise _corrupt(path, "the last line is not a footer") from None
  _check_hash(path, head, count, sums.hexdigest())
  return head
