"""Records on disk: shards of rows that check themselves, and manifests.

A stage writes shards, each atomically (`store.write`), and its manifest last. A
run that is killed at any instant therefore leaves the old state or the new one.
The bytes depend on the rows alone (sorted keys, no time, no host), so a resumed
run can be compared with an uninterrupted one byte for byte.

A shard is two frames of zstd: a skippable one with its header, a JSON object,
and its rows as JSON lines, compressed. `zstdcat` prints the rows. The header
has the number of rows, the bytes that they take compressed and the SHA-256 of
these, what the writer wants to say of them, and a hash of itself. Rows are
written and read one by one. (Shards of earlier versions are JSON lines as they
are, with a footer as the last one; they are read too.)

A manifest lists each file of its folder with its size and SHA-256, and has the
SHA-256 of itself. Beside the folder, `.verified-FOLDER.json` lists the versions
of files that were hashed, so that a file is read for this once and not at each
start; it is a cache, which may be removed.
"""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from absl import logging
from etils import epath

from rstar_jax import outside
from rstar_jax.storage import layout, stopping, store

if sys.version_info >= (3, 14):
  from compression import zstd
else:
  from backports import zstd

MANIFEST = "MANIFEST.json"

# Before a shard's header: the mark of a skippable frame. Its size follows.
_MARK = b"\x5a\x2a\x4d\x18"
_BEFORE = len(_MARK) + 4
# Bytes that hold most headers.
_HEAD = 1 << 16
# Three times smaller; 6 is 5% better and takes three times as long.
_LEVEL = 3
# The last line of a shard of an earlier version.
_FOOTER = "footer"
# Names of files that a finished folder has no use for.
_LEFTOVERS = (store.TEMPORARY, f"{layout.BEGUN}*")
_UNLISTED = (MANIFEST, f"{layout.VERIFIED}*", *_LEFTOVERS)
# Files that a manifest of their folder, read by this process, says were other
# ones, with their versions: whoever makes them again is not to keep them.
_changed: dict[str, store.Version] = {}
# Bytes of a row and of a manifest: a tree of many rollouts has some megabytes.
_ROW = 1 << 28


class CorruptShard(ValueError):
  """A shard is missing, cut short or changed; the message names it."""


def shard_name(index: int, total: int) -> str:
  """Returns the file name of shard `index` (from 0) of `total`.

  Raises:
    ValueError: the index is not in [0, total).
  """
  if not 0 <= index < total:
    raise ValueError(f"shard index {index} is not in [0, {total})")
  return f"shard-{index:05d}-of-{total:05d}.jsonl.zst"


class ShardWriter:
  """A shard that is being made; its compressed rows are held in memory."""

  def __init__(self, path: epath.PathLike):
    """Begins a shard.

    Args:
      path: the file, which has one writer; its folder is made if need be.
    """
    self._path = store.path(path)
    self._count, self._packed = 0, io.BytesIO()
    self._compressor = zstd.ZstdCompressor(_LEVEL)

  def put(self, row: Mapping[str, Any]) -> None:
    """Adds a JSON-able row; numpy values and dataclasses are converted.

    Raises:
      ValueError: the row has NaN or infinity, which JSON does not have.
    """
    self._packed.write(self._compressor.compress(line(row)))
    self._count += 1

  def write(self, info: Mapping[str, Any] | None = None) -> None:
    """Writes the file, atomically.

    Args:
      info: what the header says of the rows; JSON-able.
    """
    self._packed.write(self._compressor.flush())
    packed = self._packed.getbuffer()
    said = {
      "rows": self._count,
      "bytes": len(packed),
      "sha256": hashlib.sha256(packed).hexdigest(),
      "info": info or {},
    }
    text = line({**said, "check": digest(said)})
    size = len(text).to_bytes(4, "little")
    with stopping.deferred():
      store.write(self._path, b"".join([_MARK, size, text, packed]))


