"""A compiler that takes little time, for programs that run once or twice."""

import os

_FLAG = "--xla_backend_optimization_level=0"


def compile_quickly() -> str:
  """Returns XLA_FLAGS of such a compiler; sets them too.

  For tests that make many small programs: it is compiling them that takes long.
  To be called before jax does anything.
  """
  flags = os.environ.get("XLA_FLAGS", "").split()
  os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys([*flags, _FLAG]))
  return os.environ["XLA_FLAGS"]
