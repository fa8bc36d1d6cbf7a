"""A network, file system and process table of their own for a worker.

In the new network there is nothing, not even a loopback interface. What holds
nothing that the interpreter needs is covered in the file system by an empty
folder. The worker becomes process 1 of its process table: nothing outside has a
name there, and when it ends all that it left behind ends too.

Root may have them; an ordinary user too, through a user namespace, where the
system lets him. Most containers let nobody.

Runs inside the sandbox's processes: standard library only.
"""

import contextlib
import os
import select
import signal

from rstar_jax.sandbox.isolation import kernel

_USER = 0x10000000
_FLAGS = {
  "mnt": 0x00020000,
  "ipc": 0x08000000,
  "net": 0x40000000,
  "pid": 0x20000000,
}
_RDONLY_NOSUID_NODEV_NOEXEC = 1 | 2 | 4 | 8
_REC, _PRIVATE = 0x4000, 0x40000
# Top-level folders with what a system is made of.
_SYSTEM = frozenset("bin dev etc lib lib32 lib64 libx32 nix sbin usr".split())
_ALSO = ("/dev/shm", "/dev/mqueue", "/var/tmp")


def enter(paths: tuple[str, ...]) -> tuple[dict[str, str], int | None]:
  """Moves this process into namespaces of its own, those that it may have.

  For that of processes it is forked, and what returns is the child, process 1.
  The parent waits for it and ends as it ends; see `follow` for the reverse.

  Args:
    paths: what must stay visible in the file system.

  Returns:
    For each of "mnt", "ipc", "net" and "pid" why there is none, "" where there
    is one; and, if this is process 1, a descriptor for `follow`, else None.
  """
  failures = dict.fromkeys(_FLAGS, "")
  if not kernel.LINUX:
    return dict.fromkeys(_FLAGS, "namespaces are Linux's"), None
  if os.geteuid() != 0:
    user, group = os.geteuid(), os.getegid()
    # Tried in a fork, since there is no way back from a half-made one.
    if (failure := _attempt(lambda: _enter_user(user, group))) is not None:
      return dict.fromkeys(_FLAGS, failure), None
    _enter_user(user, group)
  for name, flag in _FLAGS.items():
    try:
      kernel.call("unshare", flag)
    except OSError as error:
      failures[name] = str(error)
  if not failures["mnt"]:
    try:
      _cover(paths)
    except OSError as error:
      failures["mnt"] = str(error)
  if failures["pid"]:
    return failures, None
  outer = _become_first()
  if not failures["mnt"]:
    # So that the worker finds what programs leave running. Where that is not
    # allowed, they end with the worker.
    with contextlib.suppress(OSError):
      _mount(b"proc", "/proc", None)
  return failures, outer


def _enter_user(user: int, group: int) -> None:
  kernel.call("unshare", _USER)
  for name, text in (
    ("setgroups", "deny"),
    ("uid_map", f"{user} {user} 1"),
    ("gid_map", f"{group} {group} 1"),
  ):
    with open(f"/proc/self/{name}", "w") as file:
      file.write(text)
  # Some systems give a user namespace without any right in it.
  kernel.call("unshare", _FLAGS["ipc"])


def _attempt(action) -> str | None:
  """Does something in a fork; returns what went wrong, None if nothing."""
  reader, writer = os.pipe()
  pid = os.fork()
  if pid == 0:
    try:
      action()
      os.write(writer, b"+")
    except OSError as error:
      os.write(writer, str(error).encode())
    finally:
      os._exit(0)
  os.close(writer)
  text = os.read(reader, 4096).decode()
  os.close(reader)
  os.waitpid(pid, 0)
  return None if text == "+" else text or "it crashed"


def _cover(paths: tuple[str, ...]) -> None:
  """Covers what is not needed with empty folders that cannot be written."""
  kernel.call("mount", b"none", b"/", None, _REC | _PRIVATE, None)
  for folder in _unneeded(paths):
    # One that cannot be covered is left to landlock.
    with contextlib.suppress(OSError):
      _mount(b"tmpfs", folder, b"size=4k,mode=555")


def _mount(kind: bytes, folder: str, options: bytes | None) -> None:
  kernel.call(
    "mount",
    b"none",
    os.fsencode(folder),
    kind,
    _RDONLY_NOSUID_NODEV_NOEXEC,
    options,
  )


def _unneeded(paths: tuple[str, ...]) -> list[str]:
  """Returns the folders to cover: none holds one of the paths."""
  with os.scandir("/") as entries:
    top = [
      entry.path
      for entry in entries
      if entry.name not in _SYSTEM and entry.is_dir(follow_symlinks=False)
    ]
  also = [path for path in _ALSO if os.path.isdir(path)]
  return [
    folder
    for folder in sorted(top) + also
    if not any(path.startswith(folder + "/") for path in paths)
  ]


def _become_first() -> int:
  """Forks, and returns in the child: process 1 of the new process namespace.

  Returns:
    A descriptor that hangs up when the parent ends.
  """
  reader, writer = os.pipe()
  pid = os.fork()
  if pid:
    # Its copies of the worker's descriptors would keep the host waiting.
    os.close(reader)
    os.closerange(3, writer)
    os.closerange(writer + 1, 1024)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
      os.kill(os.getpid(), signal.SIGKILL)
    os._exit(os.waitstatus_to_exitcode(status))
  os.close(writer)
  return reader


def follow(outer: int) -> bool:
  """Asks the kernel to end this process, and with it all, with its parent.

  To become another user undoes it.

  Args:
    outer: descriptor from `enter`; it is closed.

  Returns:
    Whether the kernel agreed.
  """
  held = kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
  # The parent has no number here by which to tell whether it still lives.
  poller = select.poll()
  poller.register(outer, 0)
  if poller.poll(0):
    os._exit(1)
  os.close(outer)
  return held
