"""Locks a folder, so that a second process does not work in it.

Two processes would silently do the same work. The kernel holds the lock and
frees it when the process ends, however it ends, so a killed run does not block
the next. A file names the process that has the lock.
"""

import contextlib
import errno
import fcntl
import io
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator

from rstar_jax import outside
from rstar_jax.storage import layout, store

# Errors of a file system without locks: then nothing is locked.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# A file server frees the locks of a machine that is gone after a while.
_SECONDS, _LOOK_SECONDS = 120.0, 2.0


@contextlib.contextmanager
def alone(folder: store.Path, seconds: float = _SECONDS) -> Iterator[None]:
  """Keeps other processes out of a folder while a block runs.

  Args:
    folder: created if it does not exist. In a bucket there are no locks.
    seconds: time to wait for a process of another machine, which may be gone.

  Raises:
    ValueError: another process works there; the message names it.
  """
  if store.is_remote(folder):
    yield
    return
  path = pathlib.Path(folder) / layout.AT_WORK
  until = time.monotonic() + seconds
  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = _locked(path)
  except OSError as error:
    raise OSError(
      f"{folder} cannot be written ({error.strerror}): give a --workdir that "
      "can be, or make this one so"
    ) from error
  while file is None:
    who = _holder(path)
    here = who.get("host") == socket.gethostname()
    if here or time.monotonic() > until:
      raise ValueError(_message(who, folder, path, here))
    time.sleep(_LOOK_SECONDS)
    file = _locked(path)
  with file:
    began = {"host": socket.gethostname(), "pid": os.getpid()}
    with store.writing(path):
      file.truncate()
      file.write(json.dumps(began | {"began": int(time.time())}).encode())
    try:
      yield
    finally:
      path.unlink(missing_ok=True)


def _locked(path: pathlib.Path) -> io.RawIOBase | None:
  """Opens and locks a file; returns None if another process has the lock."""
  while True:
    # Unbuffered: a write that a full disk refuses is not repeated at close.
    file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", 0)
    try:
      # A lock of the process, not of the open file: children do not inherit it.
      fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in _NO_LOCKS:
        return file
      file.close()
      if error.errno in (errno.EACCES, errno.EAGAIN):
        return None
      raise
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
        return file
    # The process that had the lock has removed the file meanwhile.
    file.close()


def _holder(path: pathlib.Path) -> dict:
  """Returns the description of the process that has the lock."""
  with contextlib.suppress(OSError, outside.Bad):
    who = outside.parse(path.read_bytes())
    if isinstance(who, dict):
      return who
  return {}


def _message(
  who: dict, folder: store.Path, path: pathlib.Path, here: bool
) -> str:
  began = who.get("began")
  since = ""
  if isinstance(began, int):
    since = f" since {time.strftime('%H:%M', time.localtime(began))}"
  gone = "" if here else f", remove {path} if that machine is gone"
  return (
    f"PID {who.get('pid', '?')} on {who.get('host', 'a machine')} works in "
    f"{folder}{since}, and two would do everything twice: let it end{gone}, or "
    "give another --workdir; --distributed is for several on purpose"
  )
