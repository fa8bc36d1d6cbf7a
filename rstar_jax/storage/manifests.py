"""Manifests: each marks a folder as finished, and lists its files.

A stage writes its manifest last. It lists each file of its folder with size and
SHA-256, and has a SHA-256 of itself. Beside the folder, `.verified-FOLDER.json`
caches the hashes of file versions, so that a file is hashed once and not at
each start; it may be removed.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath

from rstar_jax import outside
from rstar_jax.storage import json_io, layout, store

# Patterns of files that a finished folder does not need.
LEFTOVERS = (store.TEMPORARY, f"{layout.BEGUN}*")
_UNLISTED = (layout.MANIFEST, f"{layout.VERIFIED}*", *LEFTOVERS)
# Most damaged files that a warning names.
_NAMED = 5


def write(
  folder: epath.PathLike,
  info: Mapping[str, Any],
  files: Sequence[str] | None = None,
) -> None:
  """Writes a folder's manifest; called last, by one process.

  Args:
    folder: the finished folder.
    info: further entries of the manifest; JSON-able.
    files: names to list, relative to `folder`; None lists all files below it,
      after it has removed temporary files of killed writers, and journals.

  Raises:
    ValueError: `info` has a key "files" or "sha256".
    FileNotFoundError: a file of `files` is missing.
  """
  folder = store.path(folder)
  if taken := {"files", "sha256"} & set(info):
    raise ValueError(f"manifest info may not use the keys {sorted(taken)}")
  if files is None:
    store.sweep(folder, *LEFTOVERS)
  there = store.files(folder)
  if files is None:
    # A late process may have written a temporary file meanwhile.
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
  json_io.write(
    folder / layout.MANIFEST,
    {**manifest, "sha256": json_io.digest(manifest)},
  )


def read(folder: epath.PathLike) -> dict | None:
  """Returns a folder's manifest if the folder is complete.

  Returns:
    The `info` of `write`, plus "files" {name: {"size", "sha256"}}.
    None if the manifest or a listed file is missing or changed (logged): the
    caller then runs the stage again, see `reopen`.
  """
  return _compared(store.path(folder))[0]


def reopen(folder: epath.PathLike) -> dict | None:
  """Reads a folder's manifest, for the one process that may make it again.

  If the folder is damaged, its changed files are removed, which the stage would
  keep otherwise, and then the manifest. A process that is killed meanwhile
  leaves a folder that is still found to be damaged, or has no manifest.

  Returns:
    See `read`.
  """
  folder = store.path(folder)
  path = folder / layout.MANIFEST
  manifest, changed = _compared(folder)
  if manifest is None and store.version(path) is not None:
    for each in (*changed, path):
      with contextlib.suppress(FileNotFoundError):
        store.remove(each)
  return manifest


def _compared(folder: store.Path) -> tuple[dict | None, list[store.Path]]:
  """Returns `read`'s manifest, and the files that differ from it."""
  path = folder / layout.MANIFEST
  data = store.read(path)
  if data is None:
    return None, []
  try:
    manifest = outside.parse(data, most=json_io.MOST)
    sha256 = manifest.pop("sha256")
    listed = manifest["files"]
    same = json_io.digest(manifest) == sha256
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    logging.warning("%s is not a manifest (%r): remaking it", path, error)
    return None, []
  if not same:
    logging.warning("%s has changed since it was written: remaking it", path)
    return None, []
  there = store.files(folder)
  differs = {name: "is missing" for name in listed if name not in there}
  names = [name for name in listed if name in there]
  digests, changed = _digests(folder, names, there), []
  for name, (size, now) in zip(names, digests, strict=True):
    then = listed[name]
    if (size, now) != (then["size"], then["sha256"]):
      changed.append(folder / name)
      differs[name] = f"has changed ({then['size']} bytes then, {size} now)"
  if differs:
    found = [f"{name}, which {how}" for name, how in differs.items()]
    if len(found) > _NAMED:
      found[_NAMED:] = [f"and {len(found) - _NAMED} more"]
    logging.warning("%s lists %s: remaking it", path, "; ".join(found))
    return None, changed
  return manifest, []


def remove(folder: epath.PathLike) -> None:
  """Removes a folder with a manifest, if there is one.

  The manifest goes first, so that a partly removed folder is not finished.
  """
  folder = store.path(folder)
  for path in (folder / layout.MANIFEST, _cache_of(folder)):
    with contextlib.suppress(FileNotFoundError):
      store.remove(path)
  store.remove_all(folder)


def _digests(
  folder: store.Path,
  names: Sequence[str],
  versions: Mapping[str, store.Version],
) -> list[tuple[int, str]]:
  """Returns the size and the SHA-256 of each file, in order.

  A file is read only if its version was not hashed before.
  """
  cache = _cache_of(folder)
  known = _verified(cache)

  def digest(name: str) -> tuple[int, str]:
    version, before = versions[name], known.get(name, [])
    if before[:-1] == [*version]:
      return version.size, before[-1]
    return store.digest(folder / name, version)

  digests = list(store.prefetch(digest, names, folder))
  fresh = dict(known)
  for name, (size, sha256) in zip(names, digests, strict=True):
    version = versions[name]
    if size == version.size and store.is_settled(folder, version):
      fresh[name] = [*version, sha256]
  if fresh != known:
    # In a read-only place files are hashed at each start.
    with contextlib.suppress(OSError):
      json_io.write(cache, fresh)
      _sweep(cache)
  return digests


def _sweep(cache: store.Path) -> None:
  """Removes what killed writers of a cache have left beside it.

  A writer that is not dead then fails, and the cache lacks what it hashed.
  """
  if store.is_remote(cache):
    return
  for name in store.children(cache.parent):
    if store.matches(name, f".{cache.name}{store.TEMPORARY}"):
      store.remove(cache.parent / name)


def _cache_of(folder: store.Path) -> store.Path:
  """Returns the path of the cache of a folder's hashes.

  It is beside the folder, since a folder such as a model's is passed on, and
  folders have different writers.
  """
  return folder.parent / f"{layout.VERIFIED}{folder.name}.json"


def _verified(cache: store.Path) -> dict[str, list]:
  """Returns [size, generation, hash] of hashed files, by name."""
  data = store.read(cache)
  try:
    cached = outside.parse(data or b"{}", most=json_io.MOST)
  except outside.Bad:
    return {}
  wanted = [int, str, str]
  return {
    name: each
    for name, each in (cached.items() if isinstance(cached, dict) else ())
    if isinstance(each, list) and list(map(type, each)) == wanted
  }