def write_shard(
  path: epath.PathLike,
  rows: Iterable[Mapping],
  info: Mapping[str, Any] | None = None,
) -> None:
  """Writes rows that are made one by one; see `ShardWriter`."""
  writer = ShardWriter(path)
  for row in rows:
    writer.put(row)
  writer.write(info)


def write_shards(
  folder: epath.PathLike, rows: Iterable[Mapping], size: int
) -> int:
  """Writes rows as shards of at most `size`, one after the other.

  The number of shards is known at the end; until then they have other names.
  This is not atomic: the folder's manifest says when all is done.

  Args:
    folder: the folder of the shards, which has one writer.
    rows: as in `write_shard`; no rows make one empty shard.
    size: rows of a shard, at least 1.

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
  """Yields the rows of a shard one by one, and then checks their hash.

  Raises:
    CorruptShard: the file is missing, cut short or changed. Where it is the
      hash that says so, all rows have been yielded: a reader that writes
      something down waits for the end.
  """
  path = store.path(path)
  with _opened(path) as file:
    found = _header_of(path, file)
    if found is None:
      yield from _plain_rows(path, file)
      return
    count, packed = 0, _Hashed(file)
    try:
      for text in zstd.ZstdFile(packed):
        count += 1
        yield json.loads(text)
    except (zstd.ZstdError, EOFError, ValueError, RecursionError) as error:
      raise _corrupt(path, f"its rows cannot be read ({error})") from None
    _check_hash(path, found, count, packed.sums.hexdigest())


def header(path: epath.PathLike) -> dict[str, Any]:
  """Returns what a shard says of itself, without reading its rows.

  Returns:
    {"rows", "bytes", "sha256", "info"}; of a shard of an earlier version, which
    is read for it, "rows" and "sha256" alone.

  Raises:
    CorruptShard: the file is missing or cut short.
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
  # An object in a bucket is whole or absent.
  if not store.is_remote(path):
    size = path.stat().st_size
    if size != need + found["bytes"]:
      raise _corrupt(path, f"has {size} bytes, not {need + found['bytes']}")
  return found


def each_row(path: epath.PathLike) -> Iterator[dict[str, Any]]:
  """Yields the rows of a shard or of any file of JSON lines, one by one.

  This is for people, and for files that are being written: nothing is checked,
  and a line that is no object is left out, and said so at the end, unless it is
  the last one, which may be cut short. NaN and infinity become None. A missing
  file has no rows.
  """
  path = epath.Path(path)
  if not path.exists():
    return
  bad = []
  with path.open("rb") as file:
    packed = file.read(len(_MARK)) == _MARK
    file.seek(0)
    lines = outside.lines(zstd.ZstdFile(file) if packed else file, _ROW)
    try:
      for number, text in enumerate(lines, 1):
        try:
          row = outside.parse(text, most=_ROW, constant=lambda _: None)
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
  """Says whether a shard is there, and has the size that its header says.

  Its rows are not read: whoever reads them compares their hash. Where its
  folder's manifest was found to list another file of that name, it is not.
  """
  path = store.path(path)
  changed = _changed.get(str(path))
  if changed is not None and store.version(path) == changed:
    return False
  try:
    header(path)
  except CorruptShard:
    return False
  return True


@stopping.deferred()
def write_json(path: epath.PathLike, obj: Any) -> None:
  """Writes one JSON document, atomically and with sorted keys.

  Raises:
    ValueError: the object has NaN or infinity.
  """
  text = json.dumps(
    obj, sort_keys=True, indent=2, allow_nan=False, default=_plain
  )
  store.write(store.path(path), text.encode() + b"\n")


def read_json(path: epath.PathLike) -> Any:
  """Returns a JSON document; None if there is none that can be read.

  The log says why not.
  """
  data = store.read(store.path(path))
  if data is None:
    return None
  try:
    return outside.parse(data, most=_ROW)
  except outside.Bad as error:
    logging.warning("%s %s: taken as missing", path, error)
    return None


