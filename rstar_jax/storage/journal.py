"""A journal of a server's answers, so that none is paid for twice.

The file has JSON lines. An answer is on the disk, or in the bucket, as soon as
it is known. A process that is killed while it writes leaves half a line at the
end, which the next process drops.
"""

import json
import pathlib
import re
import threading
from collections.abc import Sequence
from typing import Any

from rstar_jax.storage import store
from rstar_jax.storage.append_only import Blocks

# The file of a host, or one of its objects in a bucket.
_NAME = re.compile(r"(requests(?:-\d+)?\.jsonl)(?:\.\d+)?")


def of_host(folder: store.Path, index: int) -> "Journal":
  """Opens the journal of a host, with the answers of all other hosts.

  Args:
    folder: the folder of all journals.
    index: the host's process index, from 0.
  """
  own = f"requests-{index}.jsonl" if index else "requests.jsonl"
  found = map(_NAME.fullmatch, store.children(folder))
  others = sorted({each[1] for each in found if each} - {own})
  return Journal(folder / own, [folder / each for each in others])


class Journal:
  """Answers by key; threads of one process may share it."""

  def __init__(self, path: store.Path, others: Sequence[store.Path] = ()):
    """Reads the keys of the files.

    Args:
      path: this host's file; the first `put` makes it and its folder.
      others: files of other hosts, read now and never written. Where two files
        have a key, this host's answer counts.

    Raises:
      ValueError: a complete line is not an entry.
    """
    self._blocks = [
      Blocks(each) for each in (path, *others) if store.is_remote(each)
    ]
    if self._blocks:
      path, *others = [each.file for each in self._blocks]
    self._path = path
    self._lock = threading.Lock()
    # Each key's file, and the offset of its line.
    self._places: dict[str, tuple[pathlib.Path, int]] = {}
    for other in others:
      self._read(other)
    self._end = self._read(path)

  def _read(self, path: pathlib.Path) -> int:
    """Reads the keys of a file; returns the end of its last complete line."""
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
            f"{path}:{number} is not an entry of a journal: remove the line, "
            "and its request is sent again"
          ) from error
        self._places[key] = path, end
        end += len(line)
    return end

  def __len__(self) -> int:
    return len(self._places)

  def get(self, key: str) -> Any | None:
    """Returns the answer of a key, None if there is none."""
    with self._lock:
      place = self._places.get(key)
    if place is None:
      return None
    path, start = place
    self._upload(path, start + 1)
    with path.open("rb") as file:
      file.seek(start)
      return json.loads(file.readline())["answer"]

  def put(self, key: str, answer: Any) -> Any:
    """Appends an answer, which is durable once this returns.

    Args:
      key: a hash of the request.
      answer: JSON-able, not None.

    Returns:
      The first answer of this key, as `get` returns it: another thread may have
      put one meanwhile.
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
    self._upload(self._path, start + 1)
    return answer

  def _upload(self, path: pathlib.Path, size: int) -> None:
    """Uploads the first `size` bytes of our own file, if it is in a bucket."""
    if self._blocks and path == self._path:
      self._blocks[0].upload(size)

  def _append(self, line: bytes) -> None:
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._path.touch()
    with self._path.open("r+b") as file:
      # After the last complete line: half a line is overwritten.
      file.seek(self._end)
      file.truncate()
      file.write(line)
