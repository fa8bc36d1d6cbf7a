"""Files on the disk or in a bucket (gs://).

On the disk a file is written under a temporary name and then renamed. An object
in a bucket is written atomically, and cannot be renamed or appended to; folders
are only parts of names. Each request to a bucket takes a round trip, so a
folder is listed once and objects are read in parallel.
"""

import collections
import concurrent.futures
import contextlib
import datetime
import fnmatch
import hashlib
import itertools
import os
import pathlib
import shutil
import tempfile
import time
import uuid
from collections.abc import (
  Callable,
  Collection,
  Iterable,
  Iterator,
  Sequence,
)
from typing import Any, NamedTuple, TypeVar

# Buckets are accessed in one way, whatever is installed: without TensorFlow,
# and without the second protocol for buckets with folders.
os.environ.setdefault("EPATH_USE_TF", "false")
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

import fsspec.config  # noqa: E402
from etils import epath  # noqa: E402

from rstar_jax import outside  # noqa: E402

# Listings are not cached, since other hosts write too; checksums of transfers
# are compared.
fsspec.config.conf.setdefault("gs", {}).update(
  use_listings_cache=False, consistency="md5"
)

# pathlib on the disk, etils in a bucket.
Path = pathlib.Path | epath.Path

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Pattern of the names of files that are being written.
TEMPORARY = ".*.tmp"

_SCHEME = "gs://"
_THREADS = 16
# Bytes per read of an object.
_PART = 1 << 25
# Errors for which a listing leaves a folder out.
_PASSED_OVER = (FileNotFoundError, NotADirectoryError, PermissionError)
# Nanoseconds after which rewriting a file surely changes its time.
_SETTLED = 2_000_000_000


def path(where: str | Path) -> Path:
  """Parses the path of a folder or file.

  Args:
    where: a path on the disk, or gs://BUCKET/NAME.

  Raises:
    ValueError: another URL, or gs:// without gcsfs installed.
  """
  text = str(where)
  # gs:/ is a typing error, or made by pathlib: as a local folder it would be
  # lost with a TPU's disk.
  if "://" not in text and not text.startswith(_SCHEME[:-1]):
    return pathlib.Path(where)
  if not text.startswith(_SCHEME) or not text.removeprefix(_SCHEME).strip("/"):
    raise ValueError(
      f"{text} is neither on the disk nor gs://BUCKET/NAME: mount or download "
      "it, and give the path"
    )
  try:
    fsspec.get_filesystem_class("gs")
  except ImportError:
    raise ValueError(
      f"{text} needs gcsfs: pip install 'rstar_jax[gcs]'"
    ) from None
  return epath.Path(text)


def is_remote(where: str | Path) -> bool:
  """Returns whether a path is in a bucket."""
  return str(where).startswith(_SCHEME)


def name_of(folder: Path) -> str:
  """Returns a folder's name; "." and ".." have those of the folders meant."""
  return pathlib.Path(os.path.abspath(folder)).name


def check(folder: Path) -> None:
  """Checks that a folder's bucket exists and is accessible.

  Args:
    folder: a folder on the disk is not checked.

  Raises:
    ValueError: it is not; the message gives the reason and a remedy.
  """
  if not is_remote(folder):
    return
  bucket = "/".join(str(folder).split("/")[:3])
  try:
    # Without this permission gcsfs falls back to listing, and orbax fails.
    if "id" not in fsspec.filesystem("gs").info(bucket):
      raise PermissionError("storage.buckets.get is not allowed")
  except Exception as error:
    reason = outside.first_line(error)
    raise ValueError(
      f"{bucket} cannot be used ({type(error).__name__}: {reason}): check its "
      "name, log in by `gcloud auth application-default login`, or give "
      "the machine's service account the roles storage.objectUser and "
      "storage.legacyBucketReader on it"
    ) from error


def read(file: Path, most: int | None = None, start: int = 0) -> bytes | None:
  """Returns the content of a file, or a part; None if there is no file.

  Args:
    file: on the disk or in a bucket.
    most: most bytes to read; None is all.
    start: offset in bytes, below the file's size.
  """
  with contextlib.suppress(FileNotFoundError, NotADirectoryError):
    if not is_remote(file):
      with open(file, "rb") as stream:
        stream.seek(start)
        return stream.read(-1 if most is None else most)
    end = None if most is None else start + most
    with _bucket(file) as bucket:
      return bucket.cat_file(str(file), start=start or None, end=end)
  return None


@contextlib.contextmanager
def writing(file: Path) -> Iterator[None]:
  """Adds the file's name to errors of a block that writes it.

  Raises:
    OSError: e.g. the disk is full; one line that says what to do.
  """
  try:
    yield
  except OSError as error:
    if error.filename is not None or error.strerror is None:
      raise  # The error names a file.
    raise OSError(
      f"{file} cannot be written ({error.strerror}): run the same command "
      "again once it can"
    ) from error


