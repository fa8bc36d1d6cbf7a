"""Files where a run keeps them: in a folder, or in a bucket (gs://).

What differs is here. On a disk a file is written under another name and renamed
when it is whole. An object of a bucket appears whole or not at all, and is
never renamed or appended to; folders are only parts of names; each look takes a
round trip, so that a folder is listed once and objects are read side by side.
"""

import collections
import concurrent.futures
import contextlib
import fnmatch
import hashlib
import itertools
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

# One way to a bucket, whatever is installed and whatever the bucket is: no
# TensorFlow, and no second protocol for buckets with folders.
os.environ.setdefault("EPATH_USE_TF", "false")
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

import fsspec.config  # noqa: E402
from etils import epath  # noqa: E402

# What others write must be seen, so no listing is kept; and what arrived is
# compared with what was sent.
fsspec.config.conf.setdefault("gs", {}).update(
  use_listings_cache=False, consistency="md5"
)

# Of the disk a path of the standard library, of a bucket one of etils.
Path = pathlib.Path | epath.Path

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_SCHEME = "gs://"
_THREADS = 16
# Bytes of a piece of a file: on the disk, and of an object.
_CHUNK, _PART = 1 << 20, 1 << 25
# Why a folder is left out of a listing: it is none, or not ours to see.
_PASSED_OVER = (FileNotFoundError, NotADirectoryError, PermissionError)
# Digests of objects by name and version, of which each is computed once.
_digests: dict[tuple[str, "Version | None"], str] = {}


def path(where: str | Path) -> Path:
  """Returns the path of a folder or file that a person named.

  Args:
    where: on the disk, or gs://BUCKET/NAME.

  Raises:
    ValueError: it is of another kind, or what reads gs:// is not installed.
  """
  text = str(where)
  if "://" not in text:
    return pathlib.Path(where)
  if not text.startswith(_SCHEME) or not text.removeprefix(_SCHEME).strip("/"):
    raise ValueError(f"{text} is neither a folder nor gs://BUCKET/NAME")
  try:
    fsspec.get_filesystem_class("gs")
  except ImportError:
    raise ValueError(
      f"{text} needs gcsfs: pip install 'rstar_jax[gcs]'"
    ) from None
  return epath.Path(text)


def is_remote(where: str | Path) -> bool:
  """Says whether a path is in a bucket."""
  return str(where).startswith(_SCHEME)


def check(folder: Path) -> None:
  """Looks at a bucket once, so that what is wrong is said at once.

  Args:
    folder: in the bucket; one on the disk is not looked at.

  Raises:
    ValueError: it is not there, or not for us; says why, and what may help.
  """
  if not is_remote(folder):
    return
  bucket = "/".join(str(folder).split("/")[:3])
  try:
    # Without this right a listing is all there is, and orbax cannot work.
    if "id" not in fsspec.filesystem("gs").info(bucket):
      raise PermissionError("storage.buckets.get is not allowed")
  except Exception as error:
    reason = str(error).strip().partition("\n")[0][:200]
    raise ValueError(
      f"{bucket} cannot be used ({type(error).__name__}: {reason}): check its "
      "name, log in by `gcloud auth application-default login`, or give "
      "the machine's service account the roles storage.objectUser and "
      "storage.legacyBucketReader on it"
    ) from error


def read(file: Path) -> bytes | None:
  """Returns what is in a file, None where there is none."""
  with contextlib.suppress(FileNotFoundError, NotADirectoryError):
    if not is_remote(file):
      return file.read_bytes()
    with _bucket(file) as bucket:
      return bucket.cat_file(str(file))
  return None


