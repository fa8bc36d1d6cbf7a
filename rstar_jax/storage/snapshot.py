"""A read-only view of a run's folder at one moment.

The folder is listed once, and a file is read when it is first asked for.
"""

import time
from collections.abc import Sequence
from typing import Any

from rstar_jax import outside
from rstar_jax.storage import store
from rstar_jax.storage.records import MANIFEST

# The file that orbax writes last to a checkpoint in a bucket.
_COMMITTED = "commit_success.txt"


class Snapshot:
  """The files below a folder, by names relative to it, with slashes."""

  def __init__(self, folder: store.Path):
    """Lists a folder, which need not exist.

    Raises:
      OSError: the bucket cannot be read.
    """
    self._folder = folder
    self._files = store.files(folder)
    self._texts: dict[str, str] = {}

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
    try:
      found = _parsed(self._text(name))
    except outside.Bad:
      return {}
    return found if isinstance(found, dict) else {}

  def lines(self, name: str) -> list[dict[str, Any]]:
    """Returns the JSON objects of a file's lines; other lines are left out."""
    found = []
    for text in self._text(name).splitlines():
      try:
        line = _parsed(text)
      except outside.Bad:
        continue
      if isinstance(line, dict):
        found.append(line)
    return found

  def ages(self, names: Sequence[str]) -> list[float]:
    """Returns the seconds since files were last written, 0 for one gone."""
    paths, now = [self._folder / each for each in names], time.time()
    return [
      max(now - written, 0.0) if written else 0.0
      for written in store.prefetch(store.modified, paths, self._folder)
    ]

  def whole(self, folder: str) -> bool:
    """Says whether a folder has a manifest and all its files, by size.

    `records.read_manifest` compares their contents too.
    """
    files = self.read(f"{folder}/{MANIFEST}").get("files")
    return isinstance(files, dict) and all(
      isinstance(each, dict)
      and self._size(f"{folder}/{name}") == each.get("size", -1)
      for name, each in files.items()
    )

  def checkpoints(self, folder: str) -> list[int]:
    """Returns the steps of a folder's complete checkpoints, sorted."""
    steps = [name for name in self.folders(folder) if name.isdigit()]
    return sorted(
      int(step)
      for step in steps
      if not store.is_remote(self._folder)
      or f"{folder}/{step}/{_COMMITTED}" in self
    )

  def _text(self, name: str) -> str:
    """Returns the text of a file, "" if there is none."""
    if name not in self:
      return ""
    if name not in self._texts:
      data = store.read(self._folder / name) or b""
      self._texts[name] = data.decode(errors="replace")
    return self._texts[name]

  def _size(self, name: str) -> int | None:
    return self._files[name].size if name in self else None


def _parsed(text: str) -> Any:
  # Metrics may be NaN.
  return outside.parse(text, most=1 << 28, constant=float)