def write(file: Path, data: bytes) -> None:
  """Writes a file atomically: a reader sees the old content or the new.

  Args:
    file: it has one writer; its folder is created if missing.
    data: the whole content.
  """
  if is_remote(file):
    with _bucket(file) as bucket:
      bucket.pipe_file(str(file), data)
    return
  file.parent.mkdir(parents=True, exist_ok=True)
  temporary = file.parent / f".{file.name}.{uuid.uuid4().hex}.tmp"
  try:
    with writing(file), open(temporary, "xb") as stream:
      stream.write(data)
      stream.flush()
      os.fsync(stream.fileno())
    os.replace(temporary, file)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
  # The new name must survive a power failure too.
  descriptor = os.open(file.parent, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _walk(
  folder: Path, skip: Collection[str]
) -> Iterator[tuple[str, "Version"]]:
  """Yields the files below a folder on the disk, as `files` names them.

  Files that vanish meanwhile are left out, such as an incomplete checkpoint
  that a run removes; `rglob` would raise.
  """

  def check(error: OSError) -> None:
    if not isinstance(error, _PASSED_OVER):
      raise error

  for top, folders, names in os.walk(folder, onerror=check):
    if skip:
      at = pathlib.Path(top).relative_to(folder)
      folders[:] = [n for n in folders if (at / n).as_posix() not in skip]
    for name in names:
      file = pathlib.Path(top, name)
      with contextlib.suppress(FileNotFoundError):
        found = _version_of(file.stat())
        yield file.relative_to(folder).as_posix(), found


def matches(name: str, *patterns: str) -> bool:
  """Returns whether a file's name, without folders, matches any pattern."""
  own = name.rpartition("/")[2]
  return any(fnmatch.fnmatchcase(own, pattern) for pattern in patterns)


def sweep(folder: Path, *patterns: str) -> None:
  """Removes the files below a folder whose names match any pattern."""
  for name in files(folder):
    if matches(name, *patterns):
      with contextlib.suppress(FileNotFoundError):
        remove(folder / name)


class Version(NamedTuple):
  """The version of a file: it changes whenever the file is written.

  Attributes:
    size: in bytes.
    generation: an object's generation, or the time at which a file on the disk
      was last written, in nanoseconds.
  """

  size: int
  generation: str


def version(file: Path) -> Version | None:
  """Returns the version of a file, None if there is none."""
  with contextlib.suppress(FileNotFoundError, NotADirectoryError):
    if not is_remote(file):
      return _version_of(file.stat())
    with _bucket(file) as bucket:
      return _version_in(bucket.info(str(file)))
  return None


def _version_of(found: os.stat_result) -> Version:
  return Version(found.st_size, str(found.st_mtime_ns))


def _version_in(info: dict[str, Any]) -> Version:
  return Version(info["size"], str(info.get("generation", "")))


def is_settled(where: Path, version: Version) -> bool:
  """Returns whether writing the file now would change its version.

  Clocks tick: a file on the disk that was written a moment ago could be written
  again within the same tick.
  """
  if is_remote(where):
    return bool(version.generation)
  return abs(time.time_ns() - int(version.generation)) > _SETTLED


def files(folder: Path, skip: Collection[str] = ()) -> dict[str, Version]:
  """Lists the files below a folder, in one request if nothing is skipped.

  Args:
    folder: on a disk or in a bucket.
    skip: subfolders, as relative names, that are not listed.

  Returns:
    Versions by name, relative to the folder, with slashes. {} if there is no
    such folder.
  """
  if not is_remote(folder):
    return dict(_walk(folder, skip))
  start = f"{str(folder).removeprefix(_SCHEME)}/"
  found: dict[str, dict[str, Any]] = {}
  # Folders above a skipped one are listed one by one.
  parents = {parent for name in skip for parent in above(name)}
  left = [""]
  while left:
    at = left.pop()
    where = (start + at).rstrip("/")
    with contextlib.suppress(FileNotFoundError), _bucket(folder) as bucket:
      if at not in parents:
        found |= bucket.find(where, detail=True)
        continue
      for each in bucket.ls(where, detail=True):
        name = each["name"].removeprefix(start).rstrip("/")
        if each["type"] != "directory":
          found[each["name"]] = each
        elif name != at and name not in skip:
          left.append(name)
  return {
    name.removeprefix(start): _version_in(info)
    for name, info in found.items()
    # Some tools create objects that represent folders.
    if name.startswith(start) and not name.endswith("/")
  }


def above(name: str) -> list[str]:
  """Returns the folders above a folder, starting with ""."""
  parts = name.split("/")
  return ["/".join(parts[:count]) for count in range(len(parts))]


def children(folder: Path) -> list[str]:
  """Lists the names in a folder, sorted; [] if there is no such folder."""
  try:
    if not is_remote(folder):
      return sorted(each.name for each in folder.iterdir())
    with _bucket(folder) as bucket:
      names = bucket.ls(str(folder), detail=False)
  except (FileNotFoundError, NotADirectoryError):
    return []
  return sorted({each.rstrip("/").rpartition("/")[2] for each in names} - {""})


def modified(file: Path) -> float | None:
  """Returns when a file was last written, as Unix time; None without a file.

  The clock is that of the disk's machine, or of the bucket.
  """
  with contextlib.suppress(FileNotFoundError):
    if not is_remote(file):
      return file.stat().st_mtime
    with _bucket(file) as bucket:
      seconds = bucket.modified(str(file))
      return seconds.replace(tzinfo=datetime.UTC).timestamp()
  return None


def digest(file: Path, version: Version) -> tuple[int, str]:
  """Reads a file, and returns its size and SHA-256.

  Args:
    file: the file.
    version: from `files`.
  """
  if not is_remote(file):
    with open(file, "rb") as stream:
      sums = hashlib.file_digest(stream, "sha256")
      return os.fstat(stream.fileno()).st_size, sums.hexdigest()
  size, sums = 0, hashlib.sha256()
  for start in range(0, version.size, _PART):
    end = min(start + _PART, version.size)
    with _bucket(file) as bucket:
      part = bucket.cat_file(str(file), start, end)
    size += len(part)
    sums.update(part)
  return size, sums.hexdigest()


def prefetch(
  function: Callable[[_Item], _Result], items: Iterable[_Item], where: Path
) -> Iterator[_Result]:
  """Maps a function over items; for a bucket, ahead of time in threads.

  Args:
    function: reads or writes one item.
    items: its arguments.
    where: folder of the items. On the disk nothing runs ahead.

  Yields:
    The results in order.
  """
  if not is_remote(where):
    yield from map(function, items)
    return
  left = iter(items)
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    running = collections.deque(
      pool.submit(function, each) for each in itertools.islice(left, _THREADS)
    )
    try:
      while running:
        done = running.popleft().result()
        running += [
          pool.submit(function, each) for each in itertools.islice(left, 1)
        ]
        yield done
    finally:
      for each in running:
        each.cancel()


@contextlib.contextmanager
def local(where: str | Path, skip: Sequence[str] = ()) -> Iterator[Any]:
  """Provides a path on the disk, for libraries that cannot read buckets.

  Args:
    where: a file or folder. In a bucket it is copied, without subfolders, and
      the copy is removed at the end; a path on the disk is returned as it is.
    skip: patterns of names to leave out.

  Raises:
    FileNotFoundError: the bucket does not have it.
  """
  if "://" not in str(where):
    yield where
    return
  where = path(where)
  with tempfile.TemporaryDirectory() as folder:
    target, there = pathlib.Path(folder), files(where)
    if not there:
      copy(where, target / where.name)
      yield target / where.name
      return

    def fetch(name: str) -> None:
      copy(where / name, target / name)

    wanted = [
      name for name in there if "/" not in name and not matches(name, *skip)
    ]
    collections.deque(prefetch(fetch, wanted, where), maxlen=0)
    yield target


@contextlib.contextmanager
def staged(folder: str | Path, stale: str = "") -> Iterator[pathlib.Path]:
  """Provides a folder on the disk, for libraries that cannot write buckets.

  Args:
    folder: the destination. On the disk it is created, and provided itself. In
      a bucket the files are uploaded at the end, unless there was an error.
    stale: pattern of names; older objects that match it are removed.
  """
  folder = path(folder)
  if not is_remote(folder):
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    return
  with tempfile.TemporaryDirectory() as temporary:
    source = pathlib.Path(temporary)
    yield source
    names = sorted(files(source))

    def send(name: str) -> None:
      copy(source / name, folder / name)

    collections.deque(prefetch(send, names, folder), maxlen=0)
    if stale:
      for name in children(folder):
        if name not in names and matches(name, stale):
          remove(folder / name)


def remove(file: Path) -> None:
  """Removes a file."""
  if is_remote(file):
    with _bucket(file) as bucket:
      bucket.rm_file(str(file))
  else:
    file.unlink()


def remove_all(folder: Path) -> None:
  """Removes a folder with its content, if it exists."""
  if not is_remote(folder):
    shutil.rmtree(folder, ignore_errors=True)
    return

  def remove_one(name: str) -> None:
    remove(folder / name)

  collections.deque(prefetch(remove_one, files(folder), folder), maxlen=0)


def copy(source: Path, target: Path) -> None:
  """Copies a file between any two places; objects appear atomically."""
  if not is_remote(target):
    target.parent.mkdir(parents=True, exist_ok=True)
  if not is_remote(source) and not is_remote(target):
    shutil.copy2(source, target)
    return
  with _bucket(target if is_remote(target) else source) as bucket:
    if not is_remote(source):
      bucket.put_file(str(source), str(target))
    elif not is_remote(target):
      bucket.get_file(str(source), str(target))
    else:
      bucket.cp_file(str(source), str(target))


@contextlib.contextmanager
def _bucket(where: str | Path) -> Iterator[fsspec.AbstractFileSystem]:
  """Provides the file system of buckets, whose errors become OSErrors."""
  try:
    yield fsspec.filesystem("gs")
  except OSError:
    raise
  except Exception as error:
    reason = outside.first_line(error)
    raise OSError(
      f"{where} cannot be read or written ({type(error).__name__}: {reason}): "
      "run the same command again once it can"
    ) from error
