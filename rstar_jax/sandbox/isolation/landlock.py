"""Limits what a program may read to the interpreter and its libraries.

Landlock is a Linux security module that an unprivileged process applies to
itself. The rules refuse everything that the kernel's version can refuse, and
allow reading below a list of folders. From version 4 on they refuse TCP too,
from version 6 on abstract unix sockets and signals to other processes. Every
version prevents the tracing of processes outside.

Metadata is not protected: a program can ask whether a file exists.

Runs inside the sandbox's processes: standard library only.
"""

import ctypes
import os
import struct
import sys
import sysconfig

from rstar_jax.sandbox.isolation import kernel

# Numbers of the system calls, the same on every machine.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# Number of file system rights that each version knows, from version 1.
_RIGHTS = (13, 14, 15, 15, 16)
_NET = 0b11  # TCP bind and connect, from version 4.
_SCOPED = 0b11  # Abstract unix sockets and signals, from version 6.
_LOG_OFF = 1  # From version 7: refusals are not logged.

# Packages that programs may import beside the standard library, wherever they
# are installed.
PACKAGES = ("numpy", "sympy", "mpmath")
DEVICES = (os.devnull, "/dev/urandom", "/dev/random")
_FILES = ("/etc/ld.so.cache", "/etc/localtime", *DEVICES)
_FOLDERS = ("/usr/share/zoneinfo", "/usr/lib/locale", "/lib64", "/usr/lib64")


def version() -> int:
  """Returns landlock's version in this kernel, 0 if it has none."""
  try:
    return kernel.call("syscall", _CREATE_RULESET, None, 0, _VERSION)
  except OSError:
    return 0


def readable(packages: tuple[str, ...] = PACKAGES) -> tuple[str, ...]:
  """Returns the files and folders that an interpreter needs to read.

  These are the folders of the standard library, of installed packages and of
  the shared libraries in use, and a few files of the system. `sys.path` is not
  used: programs must not read a project that is installed in place, nor the
  current folder.

  Args:
    packages: importable names; their own folders are added, and those of the
      shared libraries that their wheels bring.

  Returns:
    Absolute paths that exist, each once, with the targets of symbolic links.
  """
  kinds = ("stdlib", "platstdlib", "purelib", "platlib")
  paths = [sysconfig.get_path(kind) for kind in kinds]
  if "site" in sys.modules:
    paths += sys.modules["site"].getsitepackages()
  for folder in filter(None, map(_folder_of, packages)):
    paths += [folder, f"{folder}.libs"]  # Shared libraries of a wheel.
  paths += _library_folders()
  if sys.base_prefix != "/usr":
    paths.append(os.path.join(sys.base_prefix, "lib"))
  paths += [*_FOLDERS, *_FILES]
  known = [os.path.abspath(path) for path in paths if path]
  known += [os.path.realpath(path) for path in known]
  return tuple(
    path
    for path in dict.fromkeys(known)
    if path != "/" and os.path.exists(path)
  )


def _folder_of(package: str) -> str | None:
  """Returns the folder of a package, without importing it."""
  from importlib.machinery import PathFinder

  spec = PathFinder.find_spec(package)
  places = spec and spec.submodule_search_locations
  return next(iter(places), None) if places else None


def _library_folders() -> list[str]:
  """Returns the folders of the shared libraries loaded in this process."""
  try:
    with open("/proc/self/maps") as file:
      names = [line.split(maxsplit=5)[5:] for line in file]
  except OSError:
    return ["/lib", "/usr/lib"]
  paths = {name[0].strip() for name in names if name}
  return sorted(
    {
      os.path.dirname(path)
      for path in paths
      if ".so" in path and path[0] == "/"
    }
  )


class Ruleset:
  """Rules that a worker makes once and each program's process applies.

  Args:
    paths: readable paths; folders with all that is below them.
    number: descriptor to keep the rules in; -1 for any.

  Attributes:
    version: landlock's version, at least 1.

  Raises:
    OSError: if the kernel has no landlock, or it is switched off.
  """

  def __init__(self, paths: tuple[str, ...], number: int = -1):
    self.version = version()
    if not self.version:
      raise OSError("the kernel has no landlock, or it is switched off")
    known = min(self.version, len(_RIGHTS))
    words = [(1 << _RIGHTS[known - 1]) - 1]
    if self.version >= 4:
      words.append(_NET)
    if self.version >= 6:
      words.append(_SCOPED)
    attributes = struct.pack(f"{len(words)}Q", *words)
    # The kernel sets close-on-exec.
    self._descriptor = kernel.call(
      "syscall", _CREATE_RULESET, attributes, len(attributes), 0
    )
    for path in paths:
      self._let_read(path)
    if number >= 0:
      os.dup2(self._descriptor, number, inheritable=False)
      os.close(self._descriptor)
      self._descriptor = number

  def _let_read(self, path: str) -> None:
    try:
      descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # Gone, or unreadable for us: programs need not read it.
      return
    rights = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)
    rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, descriptor))
    try:
      kernel.call(
        "syscall", _ADD_RULE, self._descriptor, _PATH_BENEATH, rule, 0
      )
    finally:
      os.close(descriptor)

  def restrict(self) -> None:
    """Applies the rules to this process, which must have no_new_privs.

    Raises:
      OSError: if the kernel refuses.
    """
    flags = _LOG_OFF if self.version >= 7 else 0
    kernel.call("syscall", _RESTRICT_SELF, self._descriptor, flags)
    os.close(self._descriptor)
