"""Gives each worker a private user without privileges.

If root starts the sandbox, programs run as a user that owns nothing and that no
other worker has. They cannot read, trace or signal processes of other users,
and RLIMIT_NPROC, which does not bind root, binds them.

An interpreter that is installed below a folder of mode 0700, such as root's
home, could then not read its own standard library. Only in this case, and only
if landlock limits reading, one capability is kept: CAP_DAC_READ_SEARCH, which
reads regardless of permissions.

Runs inside the sandbox's processes: standard library only.
"""

import ctypes
import os
import struct

from rstar_jax.sandbox.isolation import kernel

READ_SEARCH = 1 << 2  # CAP_DAC_READ_SEARCH, as a bit.
# CAP_SETGID, CAP_SETUID; and CAP_KILL, with which the host ends a worker.
_NEEDED = (6, 7, 5)
_VERSION_3 = 0x20080522


def capabilities() -> int:
  """Returns this process's effective capabilities as a bit mask."""
  header = ctypes.create_string_buffer(struct.pack("Ii", _VERSION_3, 0))
  sets = ctypes.create_string_buffer(24)
  kernel.call("capget", header, sets)
  low, _, _, high, _, _ = struct.unpack("6I", sets.raw)
  return low | high << 32


def drop_capabilities(keep: int = 0) -> None:
  """Drops capabilities irrevocably: no exec restores them.

  Call it once the process has no_new_privs.

  Args:
    keep: bit mask of the capabilities to keep.

  Raises:
    OSError: if this is not Linux, or one to keep is not held.
  """
  header = ctypes.create_string_buffer(struct.pack("Ii", _VERSION_3, 0))
  low, high = keep & 0xFFFFFFFF, keep >> 32
  kernel.call("capset", header, struct.pack("6I", low, low, 0, high, high, 0))


def private_id(pid: int) -> int:
  """Returns a user id that no other worker on this machine has.

  Args:
    pid: the worker's pid in the host's process table.

  Raises:
    OSError: if the user namespace has too few ids (some containers).
  """
  with open("/proc/self/uid_map") as file:
    ranges = [tuple(map(int, line.split())) for line in file]
  end = max(first + count for first, _, count in ranges)
  if end > 1 << 31:
    # Far above the ids that systems assign. A pid has at most 22 bits; random
    # bits above it separate containers, which number their pids apart.
    return 1 << 30 | os.urandom(1)[0] >> 1 << 22 | pid & (1 << 22) - 1
  if end < 1 << 15:
    raise OSError("there are too few users in this user namespace")
  return end - 3 - pid % (end >> 3)  # Below the ids of `nobody`.


def become_private(user: int, paths: tuple[str, ...], bounded: bool) -> str:
  """Changes this process's user to a private one and drops its privileges.

  Args:
    user: id of the user and of its group.
    paths: paths that must stay readable.
    bounded: whether landlock will bound what programs read.

  Returns:
    A note about the capability that was kept, "" if none was.

  Raises:
    OSError: if it cannot; only the supplementary groups may have changed.
  """
  if os.geteuid() != 0:
    raise OSError("only root can give a worker a user of its own")
  held = capabilities()
  if not all(held >> number & 1 for number in _NEEDED):
    raise OSError("root here lacks the capability to become another user")
  os.setgroups([])
  lacking = _unreadable(user, paths)
  keep = READ_SEARCH & held if lacking else 0
  if lacking and not (keep and bounded):
    raise OSError(f"another user could not read the interpreter's {lacking}")
  if keep:
    kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
  os.setresgid(user, user, user)
  os.setresuid(user, user, user)
  drop_capabilities(keep)
  kernel.prctl(kernel.PR_SET_KEEPCAPS, 0)
  return "reads with CAP_DAC_READ_SEARCH" if keep else ""


def _unreadable(user: int, paths: tuple[str, ...]) -> str:
  """Returns the first path that a user cannot read, "" if there is none."""
  os.setegid(user)
  os.seteuid(user)
  try:
    for path in paths:
      try:
        os.close(os.open(path, os.O_RDONLY))
      except PermissionError:
        return path
  finally:
    os.seteuid(0)
    os.setegid(0)
  return ""
