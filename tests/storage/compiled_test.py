"""Tests of programs that are kept, across processes."""

import pathlib
import subprocess
import sys
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest

from rstar_jax.storage import compiled

# Prints whether the program came from the cache; its constants take long enough
# to fold that it is worth keeping.
_PROGRAM = """
import sys
import jax
import jax.numpy as jnp
from rstar_jax.storage import compiled
hits = []
jax.monitoring.register_event_listener(
  lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
print(compiled.keep(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(float(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.eye(7)).sum()), len(hits) > 0)
"""


class CompiledTest(absltest.TestCase):
  def test_a_second_process_compiles_nothing_again(self):
    folder = self.create_tempdir().full_path

    def run():
      out = subprocess.run(
        [sys.executable, "-c", _PROGRAM, folder],
        capture_output=True,
        text=True,
        check=True,
      )
      return out.stdout.split()

    where, first, hit = run()
    self.assertEqual(pathlib.Path(where).parent, pathlib.Path(folder))
    self.assertEqual(hit, "False")
    self.assertNotEmpty(list(pathlib.Path(where).iterdir()))
    self.assertEqual(run(), [where, first, "True"])

  def test_counts_what_is_compiled(self):
    counter = compiled.counter()
    self.assertIs(counter, compiled.counter())
    before, seconds = counter.programs, counter.seconds
    with mock.patch.object(compiled, "_SECONDS_OF_A_PROGRAM", 0.0):
      for _ in range(2):
        jax.jit(lambda x: 3 * x).lower(np.ones(7)).compile()
    self.assertEqual(counter.programs, before + 2)
    self.assertGreater(counter.seconds, seconds)
    with mock.patch.object(compiled, "_SECONDS_OF_A_PROGRAM", 1e9):
      jax.jit(lambda x: 5 * x).lower(np.ones(7)).compile()
    self.assertEqual(counter.programs, before + 2)

  def test_the_folder_stays_where_it_is_when_the_process_moves(self):
    before = jax.config.jax_compilation_cache_dir
    self.addCleanup(jax.config.update, "jax_compilation_cache_dir", before)
    kept = pathlib.Path(compiled.keep("programs"))
    self.assertEqual(kept.parent, pathlib.Path.cwd() / "programs")

  def test_a_folder_that_cannot_be_written_is_only_read(self):
    for name in (
      "jax_compilation_cache_dir",
      "jax_persistent_cache_min_compile_time_secs",
    ):
      self.addCleanup(jax.config.update, name, getattr(jax.config, name))
    where = pathlib.Path(self.create_tempdir().full_path)
    asked = []

    def access(path, mode):
      asked.append(path)
      return path != where

    with mock.patch.object(compiled.os, "access", access):
      compiled.keep(where / "a" / "b")
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    self.assertEqual((seconds, asked), (float("inf"), [where]))
    compiled.keep(where)
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    self.assertLess(seconds, 1)

  def test_more_is_kept_where_the_environment_says_so(self):
    least = "jax_persistent_cache_min_compile_time_secs"
    for name in ("jax_compilation_cache_dir", least):
      self.addCleanup(jax.config.update, name, getattr(jax.config, name))
    for said, kept in ((0.0, 0.0), (1.0, 0.3)):
      jax.config.update(least, said)
      compiled.keep(self.create_tempdir().full_path)
      self.assertEqual(getattr(jax.config, least), kept)

  def test_each_kind_of_cpu_has_a_folder(self):
    names = set()
    for flags in ("fpu avx2", "fpu avx512f"):
      info = self.create_tempfile(content=f"flags : {flags}\n").full_path
      original, compiled._CPU_INFO = compiled._CPU_INFO, pathlib.Path(info)
      try:
        names.add(compiled.cpu())
        self.assertEqual(compiled.cpu(), compiled.cpu())
      finally:
        compiled._CPU_INFO = original
    self.assertLen(names, 2)


if __name__ == "__main__":
  absltest.main()
