"""JAX's persistent cache of compiled programs, and a count of compilations."""

import functools
import hashlib
import os
import pathlib
import platform
import threading

import jax

# Seconds; shorter compilations are not counted.
_SECONDS_OF_A_PROGRAM = 0.1
# Seconds; JAX caches compilations that took longer, unless its own
# environment variable says less.
_SECONDS_OF_A_KEPT_PROGRAM = 0.3
_LEAST = "jax_persistent_cache_min_compile_time_secs"
_EVENT = "/jax/core/compile/backend_compile_duration"
_CPU_INFO = pathlib.Path("/proc/cpuinfo")


def keep(folder: pathlib.Path | str) -> str:
  """Sets the folder of the persistent cache; called before any compilation.

  Each kind of CPU has a folder of its own, since a program may use instructions
  that another CPU lacks, and the cache's key does not cover that. Of several
  processes JAX lets only the first write, so programs for other processes'
  devices are compiled each time.

  Args:
    folder: a path on the disk or in a bucket, gs://.

  Returns:
    The folder for this kind of machine.
  """
  if "://" not in str(folder):
    # JAX writes later, when the working directory may be another one.
    folder = pathlib.Path(folder).absolute()
  if jax.default_backend() == "cpu":
    folder = f"{folder}/cpu-{cpu()}"
  jax.config.update("jax_compilation_cache_dir", str(folder))
  seconds = min(_SECONDS_OF_A_KEPT_PROGRAM, getattr(jax.config, _LEAST))
  if "://" not in str(folder) and not _can_be_written(pathlib.Path(folder)):
    # JAX would warn about each program; so it only reads.
    seconds = float("inf")
  jax.config.update(_LEAST, seconds)
  return str(folder)


def _can_be_written(folder: pathlib.Path) -> bool:
  """Returns whether a folder, which need not exist yet, can be written."""
  there = next(each for each in (folder, *folder.parents) if each.exists())
  return os.access(there, os.W_OK)


class Counter:
  """Counts the programs that this process compiles or loads from the cache.

  Attributes:
    programs: number of programs that took at least 0.1 s.
    seconds: time that they took, summed over threads.
  """

  def __init__(self):
    self.programs = 0
    self.seconds = 0.0
    self._lock = threading.Lock()
    jax.monitoring.register_event_duration_secs_listener(self._hear)

  def _hear(self, event: str, seconds: float, **_) -> None:
    if event == _EVENT:
      with self._lock:
        self.programs += seconds >= _SECONDS_OF_A_PROGRAM
        self.seconds += seconds


@functools.cache
def counter() -> Counter:
  """Returns the process's counter, which starts at the first call."""
  return Counter()


def cpu() -> str:
  """Returns a name for this kind of CPU: a hash of its model and features."""
  lines = [platform.machine()]
  if _CPU_INFO.exists():
    lines += [
      line
      for line in _CPU_INFO.read_text().splitlines()
      if line.startswith(("flags", "Features", "model name"))
    ][:2]
  return hashlib.blake2s("\n".join(lines).encode(), digest_size=4).hexdigest()
