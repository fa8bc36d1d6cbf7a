"""Records on disk: JSONL shards that check themselves, and manifests.

A stage writes shards, each atomically (`store.write`), and its manifest last. A
run that is killed at any instant therefore leaves the old state or the new one.
The bytes depend on the rows alone (sorted keys, no time, no host), so a resumed
run can be compared with an uninterrupted one byte for byte.

A shard's last line is a footer with the number of rows and the SHA-256 of the
lines before it. A manifest lists each file of its folder with its size and
SHA-256, and has the SHA-256 of itself.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath

from rstar_jax import outside
from rstar_jax.storage import layout, stopping, store

MANIFEST = "MANIFEST.json"

_FOOTER = "footer"
# Names of files that a finished folder has no use for.
_LEFTOVERS = (store.TEMPORARY, f"{layout.BEGUN}*")
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
  return f"shard-{index:05d}-of-{total:05d}.jsonl"


@stopping.deferred()
def write_shard(path: epath.PathLike, rows: Iterable[Mapping]) -> None:
  """Writes rows as JSON lines and a footer, atomically.

  Args:
    path: the file, which has one writer; its folder is made if need be.
    rows: JSON-able mappings; numpy values and dataclasses are converted.

  Raises:
    ValueError: a row has NaN or infinity, which JSON does not have.
  """
  lines = [line(row) for row in rows]
  body = b"".join(lines)
  footer = {"rows": len(lines), "sha256": hashlib.sha256(body).hexdigest()}
  store.write(store.path(path), body + line({_FOOTER: footer}))


def write_shards(
  folder: epath.PathLike, rows: Iterable[Mapping], size: int
) -> int:
  """Writes rows as shards of at most `size`, with one in memory at a time.

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
      parts.append(local / f"part-{len(parts):05d}.jsonl")
      write_shard(parts[-1], part)
      count += len(part)
    for index, path in enumerate(parts):
      path.replace(local / shard_name(index, len(parts)))
  return count


def read_shard(path: epath.PathLike) -> list[dict]:
  """Returns the rows of a shard after checking its footer.

  Raises:
    CorruptShard: the file is missing, cut short or changed.
  """
  body = _checked_body(store.path(path))
  return [json.loads(line) for line in body.splitlines()]


def each_row(path: epath.PathLike) -> Iterator[dict[str, Any]]:
  """Yields the rows of a JSONL file one by one, without a shard's footer.

  This is for files that are too large for memory or are being written: a line
  that is no object is left out, and said so at the end, unless it is the last
  one, which may be cut short. NaN and infinity become None. A missing file has
  no rows.
  """
  path = epath.Path(path)
  if not path.exists():
    return
  bad = []
  with path.open("rb") as file:
    for number, line in enumerate(outside.lines(file, _ROW), 1):
      try:
        row = outside.parse(line, most=_ROW, constant=lambda _: None)
        if not isinstance(row, dict):
          raise outside.Bad("is no object")
      except outside.Bad as error:
        if line.endswith(b"\n"):
          bad.append(f"line {number} {error}")
        continue
      if _FOOTER not in row:
        yield row
  if bad:
    logging.warning(
      "%s: left out %d lines that are no records; the first: %s",
      path,
      len(bad),
      bad[0],
    )


def is_complete(path: epath.PathLike) -> bool:
  """Says whether a shard exists and matches its footer."""
  try:
    _checked_body(store.path(path))
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
    files = [
      name for name in there if not store.matches(name, MANIFEST, *_LEFTOVERS)
    ]
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
      logging.warning(
        "%s lists %s, which has changed (%d bytes then, %d now): remaking it",
        path,
        name,
        then["size"],
        size,
      )
      return None
  return manifest


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


def _checked_body(path: store.Path) -> bytes:
  """Returns the bytes before the footer, or raises CorruptShard."""

  def corrupt(reason: str) -> CorruptShard:
    return CorruptShard(f"{path}: {reason}; delete it to have it made again")

  data = store.read(path)
  if data is None:
    raise CorruptShard(f"{path}: no such shard")
  if not data.endswith(b"\n"):
    raise corrupt("the last line is cut short")
  start = data.rfind(b"\n", 0, -1) + 1
  body = data[:start]
  try:
    footer = outside.parse(data[start:])[_FOOTER]
    rows, digest = footer["rows"], footer["sha256"]
  except (ValueError, KeyError, TypeError):
    raise corrupt("the last line is not a footer") from None
  count = body.count(b"\n")
  if count != rows:
    raise corrupt(f"the footer counts {rows} rows, the file has {count}")
  if hashlib.sha256(body).hexdigest() != digest:
    raise corrupt("the rows do not match the footer's sha256")
  return body


def _digests(
  folder: store.Path,
  names: Sequence[str],
  versions: Mapping[str, store.Version | None],
) -> Iterator[tuple[int, str]]:
  """Yields the size and the SHA-256 of each file, in order."""

  def digest(name: str) -> tuple[int, str]:
    return store.digest(folder / name, versions[name])

  return store.prefetch(digest, names, folder)
