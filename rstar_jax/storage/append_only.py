"""Files that grow, where the run's folder is in a bucket and nothing can.

They grow on the disk, and what is new is copied to the bucket: a `Mirror` does
so now and then, for what may be lost; `Blocks` when they are told to, for what
may not.
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
# Bytes of a block that is written anew whenever it has grown.
_BLOCK = 1 << 22
# An object may be written about once a second.
_BLOCK_SECONDS = 1.0


class Mirror:
  """A folder on the disk whose files are copied to one in a bucket.

  Attributes:
    local: the folder to write in; the run's own if that is on the disk, in
      which case nothing is copied.
  """

  def __init__(self, folder: store.Path, seconds: float = _MIRROR_SECONDS):
    """Begins to copy.

    Args:
      folder: where the files go.
      seconds: between two looks at what has grown. A process that is killed
        loses what was written in that time.
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
    """Returns a file that goes on from what the bucket has of it."""
    file = self.local / name
    if self._thread is not None:
      data = store.read(self._folder / name)
      if data is not None:
        self._sizes[name] = len(data)
        file.write_bytes(data)
    return file

  def close(self) -> None:
    """Copies what is new, for the last time."""
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
      except OSError as error:  # What can be lost must not end a run.
        logging.warning("%s was not copied: %s", self._folder / name, error)
      else:
        self._sizes[name] = size


class Blocks:
  """A file in a bucket that only grows, as objects NAME.00000, NAME.00001, ...

  The last of them is written anew when the file has grown, until it is so large
  that another one is begun. It has one writer.

  Attributes:
    file: on the disk: all that there is, for reading and for appending to.
  """

  def __init__(self, path: store.Path, seconds: float = _BLOCK_SECONDS):
    """Reads what there is.

    Args:
      path: NAME.
      seconds: at least so many are between two writes.
    """
    self._path, self._seconds = path, seconds
    folder = tempfile.mkdtemp()
    weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
    self.file = pathlib.Path(folder) / path.name
    names = block_names(path)
    size = 0
    with self.file.open("wb") as stream:
      for data in store.ahead(
        lambda name: store.read(path.parent / name), names, path
      ):
        size = stream.write(data)
    self._kept = self.file.stat().st_size
    # The number of the open block, and where it begins.
    self._number = max(len(names) - 1, 0)
    self._start = self._kept - size
    self._wrote = -seconds
    self._lock = threading.Lock()

  def keep(self, end: int) -> None:
    """Returns when the bucket has the file's first bytes, so many or more.

    Threads that call this together are served by one write.

    Args:
      end: at most the size of the file, whose bytes before are final and are
        whole lines.
    """
    if self._kept >= end:
      return
    with self._lock:
      if self._kept >= end:
        return
      if self._kept - self._start >= _BLOCK:
        self._number, self._start = self._number + 1, self._kept
      time.sleep(max(self._wrote + self._seconds - time.monotonic(), 0))
      with self.file.open("rb") as stream:
        stream.seek(self._start)
        data = stream.read()
      # Another thread may be at a line.
      data = data[: data.rfind(b"\n") + 1]
      name = f"{self._path.name}.{self._number:05d}"
      store.write(self._path.parent / name, data)
      self._wrote = time.monotonic()
      self._kept = self._start + len(data)


def block_names(path: store.Path) -> list[str]:
  """Lists the blocks of a file that grows, in order."""
  start = f"{path.name}."
  return sorted(
    name for name in store.children(path.parent) if name.startswith(start)
  )
