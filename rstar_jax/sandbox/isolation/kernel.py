"""Calls, by ctypes, system calls that Python has no function for.

Runs inside the sandbox's processes: standard library only.
"""

import ctypes
import os
import sys

# Descriptor of a worker's landlock rules, which its forks inherit.
RULESET = 61
LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
_QUERY, _ADDR_NO_RANDOMIZE = 0xFFFFFFFF, 0x40000

try:
  _libc = ctypes.CDLL(None, use_errno=True)
  _libc.syscall.restype = ctypes.c_long
except (OSError, AttributeError, TypeError):
  _libc = None


def call(name: str, *args) -> int:
  """Calls a function of the C library.

  Args:
    name: name of the function.
    *args: integers (passed as words), bytes (NUL-terminated), None, or ctypes.

  Returns:
    Its return value, at least 0.

  Raises:
    OSError: if it returns less, or this is not Linux.
  """
  if _libc is None or not LINUX:
    raise OSError(f"{name}: this is not Linux but {sys.platform}")
  words = (ctypes.c_long(a) if isinstance(a, int) else a for a in args)
  result = getattr(_libc, name)(*words)
  if result < 0:
    number = ctypes.get_errno()
    raise OSError(number, f"{name}: {os.strerror(number)}")
  return result


def prctl(option: int, value: int) -> bool:
  """Sets an attribute of this process; returns whether the kernel agreed."""
  try:
    call("prctl", option, value, 0, 0, 0)
  except OSError:
    return False
  return True


def has_same_addresses() -> bool:
  """Returns whether the kernel draws no addresses; see `process.py`."""
  try:
    return bool(call("personality", _QUERY) & _ADDR_NO_RANDOMIZE)
  except OSError:
    return False
