"""Tests of compiling the kernels: once, for any processor, and what is said."""

import concurrent.futures
import functools
import os
import pathlib
import platform
import stat
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.models.kernels import build
from tests.models.kernels.cpu_test import needs_compiler

_ON_X86 = platform.machine() == "x86_64"


class BuildTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    environment = {"XDG_CACHE_HOME": str(self.folder)}
    self.enter_context(mock.patch.dict(os.environ, environment))

  def quickly(self, options: str = "") -> dict[str, str]:
    """Returns the environment in which a compiler does not optimise."""
    return {"CXX": self.script(f'exec {build.compiler()} "$@" -O0 {options}')}

  def script(self, text: str) -> str:
    path = self.folder / "compiler"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)

  def load(self) -> None:
    # The library is made; XLA has the handlers of this process already.
    with mock.patch.object(build.jax.ffi, "register_ffi_target") as register:
      build._load.__wrapped__()
    self.assertEqual(register.call_count, len(build._HANDLERS))

  @needs_compiler
  def test_is_compiled_once(self):
    self.enter_context(mock.patch.dict(os.environ, self.quickly()))
    self.load()
    (made,) = build.cache_folder().glob("*")
    self.assertEqual(build.cache_folder(), self.folder / "rstar_jax")
    with mock.patch.object(build, "_compile") as compile_:
      self.load()
    compile_.assert_not_called()
    # Of other sources there is another library.
    with mock.patch.object(build, "_sources", return_value=[]):
      self.assertNotIn(build._key(build._command()), made.name)

  @needs_compiler
  def test_threads_wait_for_the_first_of_them(self):
    self.enter_context(mock.patch.dict(os.environ, self.quickly()))
    as_new = functools.cache(build._load.__wrapped__)
    with (
      mock.patch.object(build, "_load", as_new),
      mock.patch.object(build, "_compile", wraps=build._compile) as compile_,
      mock.patch.object(build.jax.ffi, "register_ffi_target") as register,
      concurrent.futures.ThreadPoolExecutor(3) as pool,
    ):
      for each in [pool.submit(build.load) for _ in range(3)]:
        each.result()
    compile_.assert_called_once()
    self.assertEqual(register.call_count, len(build._HANDLERS))

  @needs_compiler
  @parameterized.parameters(
    # What every x86-64 has, and AVX-512 without the matrix unit.
    "-O2 -march=x86-64",
    "-O2 -mno-amx-bf16 -mno-amx-tile -mno-amx-int8",
  )
  def test_is_right_on_lesser_processors(self, options):
    if not _ON_X86:
      self.skipTest("these are options for x86-64")
    modules = ("cpu_test", "cpu_pages_test")
    modules = (f"tests.models.kernels.{name}" for name in modules)
    run = subprocess.run(
      [sys.executable, "-m", "unittest", *modules],
      env=os.environ | self.quickly(options),
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(run.returncode, 0, run.stderr[-3000:])
    self.assertNotIn("skipped", run.stderr)

  def test_says_what_a_compiler_said(self):
    environment = {"CXX": self.script("echo no such vector >&2; exit 1")}
    with (
      mock.patch.dict(os.environ, environment),
      self.assertRaisesRegex(ValueError, r"\$CXX .*\n.*no such vector"),
    ):
      self.load()
    self.assertEmpty(list(build.cache_folder().glob("*")))

  def test_does_without_where_they_cannot_be_made(self):
    available = build.available.__wrapped__
    for reason in (ValueError("no compiler"), OSError("a read-only disk")):
      with (
        mock.patch.object(build, "_load", side_effect=reason),
        self.assertLogs(level="INFO") as logs,
      ):
        self.assertFalse(available())
      self.assertLen(logs.output, 1)
      self.assertIn(str(reason), logs.output[0])
    with mock.patch.object(build, "_load") as load:
      self.assertTrue(available())
    load.assert_called_once()

  def test_wants_a_compiler(self):
    with (
      mock.patch.object(build.shutil, "which", return_value=None),
      self.assertRaisesRegex(ValueError, r"install g\+\+ or clang"),
    ):
      self.load()


if __name__ == "__main__":
  absltest.main()
