"""Freed memory is kept: a repeated call touches no new pages."""

import platform
import subprocess
import sys
import unittest

from absl.testing import absltest

# Prints the page faults of a call that needs 64 MB, 16,384 pages: the fewest,
# since a thread may free what it used only after the next call has begun.
_PROGRAM = """
import resource, sys
from rstar_jax.models import host_memory
if sys.argv[1] == "kept":
  assert host_memory.keep_freed()
import jax, jax.numpy as jnp
call = jax.jit(lambda x: x + 1)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
x = jnp.zeros((1 << 24,))
found = []
for _ in range(8):
  before = faults()
  call(x).block_until_ready()
  found.append(faults() - before)
print(min(found))
"""


@unittest.skipIf(platform.libc_ver()[0] != "glibc", "another C library")
class HostMemoryTest(absltest.TestCase):
  def test_a_call_reuses_what_the_last_one_freed(self):
    faults = {
      how: int(
        subprocess.run(
          [sys.executable, "-c", _PROGRAM, how],
          capture_output=True,
          text=True,
          check=True,
        ).stdout
      )
      for how in ("kept", "given back")
    }
    self.assertLess(faults["kept"], 1000)
    self.assertGreater(faults["given back"], 10_000)


if __name__ == "__main__":
  absltest.main()
