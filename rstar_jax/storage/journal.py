"""A journal of answers that were paid for: JSON lines, appended.

What a later run would have to buy again is on the disk, or in the bucket, as
soon as it is there. A process killed while it wrote leaves half a line at the
end, which the next one drops.
"""

import json
import pathlib
import re
import threading
from collections.abc import Sequence
from typing import Any

from rstar_jax.storage import store
from rstar_jax.storage.append_only import Blocks

# That of a host, or a block of it in a bucket.
_NAME = re.compile(r"(requests(?:-\d+)?\.jsonl)(?:\.\d+)?")


def of_host(folder: store.Path, index: int) -> "Journal":
  """Opens the journal of a host; what others wrote is read too.

  Args:
    folder: of the journals.
    index: of the host.
  """
  own = f"requests-{index}.jsonl" if index else "requests.jsonl"
  found = map(_NAME.fullmatch, store.children(folder))
  others = sorted({each[1] for each in found if each} - {own})
  return Journal(folder / own, [folder / each for each in others])


class Journal:
  """Answers by key; threads of one process may share it."""

  def __init__(self, path: store.Path, others: Sequence[store.Path] = ()):
    """Reads the keys of the file, if there is one.

    Args:
      path: the file; it and its folder are made by the first `put`.
      others: files of other hosts, whose answers count too; they are read now
        and never written. The file's own answer comes first.

    Raises:
      ValueError: a whole line is no entry.
    """
    self._blocks = [
      Blocks(each) for each in (path, *others) if store.is_remote(each)
    ]
    if self._blocks:
      path, *others = [each.file for each in self._blocks]
    self._path = path
    self._lock = threading.Lock()
    # Of each key, the file and where in it the line begins.
    self._places: dict[str, tuple[pathlib.Path, int]] = {}
    for other in others:
      self._read(other)
    self._end = self._read(path)

  def _read(self, path: pathlib.Path) -> int:
    """Notes the entries of a file; returns where its last whole line ends."""
    end = 0
    if not path.exists():
      return end
    with path.open("rb") as file:
      for number, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
          break
        try:
          key = json.loads(line)["key"]
        except (ValueError, KeyError, TypeError) as error:
          raise ValueError(
            f"{path}:{number} is no entry of a journal: remove that line, and "
            "its answer will be asked for again"
          ) from error
        self._places[key] = path, end
        end += len(line)
    return end

  def __len__(self) -> int:
    return len(self._places)

  def get(self, key: str) -> Any | None:
    """Returns the answer of a key, None where there is none yet."""
    with self._lock:
      place = self._places.get(key)
    if place is None:
      return None
    path, start = place
    self._keep(path, start + 1)
    with path.open("rb") as file:
      file.seek(start)
      return json.loads(file.readline())["answer"]

  def put(self, key: str, answer: Any) -> Any:
    """Appends an answer; once this returns, a killed process keeps it.

    Args:
      key: its name.
      answer: JSON-able, not None.

    Returns:
      What `get` will return from now on: the first answer of this key, which
      another thread may have put in the meantime.
    """
    entry = {"key": key, "answer": answer}
    line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
    with self._lock:
      known, start = key in self._places, self._end
      if not known:
        self._append(line)
        self._places[key] = self._path, self._end
        self._end += len(line)
    if known:
      return self.get(key)
    self._keep(self._path, start + 1)
    return answer

  def _keep(self, path: pathlib.Path, size: int) -> None:
    """Sees to it that the bucket, if it is in one, has bytes of a file."""
    if self._blocks and path == self._path:
      self._blocks[0].keep(size)

  def _append(self, line: bytes) -> None:
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._path.touch()
    with self._path.open("r+b") as file:
      # After the last whole line: half of one is written over.
      file.seek(self._end)
      file.truncate()
      file.write(line)
