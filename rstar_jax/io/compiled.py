"""Compiled programs that outlive a process, by JAX's persistent cache."""

import hashlib
import pathlib
import platform

import jax

_CPU_INFO = pathlib.Path("/proc/cpuinfo")


def keep(folder: pathlib.Path | str) -> str:
  """Keeps compiled programs in a folder, and takes them from there.

  Call it before anything is compiled. A program for a CPU may need what another
  CPU does not have, and its key does not say so: each kind has a folder of its
  own.

  Args:
    folder: any that JAX can write to, a gs:// path too.

  Returns:
    The folder of this kind of machine.
  """
  if jax.default_backend() == "cpu":
    folder = f"{folder}/cpu-{_cpu()}"
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
  return str(folder)


def _cpu() -> str:
  """Returns a name of this kind of CPU: its machine and what it can do."""
  lines = [platform.machine()]
  if _CPU_INFO.exists():
    lines += [
      line
      for line in _CPU_INFO.read_text().splitlines()
      if line.startswith(("flags", "Features", "model name"))
    ][:2]
  return hashlib.blake2s("\n".join(lines).encode(), digest_size=4).hexdigest()
