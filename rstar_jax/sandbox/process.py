"""Starts, drives and kills a worker process of the host.

The worker runs the `main` of one module and gets a socket. It ends when the
host kills it (SIGKILL to it and all its descendants), when the host closes the
socket, and on Linux when the *thread* that started it ends: that thread has to
live as long as the worker.
"""

import contextlib
import functools
import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence

from absl import logging

from rstar_jax.sandbox import wire

BOOT_SECONDS = 120.0
# The environment of a worker that must not know ours.
ENV = {
  "PYTHONHASHSEED": "0",
  "OPENBLAS_NUM_THREADS": "1",
  "OMP_NUM_THREADS": "1",
}
_PACKAGE = pathlib.Path(__file__).parents[1]
# Hashes of None and of types are addresses. The kernel draws these anew for
# each process, so that sets print in another order, unless it is asked not to.
# That holds from the next exec on, hence one exec. Some containers refuse it.
_SAME_ADDRESSES = """
import ctypes, os, sys
if sys.argv[-1] != "again":
  try:
    personality = ctypes.CDLL(None).personality
    if personality(personality(0xFFFFFFFF) | 0x40000) >= 0:
      os.execv(sys.executable, [*sys.orig_argv, "again"])
  except (OSError, AttributeError):
    pass
"""
# A worker imports modules of this package from the package's folder, and
# nothing else from the folder that contains it.
_BOOT = f"""{_SAME_ADDRESSES}
import importlib, json, sys, types
path = json.loads(sys.argv[2])["path"]
sys.path += [each for each in path if each not in sys.path]
package = types.ModuleType({_PACKAGE.name!r})
package.__path__ = [{str(_PACKAGE)!r}]
sys.modules[package.__name__] = package
del package, path
importlib.import_module(sys.argv.pop(1)).main()
"""


class Gone(Exception):
  """The worker process ended."""


@functools.cache
def warn(text: str) -> None:
  """Logs a warning, each text once in this process."""
  logging.warning("%s", text)


def warn_of(missing: Sequence[str], does: str) -> None:
  """Warns of the layers that a worker's forks lack; see `service.missing`."""
  if missing:
    warn(
      f"what {does} is confined without {'; '.join(missing)}; docs/security.md "
      "says what that means"
    )


def path_of(packages: Iterable[str]) -> list[str]:
  """Returns the entries of `sys.path` that hold packages, each once.

  A worker ignores PYTHONPATH and the user's site-packages, where `pip install
  --target` and `--user` put packages.

  Args:
    packages: importable names; those that are not installed are left out.
  """
  found = []
  for name in packages:
    spec = importlib.util.find_spec(name)
    for folder in (spec and spec.submodule_search_locations) or ():
      found.append(os.path.dirname(os.path.abspath(folder)))
  return list(dict.fromkeys(found))


class Process:
  """A worker process and the socket to it.

  Args:
    program: full name of the module of this package that the worker runs.
    options: passed to the worker as JSON, with "fd" (its socket) and "parent"
      (our pid) added.
    path: folders that the worker imports from after those of its interpreter.
    flags: interpreter flags.
    env: the whole environment; None copies ours.

  Attributes:
    pid: pid of the worker, which leads a session of its own.
    greeting: the first message, sent when the worker is ready.

  Raises:
    RuntimeError: if the worker ends, or sends nothing for BOOT_SECONDS.
  """

  def __init__(
    self,
    program: str,
    options: Mapping[str, object],
    flags: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    path: Iterable[str] = (),
  ):
    self._socket, theirs = socket.socketpair()
    self._inbox = wire.Inbox()
    with theirs:
      options = {
        **options,
        "fd": theirs.fileno(),
        "parent": os.getpid(),
        "path": list(path),
      }
      self._process = subprocess.Popen(
        [sys.executable, *flags, "-c", _BOOT, program, json.dumps(options)],
        env=env,
        cwd="/",  # Imports nothing from the current folder.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
      )
    self.pid = self._process.pid
    try:
      self.greeting = self.receive(BOOT_SECONDS)
    except (Gone, TimeoutError) as error:
      self.kill()
      raise RuntimeError(
        f"worker process {program} did not start (exit status "
        f"{self._process.returncode}); its standard error, above, says why"
      ) from error

  def send(self, message: object) -> None:
    """Sends a message; raises Gone if the worker ended."""
    self._socket.settimeout(BOOT_SECONDS)
    try:
      self._socket.sendall(wire.frame(message))
    except OSError as error:
      raise Gone from error

  def receive(self, seconds: float) -> object:
    """Returns the next message; raises TimeoutError, or Gone if it ended."""
    try:
      message = wire.receive_within(self._socket, self._inbox, seconds)
    except TimeoutError:
      raise
    except OSError as error:
      raise Gone from error
    if message is None:
      raise Gone
    return message

  def kill_tree(self) -> None:
    """Kills the worker and its descendants; callable from any thread."""
    if self._process.returncode is not None:  # The pid may be reused.
      return
    for pid in (*_descendants(self.pid), self.pid):
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(self.pid, signal.SIGKILL)

  def kill(self) -> None:
    """Kills the worker and reaps it; only in the thread that drives it."""
    self.kill_tree()
    self._process.wait()
    self._socket.close()


def _descendants(pid: int) -> list[int]:
  """Returns the pids of a process's descendants (Linux; else none)."""
  found, queue = [], [pid]
  while queue:
    parent = queue.pop()
    # A process may end during the search.
    with contextlib.suppress(OSError):
      for thread in os.listdir(f"/proc/{parent}/task"):
        path = pathlib.Path(f"/proc/{parent}/task/{thread}/children")
        with contextlib.suppress(OSError):
          children = [int(child) for child in path.read_text().split()]
          found += children
          queue += children
  return found
