"""Gives a worker its own network, file system and process namespaces.

The new network is empty, without even a loopback interface. In the file system,
empty folders are mounted over those that the interpreter does not need. The
worker becomes process 1 of its process namespace: processes outside have no pid
in it, and when the worker ends, all processes in the namespace end.

Root may create namespaces; an ordinary user may, through a user namespace, if
the system allows it. Most containers do not.

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
# Top-level folders that hold the system itself; never covered.
_SYSTEM = frozenset("bin dev etc lib lib32 lib64 libx32 nix sbin usr".split())
_SCRATCH = ("/dev/shm", "/dev/mqueue", "/var/tmp")


def enter(paths: tuple[str, ...]) -> tuple[dict[str, str], int | None]:
  """Moves this process into all new namespaces that the system allows.

  A new process namespace needs a fork: the call returns in the child, which is
  process 1. The parent waits for the child and ends with the same status; see
  `follow` for the reverse.

  Args:
    paths: paths that must stay visible in the file system.

  Returns:
    For each of "mnt", "ipc", "net" and "pid" why it is missing, "" if it is
    not; and a descriptor for `follow` if this is process 1, else None.
  """
  failures = dict.fromkeys(_FLAGS, "")
  if not kernel.LINUX:
    return dict.fromkeys(_FLAGS, "namespaces need Linux"), None
  if os.geteuid() != 0:
    user, group = os.geteuid(), os.getegid()
    # Tried in a fork first: a user namespace cannot be left again.
    if (failure := _attempt(lambda: _enter_user(user, group))) is not None:
      return dict.fromkeys(_FLAGS, failure), None
    _enter_user(user, group)
  proc = _attempt(_have_own_proc)
  for name in ("mnt", "ipc", "net"):
    failures[name] = _unshare(name)
  if not failures["mnt"]:
    try:
      _cover(paths, but=("/proc",) if proc else ())
    except OSError as error:
      failures["mnt"] = str(error)
  failures["pid"] = failures["mnt"] or proc or _unshare("pid")
  if failures["pid"]:
    return failures, None
  outer = _become_first()
  with contextlib.suppress(OSError):  # It has been tried.
    _mount(b"proc", "/proc", None)
  return failures, outer


def sees_itself() -> bool:
  """Returns whether /proc shows this process, thus its children, too."""
  try:
    return os.readlink("/proc/self") == str(os.getpid())
  except OSError:
    return False


def _unshare(name: str) -> str:
  try:
    kernel.call("unshare", _FLAGS[name])
    return ""
  except OSError as error:
    return str(error)


def _have_own_proc() -> None:
  """Mounts the /proc of a process namespace.

  The worker finds there how large its programs are, and what they leave
  running: without it, it does better in the namespace that it has.

  Raises:
    OSError: if it is refused.
  """
  kernel.call("unshare", _FLAGS["mnt"] | _FLAGS["pid"])
  kernel.call("mount", b"none", b"/", None, _REC | _PRIVATE, None)
  # The next fork is process 1.
  if failure := _attempt(lambda: _mount(b"proc", "/proc", None)):
    raise OSError(f"no /proc of its own: {failure}")


def _enter_user(user: int, group: int) -> None:
  kernel.call("unshare", _USER)
  for name, text in (
    ("setgroups", "deny"),
    ("uid_map", f"{user} {user} 1"),
    ("gid_map", f"{group} {group} 1"),
  ):
    with open(f"/proc/self/{name}", "w") as file:
      file.write(text)
  # Some systems allow a user namespace but grant no rights in it.
  kernel.call("unshare", _FLAGS["ipc"])


def _attempt(action) -> str | None:
  """Runs an action in a fork; returns its error, None if it succeeds."""
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


def _cover(paths: tuple[str, ...], but: tuple[str, ...] = ()) -> None:
  """Mounts empty read-only folders over folders that are not needed."""
  kernel.call("mount", b"none", b"/", None, _REC | _PRIVATE, None)
  for folder in _unneeded((*paths, *(f"{each}/" for each in but))):
    # Landlock protects a folder that cannot be covered.
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
  """Returns the folders to cover, which hold none of the paths."""
  with os.scandir("/") as entries:
    top = [
      entry.path
      for entry in entries
      if entry.name not in _SYSTEM and entry.is_dir(follow_symlinks=False)
    ]
  scratch = [path for path in _SCRATCH if os.path.isdir(path)]
  return [
    folder
    for folder in sorted(top) + scratch
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
    # Open copies of the worker's descriptors would hide its end from the host.
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
  """Asks the kernel to kill this process, thus the namespace, with its parent.

  A later change of user undoes it.

  Args:
    outer: descriptor from `enter`; it is closed.

  Returns:
    Whether the kernel agreed.
  """
  held = kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
  # The parent has no pid in this namespace, so the pipe tells if it has ended.
  poller = select.poll()
  poller.register(outer, 0)
  if poller.poll(0):
    os._exit(1)
  os.close(outer)
  return held