def write(file: Path, data: bytes) -> None:
  """Writes a file: a reader sees all of it, or what was there before.

  Args:
    file: its folder is made if need be. It has one writer.
    data: what is in it.
  """
  if is_remote(file):
    with _bucket(file) as bucket:
      bucket.pipe_file(str(file), data)
    return
  file.parent.mkdir(parents=True, exist_ok=True)
  temporary = file.parent / f".{file.name}.{uuid.uuid4().hex}.tmp"
  try:
    with open(temporary, "xb") as stream:
      stream.write(data)
      stream.flush()
      os.fsync(stream.fileno())
    os.replace(temporary, file)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
  # The new name must survive a power cut too.
  descriptor = os.open(file.parent, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _walk(folder: Path) -> Iterator[pathlib.Path]:
  """Yields the files below a folder of the disk.

  Folders that vanish meanwhile, as half of a checkpoint does beside the run
  that clears it away, are left out; `rglob` would raise.
  """

  def check(error: OSError) -> None:
    if not isinstance(error, _PASSED_OVER):
      raise error

  for top, _, names in os.walk(folder, onerror=check):
    for name in names:
      yield pathlib.Path(top, name)


def sweep(folder: Path) -> None:
  """Removes what writers that were killed left half written below a folder."""
  if not is_remote(folder):
    for each in _walk(folder):
      if fnmatch.fnmatchcase(each.name, ".*.tmp"):
        each.unlink(missing_ok=True)


class Version(NamedTuple):
  """What a listing says of an object; another one once it is written again."""

  size: int
  generation: str


def files(folder: Path) -> dict[str, Version | None]:
  """Lists the files below a folder, in one go.

  Returns:
    Name relative to the folder, with slashes -> version, None on the disk. {}
    where there is no such folder.
  """
  if not is_remote(folder):
    return {each.relative_to(folder).as_posix(): None for each in _walk(folder)}
  start = f"{str(folder).removeprefix(_SCHEME)}/"
  with _bucket(folder) as bucket:
    found = bucket.find(str(folder), detail=True)
  return {
    name.removeprefix(start): Version(
      info["size"], str(info.get("generation", ""))
    )
    for name, info in found.items()
    # Some tools make objects that stand for folders.
    if name.startswith(start) and not name.endswith("/")
  }


def children(folder: Path) -> list[str]:
  """Lists what is in a folder, by name; [] where there is no such folder."""
  try:
    if not is_remote(folder):
      return sorted(each.name for each in folder.iterdir())
    with _bucket(folder) as bucket:
      names = bucket.ls(str(folder), detail=False)
  except (FileNotFoundError, NotADirectoryError):
    return []
  return sorted({each.rstrip("/").rpartition("/")[2] for each in names} - {""})


def digest(file: Path, version: Version | None) -> tuple[int, str]:
  """Returns the size of a file and the SHA-256 of what is in it.

  Args:
    file: to be read.
    version: of `files`; a process reads each version of an object once.
  """
  key = str(file), version
  if version is not None and key in _digests:
    return version.size, _digests[key]
  size, sums = 0, hashlib.sha256()
  for chunk in _chunks(file, version):
    size += len(chunk)
    sums.update(chunk)
  if version is not None and version.generation:
    _digests[key] = sums.hexdigest()
  return size, sums.hexdigest()


def _chunks(file: Path, version: Version | None) -> Iterator[bytes]:
  if version is None:
    with file.open("rb") as stream:
      while chunk := stream.read(_CHUNK):
        yield chunk
    return
  for start in range(0, version.size, _PART):
    end = min(start + _PART, version.size)
    with _bucket(file) as bucket:
      chunk = bucket.cat_file(str(file), start, end)
    yield chunk


def ahead(
  function: Callable[[_Item], _Result], items: Iterable[_Item], where: Path
) -> Iterator[_Result]:
  """Maps; what is in a bucket is read some items ahead, in threads.

  Args:
    function: of one item.
    items: some.
    where: they are.

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
  """Gives a path on the disk for libraries that know no other.

  Args:
    where: a file or a folder in a bucket, of which a copy is made, without
      folders in it, and removed in the end; anything else is given as it is.
    skip: patterns of names that are not wanted.

  Raises:
    FileNotFoundError: it is not in the bucket.
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
      name for name in there if "/" not in name and not _any(skip, name)
    ]
    collections.deque(ahead(fetch, wanted, where), maxlen=0)
    yield target


@contextlib.contextmanager
def staged(folder: str | Path, stale: str = "") -> Iterator[pathlib.Path]:
  """Gives a folder on the disk to write in, for libraries that know no other.

  Args:
    folder: where its files go at the end: itself if it is on the disk, and is
      made then; else they are copied to the bucket. Nothing is copied after an
      error.
    stale: a pattern; objects of such names that are not written are removed.
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

    collections.deque(ahead(send, names, folder), maxlen=0)
    if stale:
      for name in children(folder):
        if name not in names and fnmatch.fnmatchcase(name, stale):
          remove(folder / name)


def remove(file: Path) -> None:
  """Removes a file."""
  if is_remote(file):
    with _bucket(file) as bucket:
      bucket.rm_file(str(file))
  else:
    file.unlink()


def copy(source: Path, target: Path) -> None:
  """Copies a file, from and to wherever they are; it is there when whole."""
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


def _any(patterns: Sequence[str], name: str) -> bool:
  return any(fnmatch.fnmatchcase(name, each) for each in patterns)


@contextlib.contextmanager
def _bucket(where: str | Path) -> Iterator[fsspec.AbstractFileSystem]:
  """Gives what talks to a bucket, whose many errors become one kind."""
  try:
    yield fsspec.filesystem("gs")
  except OSError:
    raise
  except Exception as error:
    reason = str(error).strip().partition("\n")[0][:200]
    raise OSError(
      f"{where} cannot be read or written ({type(error).__name__}: {reason}): "
      "the same command goes on once it can"
    ) from error
