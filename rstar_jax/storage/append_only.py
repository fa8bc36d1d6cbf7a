"""Append-only files of a run whose folder may be in a bucket.

Objects in a bucket cannot be appended to, so the files grow on the local disk
and are copied. A `Mirror` copies at intervals, for files whose last lines may
be lost; `Blocks` upload on request, for files that must be durable.
"""

import pathlib
import shutil
import tempfile
import threading
import time
import weakref

from absl import logging

from rstar_jax.storage import store

_MIRROR_SECONDS = 30.0
# Size of a full block in bytes; until then each upload rewrites it.
_BLOCK = 1 << 22
# Cloud Storage allows about one write a second to one object.
_BLOCK_SECONDS = 1.0


class Mirror:
  """A folder on the disk whose files are copied to a bucket at intervals.

  Attributes:
    local: the folder to write in. If the run's folder is on the disk, it is
      that folder, and nothing is copied.
  """

  def __init__(self, folder: store.Path, seconds: float = _MIRROR_SECONDS):
    """Starts the thread that copies.

    Args:
      folder: the destination.
      seconds: time between two copies; a killed process loses what it wrote
        since the last one.
    """
    self._folder, self._seconds = folder, seconds
    self._sizes: dict[str, int] = {}
    self._thread = None
    if not store.is_remote(folder):
      self.local = pathlib.Path(folder)
      self.local.mkdir(parents=True, exist_ok=True)
      return
    self._temporary = tempfile.TemporaryDirectory()
    self.local = pathlib.Path(self._temporary.name)
    self._over = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def resume(self, name: str) -> pathlib.Path:
    """Returns the local copy of a file, downloaded from the bucket."""
    file = self.local / name
    if self._thread is not None:
      data = store.read(self._folder / name)
      if data is not None:
        self._sizes[name] = len(data)
        file.write_bytes(data)
    return file

  def close(self) -> None:
    """Copies the files for the last time."""
    if self._thread is not None:
      self._over.set()
      self._thread.join()
      self._thread = None
      self._copy()
      self._temporary.cleanup()

  def _run(self) -> None:
    while not self._over.wait(self._seconds):
      self._copy()

  def _copy(self) -> None:
    for name in store.files(self.local):
      size = (self.local / name).stat().st_size
      if size == self._sizes.get(name):
        continue
      try:
        store.copy(self.local / name, self._folder / name)
      except OSError as error:  # A failed copy must not end a run.
        logging.warning("%s was not copied: %s", self._folder / name, error)
      else:
        self._sizes[name] = size


class Blocks:
  """An append-only file in a bucket, as objects NAME.00000, NAME.00001, ...

  An upload rewrites the last object; when that is full, a new one begins. The
  file has one writer.

  Attributes:
    file: the local copy of the whole file, to read from and to append to.
  """

  def __init__(self, path: store.Path, seconds: float = _BLOCK_SECONDS):
    """Downloads the existing objects.

    Args:
      path: NAME, in a bucket.
      seconds: least time between two uploads.
    """
    self._path, self._seconds = path, seconds
    folder = tempfile.mkdtemp()
    weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
    self.file = pathlib.Path(folder) / path.name
    names = block_names(path)
    size = 0
    with self.file.open("wb") as stream:
      for data in store.prefetch(
        lambda name: store.read(path.parent / name), names, path
      ):
        # None if another process has removed it meanwhile.
        size = stream.write(data or b"")
    self._uploaded = self.file.stat().st_size
    # Number of the last block, and its offset in the file.
    self._number = max(len(names) - 1, 0)
    self._start = self._uploaded - size
    self._wrote = -seconds
    self._lock = threading.Lock()

  def upload(self, end: int) -> None:
    """Uploads the file until the bucket has at least its first `end` bytes.

    Threads that call this together share one upload.

    Args:
      end: offset, at most the file's size. The bytes before it are final, and
        whole lines.
    """
    if self._uploaded >= end:
      return
    with self._lock:
      if self._uploaded >= end:
        return
      if self._uploaded - self._start >= _BLOCK:
        self._number, self._start = self._number + 1, self._uploaded
      time.sleep(max(self._wrote + self._seconds - time.monotonic(), 0))
      with self.file.open("rb") as stream:
        stream.seek(self._start)
        data = stream.read()
      # Another thread may be in the middle of a line.
      data = data[: data.rfind(b"\n") + 1]
      name = f"{self._path.name}.{self._number:05d}"
      store.write(self._path.parent / name, data)
      self._wrote = time.monotonic()
      self._uploaded = self._start + len(data)


def block_names(path: store.Path) -> list[str]:
  """Lists the objects of an append-only file, in order."""
  start = f"{path.name}."
  return sorted(
    name for name in store.children(path.parent) if name.startswith(start)
  )
