"""Compiled programs that outlive a process, by JAX's persistent cache."""

import functools
import hashlib
import pathlib
import platform
import threading

import jax

# What takes less is no program that anyone waits for.
_SECONDS_OF_A_PROGRAM = 0.1
_EVENT = "/jax/core/compile/backend_compile_duration"
_CPU_INFO = pathlib.Path("/proc/cpuinfo")


def keep(folder: pathlib.Path | str) -> str:
  """Keeps compiled programs in a folder, and takes them from there.

  Call it before anything is compiled. A program for a CPU may need what another
  CPU does not have, and its key does not say so: each kind has a folder of its
  own. Of several processes JAX lets only the first write; what is for the
  devices of another is compiled anew each time.

  Args:
    folder: any that JAX can write to, a gs:// path too.

  Returns:
    The folder of this kind of machine.
  """
  if jax.default_backend() == "cpu":
    folder = f"{folder}/cpu-{cpu()}"
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
  return str(folder)


class Counter:
  """Counts what this process compiles, or takes from where it was kept.

  Attributes:
    programs: how many, without those that take no time.
    seconds: that this took, in all threads together.
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
  """Returns the counter of this process, which counts from the first call."""
  return Counter()


def cpu() -> str:
  """Returns a name of this kind of CPU: its machine and what it can do."""
  lines = [platform.machine()]
  if _CPU_INFO.exists():
    lines += [
      line
      for line in _CPU_INFO.read_text().splitlines()
      if line.startswith(("flags", "Features", "model name"))
    ][:2]
  return hashlib.blake2s("\n".join(lines).encode(), digest_size=4).hexdigest()
