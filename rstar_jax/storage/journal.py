"""Journals of costly results: a server's answers, and finished searches.

A journal is a file of JSON lines. An answer is written to the disk, or the
bucket, as soon as it is known. A process that is killed while it writes leaves
half a line at the end, which the next process drops. A line that is no entry,
or whose answer fails the check, is passed over with a warning: its work is
repeated, and of two lines with one key the later counts.
"""

import json
import os
import pathlib
import re
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from absl import logging

from rstar_jax import outside
from rstar_jax.storage import json_io, store
from rstar_jax.storage.append_only import Blocks

# The first host's journal in runs of an earlier version.
_FIRST = "requests.jsonl"
# The name of a host's journal, or of one of its objects in a bucket.
_NAME = re.compile(r"(requests(?:-\d+(?:-\w+)?)?\.jsonl)(?:\.\d+)?")
# Most bytes of a line: as ASCII an answer takes up to six times its length.
_LINE = 8 * outside.LONGEST
# Raises `outside.Bad` for an answer that is not valid.
Check = Callable[[Any], object]


def of_host(
  folder: store.Path, index: int, check: Check | None = None
) -> "Journal":
  """Opens the journal of a host, with the answers of all other hosts.

  Each process appends to a file of its own, since one that was taken for dead
  may still write.

  Args:
    folder: the folder of all journals.
    index: the host's process index, from 0.
    check: see `Journal`.
  """
  own = f"requests-{index}-{uuid.uuid4().hex}.jsonl"
  matches = map(_NAME.fullmatch, store.children(folder))
  # The last one's answer counts: the first host's, if hosts differ.
  others = sorted(
    {each[1] for each in matches if each},
    key=lambda name: (name == _FIRST, name.startswith("requests-0-"), name),
  )
  return Journal(folder / own, [folder / each for each in others], check)


class Journal:
  """Answers by key; threads of one process may share it.

  Attributes:
    passed_over: number of lines that are damaged, truncated or invalid.
  """

  def __init__(
    self,
    path: store.Path,
    others: Sequence[store.Path] = (),
    check: Check | None = None,
    durable: bool = True,
  ):
    """Reads the keys of the files.

    Args:
      path: this host's file; the first `put` creates it and its folder.
      others: other hosts' files, which are read now and never written. If
        several files have a key, this host's answer counts.
      check: raises for invalid answers, which are passed over; None accepts
        all.
      durable: for a file in a bucket, whether `put` uploads each answer before
        it returns; otherwise `save` uploads.
    """
    self.passed_over = 0
    self._durable = durable
    self._check = check or (lambda answer: None)
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
    end, bad = 0, []
    try:
      file = path.open("rb")
    except FileNotFoundError:
      return end
    with file:
      for number, line in enumerate(outside.lines(file, _LINE), 1):
        if not line.endswith(b"\n"):
          bad.append(f"line {number} is cut short")
          break
        try:
          self._places[self._key(line)] = path, end
        except outside.Bad as error:
          bad.append(f"line {number} {error}")
        end = file.tell()
    if bad:
      self.passed_over += len(bad)
      logging.warning(
        "%s: %d lines are no entries, and their work is done again; the first: "
        "%s",
        path,
        len(bad),
        bad[0],
      )
    return end

  def _key(self, line: bytes) -> str:
    """Returns the key of an entry; raises Bad if the line is no entry."""
    entry = outside.parse(line, most=_LINE, depth=outside.DEPTH + 1)
    if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
      raise outside.Bad("is not an entry of a journal")
    if entry.get("answer") is None:
      raise outside.Bad("has no answer")
    self._check(entry["answer"])
    return entry["key"]

  def __len__(self) -> int:
    return len(self._places)

  def __contains__(self, key: str) -> bool:
    return key in self._places

  def get(self, key: str) -> Any | None:
    """Returns the answer of a key, None if there is none."""
    with self._lock:
      place = self._places.get(key)
    if place is None:
      return None
    path, start = place
    if self._durable and path == self._path:
      self._upload(start + 1)
    with path.open("rb") as file:
      file.seek(start)
      return json.loads(file.readline())["answer"]

  def put(self, key: str, answer: Any) -> Any:
    """Appends an answer; it is durable once this returns.

    Args:
      key: a hash of the request.
      answer: JSON-able, not None.

    Returns:
      The first answer for this key, as `get` returns it: another thread may
      have put one meanwhile.
    """
    line = json_io.line({"key": key, "answer": answer})
    with self._lock:
      known, start = key in self._places, self._end
      if not known:
        self._append(line)
        self._places[key] = self._path, self._end
        self._end += len(line)
    if known:
      return self.get(key)
    if self._durable:
      self._upload(start + 1)
    return answer

  def save(self) -> None:
    """Uploads all entries, if the file is in a bucket."""
    self._upload(self._end)

  def _upload(self, size: int) -> None:
    """Uploads the first `size` bytes of this host's file, if in a bucket."""
    if self._blocks:
      self._blocks[0].upload(size)

  def _append(self, line: bytes) -> None:
    self._path.parent.mkdir(parents=True, exist_ok=True)
    with (
      store.writing(self._path),
      open(self._path, "r+b", opener=_created) as file,
    ):
      # After the last complete line, so that half a line is overwritten.
      file.seek(self._end)
      file.truncate()
      file.write(line)


def _created(path: str, flags: int) -> int:
  """Opens a file, and creates it if it is missing.

  At once: whoever has finished a shard removes the journals of all others.
  """
  return os.open(path, flags | os.O_CREAT, 0o666)