def write_manifest(
  folder: epath.PathLike,
  info: Mapping[str, Any],
  files: Sequence[str] | None = None,
) -> None:
  """Writes a folder's manifest; to be called last, by one process.

  Args:
    folder: the finished folder.
    info: further entries of the manifest; JSON-able.
    files: names to list, relative to `folder`; None lists every file below it,
      but first removes what was only of use before: temporary files of killed
      writers, and journals of shards.

  Raises:
    ValueError: `info` has a key "files" or "sha256".
    FileNotFoundError: a file of `files` is missing.
  """
  folder = store.path(folder)
  if taken := {"files", "sha256"} & set(info):
    raise ValueError(f"manifest info may not use the keys {sorted(taken)}")
  if files is None:
    store.sweep(folder, *_LEFTOVERS)
  there = store.files(folder)
  if files is None:
    # A process of the past that still ends may have written one meanwhile.
    files = [name for name in there if not store.matches(name, *_UNLISTED)]
  names = sorted(files)
  if missing := [name for name in names if name not in there]:
    raise FileNotFoundError(f"{folder} has no {', '.join(missing)}")
  digests = _digests(folder, names, there)
  listed = {
    name: {"size": size, "sha256": sha256}
    for name, (size, sha256) in zip(names, digests, strict=True)
  }
  manifest = {**info, "files": listed}
  write_json(
    folder / MANIFEST,
    {**manifest, "sha256": digest(manifest)},
  )


def read_manifest(folder: epath.PathLike) -> dict | None:
  """Returns a folder's manifest if the folder is complete.

  Returns:
    The `info` of `write_manifest`, plus "files" {name: {"size", "sha256"}}.
    None if the manifest or a listed file is missing or changed (the log says
    which): the caller then runs the stage again.
  """
  folder = store.path(folder)
  path = folder / MANIFEST
  data = store.read(path)
  if data is None:
    return None
  try:
    manifest = outside.parse(data, most=_ROW)
    sha256 = manifest.pop("sha256")
    listed = manifest["files"]
    same = digest(manifest) == sha256
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    logging.warning("%s is not a manifest (%r): remaking it", path, error)
    return None
  if not same:
    logging.warning("%s has changed since it was written: remaking it", path)
    return None
  there = store.files(folder)
  for name in listed:
    if name not in there:
      logging.warning("%s lists %s, which is missing: remaking it", path, name)
      return None
  digests = _digests(folder, list(listed), there)
  for (name, then), (size, now) in zip(listed.items(), digests, strict=True):
    if (size, now) != (then["size"], then["sha256"]):
      _changed[str(folder / name)] = there[name]
      logging.warning(
        "%s lists %s, which has changed (%d bytes then, %d now): remaking it",
        path,
        name,
        then["size"],
        size,
      )
      return None
  return manifest


def remove(folder: epath.PathLike) -> None:
  """Removes a folder with a manifest, if there is one.

  The manifest goes first, so that nobody takes what is left for whole.
  """
  folder = store.path(folder)
  for path in (folder / MANIFEST, _cache_of(folder)):
    with contextlib.suppress(FileNotFoundError):
      store.remove(path)
  store.remove_all(folder)


def digest(value: Any) -> str:
  """Returns the SHA-256 of a JSON-able value, in any order of its keys."""
  return hashlib.sha256(line(value)).hexdigest()


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


def _plain(value: Any) -> Any:
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, np.ndarray):
    return value.tolist()
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return dataclasses.asdict(value)
  raise TypeError(f"{type(value).__name__} is not JSON-able: {value!r}")


def _corrupt(path: store.Path, reason: str) -> CorruptShard:
  return CorruptShard(f"{path}: {reason}; delete it to have it made again")


