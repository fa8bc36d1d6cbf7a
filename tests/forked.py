"""Programs in forks of a test file, which has loaded the large libraries.

A Python that starts anew loads them for seconds before its program begins. What
one of them has compiled the next ones need not. All else of a program is its
own: environment, output, signals and end.
"""

import multiprocessing
import os
import pathlib
import runpy
import shutil
import sys
import tempfile
import unittest
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from typing import Any

import jax

from tests import run as runner

_FORKS = multiprocessing.get_context("fork")
# Processes that wait, each with the end of a pipe that tells it what to be.
_waiting: list[tuple[Any, connection.Connection]] = []


def prepare(count: int) -> None:
  """Forks the processes of all programs, for `setUpModule`.

  A file does this before it has a thread or a device: no fork keeps those.

  Args:
    count: of programs that the file will start, or more.
  """
  runner.preload()
  compiled = tempfile.mkdtemp()
  unittest.addModuleCleanup(shutil.rmtree, compiled)
  for _ in range(count):
    receiver, sender = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=_wait, args=(receiver, compiled))
    process.start()
    _waiting.append((process, sender))
  unittest.addModuleCleanup(_dismiss)


class Program:
  """A function that runs as a program, with a part of Popen's methods.

  Args:
    function: a global one; SystemExit ends it.
    arguments: what it is called with.
    log: a file, to which what it writes is appended.
    environment: variables that differ from this process's; XLA's and jax's
      count as if they had been there when jax was imported.
  """

  def __init__(
    self,
    function: Callable[..., object],
    arguments: Sequence[Any],
    log: pathlib.Path,
    environment: Mapping[str, str],
  ):
    self._process, pipe = _waiting.pop()
    with pipe:
      pipe.send((function, arguments, log, environment))

  def poll(self) -> int | None:
    """Returns the exit status, -N if signal N ended it, None while it runs."""
    return self._process.exitcode

  def wait(self, seconds: float | None = None) -> int | None:
    """Waits for its end, so long at most; returns as `poll` does."""
    self._process.join(seconds)
    return self.poll()

  def send_signal(self, number: int) -> None:
    os.kill(self._process.pid, number)

  def kill(self) -> None:
    self._process.kill()


def command(*arguments: str) -> None:
  """Does what `rstar_jax ARGUMENTS` does."""
  sys.argv[1:] = arguments
  runpy.run_module("rstar_jax.main", run_name="__main__", alter_sys=True)


def _wait(receiver: connection.Connection, compiled: str) -> None:
  """Becomes the program that the pipe names."""
  function, arguments, log, environment = receiver.recv()
  jax.config.update("jax_compilation_cache_dir", compiled)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  os.environ.update(environment)
  for name, value in environment.items():
    if name.startswith("JAX_"):
      jax.config.update(name.lower(), value)
  with log.open("ab") as file:
    runner.become(lambda: function(*arguments), runner.ROOT, file)


def _dismiss() -> None:
  while _waiting:
    process, _ = _waiting.pop()
    process.kill()
    process.join()
