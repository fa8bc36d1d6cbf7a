"""Attempts at what a program may not do, and at what must work.

Each attempt has targets that are set up for it: files, listeners and processes
that a program must not reach. An attempt succeeds if any one of its ways does.

Runs inside the sandbox's processes: standard library only.
"""

import contextlib
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Collection

from rstar_jax.sandbox.isolation import kernel

_PTRACE_SEIZE = 0x4206
_CLONE_FILES = 0x400
_SCRATCH = ("/tmp", "/var/tmp", "/dev/shm")


class Targets:
  """The targets of attempts, set up before any layer is applied.

  Attributes:
    environs: environment by pid, of process 1 and of this process's parent.
    port: port of a TCP listener on the loopback interface.
    folder: a world-writable folder with the `file` and a unix socket.
    abstract: address of an abstract unix socket.
    secrets: world-readable files that no program should read.
    memory: bytes to allocate, more than a program may have.
    worker: pid of the worker.
    sibling: pid of another program's process.
    prefix: pid of the process that forked the program's, confined with it.
  """

  def __init__(self, memory: int, readable: Collection[str]):
    self.environs: dict[int, bytes] = {}
    for pid in (1, os.getppid()):
      with contextlib.suppress(OSError):
        self.environs[pid] = _environ_of(pid)
    self.memory = memory
    self.worker = self.sibling = self.prefix = 0
    name = f"rstar_jax_probe_{os.urandom(8).hex()}"
    places = [each for each in _SCRATCH if os.access(each, os.W_OK)]
    self.folder = os.path.join(places[0] if places else "/tmp", name)
    self.file = os.path.join(self.folder, "file")
    self.path = os.path.join(self.folder, "socket")
    self.abstract = f"\0{name}"
    self.port = 9
    self._sockets: list[socket.socket] = []
    # If nothing can be set up, attempts fail even without a layer.
    with contextlib.suppress(OSError):
      os.mkdir(self.folder)
      os.chmod(self.folder, 0o777)
    self.reset()
    with contextlib.suppress(OSError):
      self.port = self._listen(socket.AF_INET, ("127.0.0.1", 0))[1]
    for address in (self.path, self.abstract):
      with contextlib.suppress(OSError):
        self._listen(socket.AF_UNIX, address)
    with contextlib.suppress(OSError):
      os.chmod(self.path, 0o777)
    self.secrets = [self.file, "/etc/passwd"]
    own = os.path.abspath(__file__)
    if not own.startswith(tuple(os.path.join(each, "") for each in readable)):
      self.secrets.append(own)

  def _listen(self, family: int, address) -> tuple:
    listener = socket.socket(family, socket.SOCK_STREAM)
    self._sockets.append(listener)
    listener.bind(address)
    listener.listen(64)
    return listener.getsockname()

  def reset(self) -> None:
    """Restores what attempts may have removed, removes what they created."""
    with contextlib.suppress(OSError):
      with open(self.file, "w") as file:
        file.write("secret")
      os.chmod(self.file, 0o666)
    with contextlib.suppress(OSError):
      os.unlink(self.file + "2")
    with contextlib.suppress(OSError):
      os.rmdir(self.folder + "/folder")

  def close(self) -> None:
    """Removes all files and sockets."""
    self.reset()
    for each in self._sockets:
      each.close()
    for path in (self.file, self.path):
      with contextlib.suppress(OSError):
        os.unlink(path)
    with contextlib.suppress(OSError):
      os.rmdir(self.folder)


def _each(*actions: Callable[[], object]) -> None:
  """Raises OSError only if every action does."""
  failure = OSError("nothing was tried")
  for action in actions:
    try:
      action()
      return
    except OSError as error:
      failure = error
  raise failure


def _connect(family: int, kind: int, address) -> None:
  with socket.socket(family, kind) as connection:
    connection.connect(address)


def _net(targets: Targets) -> None:
  address = ("127.0.0.1", targets.port)
  _each(
    lambda: _connect(socket.AF_INET, socket.SOCK_STREAM, address),
    # Connecting a datagram socket sends nothing and needs no listener.
    lambda: _connect(socket.AF_INET, socket.SOCK_DGRAM, address),
  )


def _unix(targets: Targets) -> None:
  _each(
    lambda: _connect(socket.AF_UNIX, socket.SOCK_STREAM, targets.path),
    lambda: _connect(socket.AF_UNIX, socket.SOCK_STREAM, targets.abstract),
  )


def _first_byte(path: str) -> None:
  with open(path, "rb") as file:
    file.read(1)


def _read(targets: Targets) -> None:
  _each(*(lambda path=path: _first_byte(path) for path in targets.secrets))


def _environ_of(pid: int) -> bytes:
  with open(f"/proc/{pid}/environ", "rb") as file:
    if not (environ := file.read()):
      raise OSError("it is empty")
  return environ


