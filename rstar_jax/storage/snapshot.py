"""A read-only view of a run's folder at one moment.

The folder is listed once, and a file is read when it is first asked for. A
caller that polls starts each view from the last one: then finished folders are
not listed again, and only the new part of a file is read.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rstar_jax import outside
from rstar_jax.storage import layout, store

# The file that orbax writes last to a checkpoint in a bucket.
COMMITTED = "commit_success.txt"


class _Lines(NamedTuple):
  """Lines of a file.

  Attributes:
    version: of the file.
    end: number of bytes of the lines.
    found: their JSON objects.
  """

  version: store.Version
  end: int
  found: list[dict[str, Any]]


class Snapshot:
  """The files below a folder, by names relative to it, with slashes."""

  def __init__(self, folder: store.Path, before: "Snapshot | None" = None):
    """Lists a folder, which need not exist.

    Args:
      folder: on a disk or in a bucket.
      before: an earlier view. A folder that was finished then is assumed to be
        unchanged if its manifest is.

    Raises:
      OSError: the bucket cannot be read.
    """
    self._folder = folder
    self._objects: dict[str, dict[str, Any]] = {}
    self._lines: dict[str, _Lines] = {}
    self._finished = before._unchanged() if before else set()
    self._files = store.files(folder, self._finished)
    if before:
      for name, version in before._files.items():
        if not self._finished.isdisjoint(store.above(name)):
          self._files[name] = version
      for name, found in before._objects.items():
        if self._files.get(name) == before._files[name]:
          self._objects[name] = found
      self._lines = dict(before._lines)

  def _unchanged(self) -> set[str]:
    """Returns the finished folders whose manifests are unchanged."""
    names = [
      each
      for each in self._files
      if store.matches(each, layout.MANIFEST)
      and self.whole(each.rpartition("/")[0])
    ]
    paths = [self._folder / each for each in names]
    now = store.prefetch(store.version, paths, self._folder)
    return {
      name.rpartition("/")[0]
      for name, version in zip(names, now, strict=True)
      if version == self._files[name]
    } - {""}

  def changed(self, before: "Snapshot | None") -> list[str]:
    """Returns the files written since another view, sorted."""
    old = before._files if before else {}
    return sorted(
      name for name, version in self._files.items() if version != old.get(name)
    )

  def lacks(self, before: "Snapshot") -> bool:
    """Returns whether a file of another view is not there."""
    return not before._files.keys() <= self._files.keys()

  def __contains__(self, name: str) -> bool:
    return name in self._files

  def below(self, folder: str) -> list[str]:
    """Returns names of files below a folder, relative to it, sorted."""
    start = f"{folder}/"
    return sorted(
      name.removeprefix(start) for name in self._files if name.startswith(start)
    )

  def folders(self, folder: str = "") -> list[str]:
    """Returns names of the folders in a folder that have files, sorted."""
    names = self.below(folder) if folder else self._files
    return sorted({name.split("/")[0] for name in names if "/" in name})

  def read(self, name: str) -> dict[str, Any]:
    """Returns the JSON object in a file, {} if there is none."""
    if name not in self:
      return {}
    if name not in self._objects:
      data = store.read(self._folder / name) or b""
      self._objects[name] = _object(data.decode(errors="replace")) or {}
    return self._objects[name]

  def lines(self, name: str) -> list[dict[str, Any]]:
    """Returns the JSON objects of a file's lines; other lines are left out.

    The file only grows; an incomplete last line is read later.
    """
    version = self._files.get(name)
    if version is None:
      return []
    known = self._lines.get(name)
    if known is None or version.size < known.end:
      known = _Lines(store.Version(0, ""), 0, [])
    if known.version != version:
      data = b""
      if version.size > known.end:
        data = store.read(self._folder / name, start=known.end) or b""
      whole = data[: data.rfind(b"\n") + 1]
      text = whole.decode(errors="replace")
      new = map(_object, text.splitlines())
      found = [*known.found, *(each for each in new if each is not None)]
      known = _Lines(version, known.end + len(whole), found)
      self._lines[name] = known
    return known.found

  def ages(self, names: Sequence[str]) -> list[float]:
    """Returns the seconds since files were last written, 0 for missing ones."""
    paths, now = [self._folder / each for each in names], time.time()
    return [
      max(now - written, 0.0) if written else 0.0
      for written in store.prefetch(store.modified, paths, self._folder)
    ]

  def whole(self, folder: str) -> bool:
    """Returns whether a folder has a manifest and all its files, by size.

    `manifests.read` compares their contents too.
    """
    if folder in self._finished:
      return True
    files = self.read(f"{folder}/{layout.MANIFEST}").get("files")
    return isinstance(files, dict) and all(
      isinstance(each, dict)
      and self.size(f"{folder}/{name}") == each.get("size", -1)
      for name, each in files.items()
    )

  def checkpoints(self, folder: str) -> list[int]:
    """Returns the steps of a folder's complete checkpoints, sorted."""
    steps = [name for name in self.folders(folder) if name.isdigit()]
    return sorted(
      int(step)
      for step in steps
      if not store.is_remote(self._folder)
      or f"{folder}/{step}/{COMMITTED}" in self
    )

  def newest(self, names: Iterable[str]) -> list[str]:
    """Sorts files by time of writing, the newest first where it is known."""
    return sorted(
      names,
      key=lambda each: int(self._files[each].generation or 0),
      reverse=True,
    )

  def size(self, name: str) -> int | None:
    """Returns the bytes of a file, None if there is none."""
    return self._files[name].size if name in self else None


def _object(text: str) -> dict[str, Any] | None:
  """Returns the JSON object in a text, None if it is none."""
  try:
    # Metrics may be NaN.
    value = outside.parse(text, most=1 << 28, constant=float)
  except outside.Bad:
    return None
  return value if isinstance(value, dict) else None