@contextlib.contextmanager
def _opened(path: store.Path) -> Iterator[BinaryIO]:
  """Opens a shard; an object is fetched whole, as it is compressed."""
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
  """A file whose bytes are hashed as they are read."""

  def __init__(self, file: BinaryIO):
    self._file, self.sums = file, hashlib.sha256()

  def read(self, size: int = -1) -> bytes:
    data = self._file.read(size)
    self.sums.update(data)
    return data


def _header_of(path: store.Path, file: BinaryIO) -> dict[str, Any] | None:
  """Reads the header at the start of a file, up to its end.

  Returns:
    The header; None, and the file at its start, if it has none.
  """
  before = file.read(_BEFORE)
  if not before.startswith(_MARK):
    file.seek(0)
    return None
  size = int.from_bytes(before[len(_MARK) :], "little")
  text = file.read(min(size, _ROW))
  try:
    found = outside.parse(text, most=_ROW)
    same = found.pop("check") == digest(found)
  except (outside.Bad, KeyError, TypeError, AttributeError):
    same = False
  if not same:
    raise _corrupt(path, "its header is cut short or changed")
  return found


def _check_hash(
  path: store.Path, found: Mapping[str, Any], count: int, sha256: str
) -> None:
  if count != found["rows"]:
    raise _corrupt(path, f"says {found['rows']} rows, and has {count}")
  if sha256 != found["sha256"]:
    raise _corrupt(path, "the rows do not match their sha256")


def _plain_rows(path: store.Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
  """Yields the rows of a shard of an earlier version; checks it at the end."""
  footer = _footer_of(path, file)
  file.seek(0)
  yield from map(json.loads, itertools.islice(file, footer["rows"]))


def _footer_of(path: store.Path, file: BinaryIO) -> dict[str, Any]:
  """Reads a shard of an earlier version, and returns its footer."""
  count, sums, last = -1, hashlib.sha256(), b""
  for text in file:
    sums.update(last)
    count, last = count + 1, text
  if not last.endswith(b"\n"):
    raise _corrupt(path, "the last line is cut short")
  try:
    footer = outside.parse(last)[_FOOTER]
    found = {"rows": footer["rows"], "sha256": footer["sha256"]}
  except (ValueError, KeyError, TypeError):
    raise _corrupt(path, "the last line is not a footer") from None
  _check_hash(path, found, count, sums.hexdigest())
  return found


def _digests(
  folder: store.Path,
  names: Sequence[str],
  versions: Mapping[str, store.Version],
) -> list[tuple[int, str]]:
  """Returns the size and the SHA-256 of each file, in order.

  A file is read only if its version is none that was hashed before.
  """
  cache = _cache_of(folder)
  known = _verified(cache)

  def digest(name: str) -> tuple[int, str]:
    version, before = versions[name], known.get(name, [])
    if before[:-1] == [*version]:
      return version.size, before[-1]
    return store.digest(folder / name, version)

  found = list(store.prefetch(digest, names, folder))
  fresh = dict(known)
  for name, (size, sha256) in zip(names, found, strict=True):
    version = versions[name]
    if size == version.size and store.is_settled(folder, version):
      fresh[name] = [*version, sha256]
  if fresh != known:
    # A folder may be read-only: then it is hashed at each start.
    with contextlib.suppress(OSError):
      write_json(cache, fresh)
  return found


def _cache_of(folder: store.Path) -> store.Path:
  """Returns where it is listed which files of a folder were hashed.

  It is beside the folder: what a folder holds is handed on, such as a model,
  and folders have different writers.
  """
  return folder.parent / f"{layout.VERIFIED}{folder.name}.json"


def _verified(cache: store.Path) -> dict[str, list]:
  """Returns by name the size, generation and hash of files that were hashed."""
  data = store.read(cache)
  try:
    found = outside.parse(data or b"{}", most=_ROW)
  except outside.Bad:
    return {}
  wanted = [int, str, str]
  return {
    name: each
    for name, each in (found.items() if isinstance(found, dict) else ())
    if isinstance(each, list) and list(map(type, each)) == wanted
  }
