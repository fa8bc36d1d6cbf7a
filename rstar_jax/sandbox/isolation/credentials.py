"""A user of its own for each worker, without any privilege.

Programs of a sandbox that root started run as a user that owns nothing and that
no other worker has, so that they can read, trace and signal nobody else's, and
RLIMIT_NPROC, which does not bind root, binds them.

An interpreter that is installed below a folder of mode 0700 (root's home, say)
could then no longer read its own standard library. Only there, and only while
landlock bounds what is read, one capability is kept: CAP_DAC_READ_SEARCH, to
read whatever the permissions.

Runs inside the sandbox's processes: standard library only.
"""

import ctypes
import os
import struct

from rstar_jax.sandbox.isolation import kernel

READ_SEARCH = 1 << 2  # CAP_DAC_READ_SEARCH, as a bit.
# CAP_SETGID, CAP_SETUID; and CAP_KILL, else the host could not end a worker.
_NEEDED = (6, 7, 5)
_VERSION_3 = 0x20080522


def capabilities() -> int:
  """Returns this process's effective capabilities, a bit each."""
  header = ctypes.create_string_buffer(struct.pack("Ii", _VERSION_3, 0))
  sets = ctypes.create_string_buffer(24)
  kernel.call("capget", header, sets)
  low, _, _, high, _, _ = struct.unpack("6I", sets.raw)
  return low | high << 32


def drop_capabilities(keep: int = 0) -> None:
  """Gives up capabilities, for good: no exec brings them back.

  To be called once the process has no_new_privs.

  Args:
    keep: those to keep, a bit each.

  Raises:
    OSError: this is not Linux, or one to keep is not held.
  """
  header = ctypes.create_string_buffer(struct.pack("Ii", _VERSION_3, 0))
  low, high = keep & 0xFFFFFFFF, keep >> 32
  kernel.call("capset", header, struct.pack("6I", low, low, 0, high, high, 0))


def private_id(pid: int) -> int:
  """Returns a number for a user that is no other worker's on this machine.

  Args:
    pid: of the worker, as the host sees it.

  Raises:
    OSError: none is left to this process (a container with few users).
  """
  with open("/proc/self/uid_map") as file:
    ranges = [tuple(map(int, line.split())) for line in file]
  end = max(first + count for first, _, count in ranges)
  if end > 1 << 31:
    # Far above what systems give out. A pid has at most 22 bits; the others
    # are for containers that count their pids apart.
    return 1 << 30 | os.urandom(1)[0] >> 1 << 22 | pid & (1 << 22) - 1
  if end < 1 << 15:
    raise OSError("there are too few users in this user namespace")
  return end - 3 - pid % (end >> 3)  # Below those that mean nobody.


def become_private(user: int, paths: tuple[str, ...], bounded: bool) -> str:
  """Turns this process into one of a private user without privileges.

  Args:
    user: number of the user, and of its group.
    paths: what must stay readable.
    bounded: whether landlock will bound what programs read.

  Returns:
    A word about a capability that was kept, "" if none was.

  Raises:
    OSError: it cannot be; nothing has changed but supplementary groups.
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
  """Returns the first path that a user cannot read, by trying as that user."""
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
