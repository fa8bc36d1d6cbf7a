"""Keeps the memory that a call on a CPU frees for the next call."""

import ctypes
import platform

import jax

# Options of mallopt(3), with glibc's defaults: how many free bytes at the top
# go back to the kernel (-1: never), how many blocks may be mapped one by one,
# and how many heaps threads may have (0: by the number of cores).
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_KEEP = {_M_TRIM_THRESHOLD: -1, _M_MMAP_MAX: 0, _M_ARENA_MAX: 1}
_DEFAULT = {_M_TRIM_THRESHOLD: 1 << 17, _M_MMAP_MAX: 1 << 16, _M_ARENA_MAX: 0}


def keep_freed() -> bool:
  """Lets this process keep the memory that it frees, if it computes on a CPU.

  XLA allocates the temporaries of each call anew, by malloc. glibc gives large
  blocks back to the kernel when they are freed, which fills every page with
  zeros before it is used again: up to a third of the time of an update.

  It starts JAX's backend, and is to be called before anything else does:
  threads that run already have heaps of their own. Without glibc it does
  nothing.

  Returns:
    Whether freed memory is kept.
  """
  if platform.libc_ver()[0] != "glibc":
    return False
  mallopt = ctypes.CDLL(None).mallopt
  for option, value in _KEEP.items():
    mallopt(option, value)
  if jax.default_backend() == "cpu":
    return True
  for option, value in _DEFAULT.items():
    mallopt(option, value)
  return False
