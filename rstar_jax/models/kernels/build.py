"""Compiles the C++ kernels for this machine, once, and registers them.

The library is in the user's cache folder, under a name that is a hash of the
sources, the compiler and the processor.
"""

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
import threading

import jax
import jaxlib
from absl import logging

from rstar_jax.storage import compiled

_FOLDER = pathlib.Path(__file__).parent
# Compilers to look for, after $CXX.
_COMPILERS = ("c++", "g++", "clang++")
_HANDLERS = (
  "rstar_products",
  "rstar_gated",
  "rstar_copy_pages",
  "rstar_attend_pages",
)
_one_at_a_time = threading.Lock()


@functools.cache
def available() -> bool:
  """Loads the kernels if this machine can compile them; returns whether it did.

  It raises nothing: a line in the log says why the kernels are off, for example
  for want of a compiler.
  """
  try:
    load()
  except (ValueError, OSError) as error:
    logging.info("no kernels for this CPU, XLA is used: %s", error)
    return False
  return True


def load() -> None:
  """Registers the kernels with XLA, and compiles them if they are not cached.

  Raises:
    ValueError: there is no compiler, or it fails.
  """
  # XLA refuses functions of a second library under the same names.
  with _one_at_a_time:
    _load()


@functools.cache
def _load() -> None:
  command = _command()
  path = cache_folder() / f"kernels-{_key(command)}.so"
  if not path.exists():
    _compile(command, path)
  library = ctypes.cdll.LoadLibrary(str(path))
  for name in _HANDLERS:
    jax.ffi.register_ffi_target(
      name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu"
    )


def compiler() -> str | None:
  """Returns the path of the C++ compiler, None if there is none."""
  names = [os.environ.get("CXX"), *_COMPILERS]
  found = (shutil.which(name) for name in names if name)
  return next((path for path in found if path), None)


def cache_folder() -> pathlib.Path:
  """Returns the folder of libraries, in $XDG_CACHE_HOME or ~/.cache."""
  home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(home) / "rstar_jax"


def _command() -> list[str]:
  """Returns the compiler and its options, without files."""
  found = compiler()
  if found is None:
    raise ValueError(
      "engine.kernels='cpp' needs a C++ compiler, and there is neither $CXX "
      f"nor {', '.join(_COMPILERS)}: install g++ or clang, or set it to 'auto' "
      "in another --workdir"
    )
  arm = platform.machine() in ("aarch64", "arm64")
  return [
    found,
    *("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-shared"),
    "-mcpu=native" if arm else "-march=native",
    *("-w", "-Wno-psabi", f"-I{jax.ffi.include_dir()}"),
  ]


def _key(command: list[str]) -> str:
  """Returns a hash of all that the library depends on."""
  version = subprocess.run(
    [command[0], "--version"], capture_output=True, text=True, check=False
  ).stdout
  # The include path is left out: jaxlib's version determines the headers.
  parts = [*command[:-1], version, jaxlib.__version__, compiled.cpu()]
  parts += [path.read_text("utf-8") for path in _sources()]
  return hashlib.blake2s("\0".join(parts).encode(), digest_size=8).hexdigest()


def _sources() -> list[pathlib.Path]:
  return sorted([*_FOLDER.glob("*.h"), *_FOLDER.glob("*.cc")])


def _compile(command: list[str], path: pathlib.Path) -> None:
  logging.info("compiling kernels for this CPU, once: %s", path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # Other processes may compile at the same time; the last file stays.
  with tempfile.TemporaryDirectory(dir=path.parent) as folder:
    made = pathlib.Path(folder) / path.name
    run = subprocess.run(
      [*command, str(_FOLDER / "handlers.cc"), "-o", str(made)],
      capture_output=True,
      text=True,
      check=False,
    )
    if run.returncode:
      raise ValueError(
        f"{command[0]} could not compile {_FOLDER / 'handlers.cc'}: name "
        "another compiler by $CXX (GCC 12 and Clang 22 do), or set "
        "engine.kernels='xla' in another --workdir. It said:\n"
        f"{run.stderr[-2000:]}"
      )
    os.replace(made, path)