def _find_environ(pid: int, environ: bytes) -> None:
  if _environ_of(pid) != environ:  # In a pid namespace, another process.
    raise OSError("that is another process")


def _environ(targets: Targets) -> None:
  _each(
    *(
      lambda known=known: _find_environ(*known)
      for known in targets.environs.items()
    )
  )


def _overwrite(path: str) -> None:
  descriptor = os.open(path, os.O_WRONLY)
  try:
    os.write(descriptor, b"x")
  finally:
    os.close(descriptor)


def _write(targets: Targets) -> None:
  _each(
    lambda: _overwrite(targets.file),
    lambda: os.close(os.open(targets.file, os.O_WRONLY | os.O_TRUNC)),
  )


def _create(targets: Targets) -> None:
  flags = os.O_WRONLY | os.O_CREAT
  _each(
    lambda: os.close(os.open(targets.file + "2", flags)),
    lambda: os.mkdir(targets.folder + "/folder"),
  )


def _remove(targets: Targets) -> None:
  _each(
    lambda: os.rename(targets.file, targets.file + "2"),
    lambda: os.unlink(targets.file),
  )


def _kill(targets: Targets) -> None:
  _each(
    *(lambda pid=pid: os.kill(pid, 0) for pid in _others(targets)),
  )


def _others(targets: Targets) -> tuple[int, ...]:
  """Returns the pids of processes that a program must not act upon."""
  return targets.worker, targets.sibling, targets.prefix


def _limits(targets: Targets) -> None:
  if not hasattr(resource, "prlimit"):
    raise OSError("this system cannot limit another process")
  limit = resource.getrlimit(resource.RLIMIT_CPU)
  _each(
    *(
      lambda pid=pid: resource.prlimit(pid, resource.RLIMIT_CPU, limit)
      for pid in _others(targets)
    ),
  )


def _ptrace(targets: Targets) -> None:
  if not kernel.LINUX:
    return  # What cannot be tried here counts as not enforced.
  kernel.call("ptrace", _PTRACE_SEIZE, targets.sibling, 0, 0)


def _ctypes(_: Targets) -> None:
  if not kernel.LINUX:
    return
  # Harmless calls that a calculation does not need.
  _each(
    lambda: os.close(kernel.call("memfd_create", b"probe", 0)),
    lambda: kernel.call("unshare", _CLONE_FILES),
    lambda: kernel.call("personality", 0xFFFFFFFF),
  )


def _raise_limit() -> None:
  hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
  with contextlib.suppress(OSError, ValueError):
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))


def _fork(_: Targets) -> None:
  _raise_limit()
  pid = os.fork()
  if pid == 0:
    os._exit(0)
  os.waitpid(pid, 0)


def _thread(_: Targets) -> None:
  import _thread as threads

  _raise_limit()
  try:
    threads.start_new_thread(lambda: None, ())
  except RuntimeError as error:  # "can't start new thread"
    raise OSError(str(error)) from error


def _memory(targets: Targets) -> None:
  import mmap

  mmap.mmap(-1, targets.memory, flags=mmap.MAP_PRIVATE).close()


def _exec(_: Targets) -> None:
  os.execv(sys.executable, [sys.executable, "-ISc", ""])


# Attempts at what a program may not do. Each raises OSError if it is refused;
# the last ends the process if it is not refused.
ATTEMPTS: dict[str, Callable[[Targets], None]] = {
  "net": _net,
  "unix": _unix,
  "read": _read,
  "environ": _environ,
  "write": _write,
  "create": _create,
  "remove": _remove,
  "kill": _kill,
  "limits": _limits,
  "ptrace": _ptrace,
  "ctypes": _ctypes,
  "memory": _memory,
  "fork": _fork,
  "thread": _thread,
  "exec": _exec,
}


def _lazy_import() -> None:
  import colorsys  # noqa: F401
  import hashlib  # Loads shared libraries of its own.

  hashlib.sha256(b"")


def _numpy() -> None:
  import numpy.polynomial  # noqa: F401


def _sympy() -> None:
  from importlib.machinery import PathFinder

  # Importing it takes long; finding and reading its code is enough.
  if not (spec := PathFinder.find_spec("sympy")):
    raise ModuleNotFoundError("No module named 'sympy'")
  spec.loader.get_code("sympy")


def _clock() -> None:
  time.sleep(1e-6)
  time.time(), time.perf_counter(), time.localtime()


def _random() -> None:
  import random

  os.urandom(8), random.SystemRandom().random()


# What must work under all layers.
WORKS: dict[str, Callable[[], None]] = {
  "import": _lazy_import,
  "numpy": _numpy,
  "sympy": _sympy,
  "clock": _clock,
  "random": _random,
}
