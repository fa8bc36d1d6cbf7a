"""Readable paths, by attempt, with each version of landlock up to this one."""

import os
import pathlib
import socket
import sys
import sysconfig
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.sandbox.isolation import kernel, landlock
from tests.sandbox import forks


def _restricted(action, paths=None):
  def run():
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    ruleset = landlock.Ruleset(paths or landlock.readable())
    ruleset.restrict()
    return action()

  return forks.forked(run)


def _read(path):
  with open(path, "rb") as file:
    return len(file.read(1))


class ReadableTest(absltest.TestCase):
  def test_holds_the_interpreter_and_not_the_project(self):
    paths = landlock.readable()
    stdlib = sysconfig.get_path("stdlib")
    self.assertIn(stdlib, paths)
    self.assertIn(os.devnull, paths)
    self.assertNotIn("/", paths)
    here = pathlib.Path(__file__).resolve()
    for path in paths:
      self.assertTrue(os.path.isabs(path) and os.path.exists(path), path)
      self.assertNotIn(pathlib.Path(path), here.parents)

  def test_adds_packages_by_their_own_folder(self):
    folder = self.create_tempdir()
    folder.create_file("some_package/__init__.py")
    folder.create_file("some_package.libs/library.so")
    with mock.patch.object(sys, "path", [folder.full_path, *sys.path]):
      paths = landlock.readable(("some_package", "no_such_package"))
    self.assertIn(os.path.join(folder.full_path, "some_package"), paths)
    self.assertIn(os.path.join(folder.full_path, "some_package.libs"), paths)
    self.assertNotIn(folder.full_path, paths)

  def test_without_landlock(self):
    with mock.patch.object(kernel, "LINUX", False):
      self.assertEqual(landlock.version(), 0)
      with self.assertRaisesRegex(OSError, "no landlock"):
        landlock.Ruleset(())


class AttemptTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.version = landlock.version()
    if not self.version:
      self.skipTest("this kernel has no landlock")
    self.folder = self.create_tempdir()
    self.file = self.folder.create_file("file", "text").full_path

  def test_reads_only_what_is_listed(self):
    stdlib = sysconfig.get_path("stdlib")
    self.assertEqual(_restricted(lambda: _read(os.__file__)), "1")
    self.assertEqual(_restricted(lambda: _read("/dev/urandom")), "1")
    self.assertIn("os.py", _restricted(lambda: os.listdir(stdlib)))
    for action in (
      lambda: _read(self.file),
      lambda: _read(__file__),
      lambda: _read("/proc/self/status"),
      lambda: os.listdir(self.folder.full_path),
      lambda: os.listdir("/"),
    ):
      self.assertStartsWith(_restricted(action), "PermissionError: [Errno 13]")

  def test_listed_files_are_not_folders(self):
    self.assertEqual(_restricted(lambda: _read(self.file), [self.file]), "1")

  def test_lazy_import(self):
    def action():
      import colorsys
      import hashlib

      return colorsys.rgb_to_hsv(0, 0, 1)[2], len(hashlib.md5(b"").digest())

    self.assertEqual(_restricted(action), "(1, 16)")

  def test_writes_nothing(self):
    stdlib_file = os.path.join(sysconfig.get_path("stdlib"), "never")
    for action in (
      lambda: os.open(self.file, os.O_WRONLY),
      lambda: os.open(stdlib_file, os.O_WRONLY | os.O_CREAT),
      lambda: os.open(os.devnull, os.O_WRONLY),
      lambda: os.unlink(self.file),
      lambda: os.mkdir(self.file + "2"),
      lambda: os.symlink("a", self.file + "2"),
      lambda: os.rename(self.file, self.file + "2"),
      lambda: os.execv(sys.executable, [sys.executable, "-V"]),
    ):
      self.assertStartsWith(_restricted(action), "PermissionError: [Errno 13]")

  def test_network(self):
    if self.version < 4:
      self.skipTest(f"landlock {self.version} knows no TCP")
    with socket.create_server(("127.0.0.1", 0)) as server:
      address = server.getsockname()
      text = _restricted(lambda: socket.create_connection(address))
    self.assertStartsWith(text, "PermissionError")
    text = _restricted(lambda: socket.create_server(("127.0.0.1", 0)))
    self.assertStartsWith(text, "PermissionError")

  def test_scopes(self):
    if self.version < 6:
      self.skipTest(f"landlock {self.version} knows no scopes")
    text = _restricted(lambda: os.kill(os.getppid(), 0))
    self.assertStartsWith(text, "PermissionError")
    self.assertEqual(_restricted(lambda: os.kill(os.getpid(), 0)), "None")
    name = f"\0rstar_jax_test_{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
      server.bind(name)
      server.listen()
      text = _restricted(lambda: socket.socket(socket.AF_UNIX).connect(name))
    self.assertStartsWith(text, "PermissionError")

  def test_every_version(self):
    for version in range(1, self.version + 1):
      with mock.patch.object(landlock, "version", lambda v=version: v):
        # `restrict` with that version's flags, on this kernel.
        text = _restricted(lambda: _read(self.file))
        self.assertStartsWith(text, "PermissionError", version)
        self.assertEqual(_restricted(lambda: _read(os.__file__)), "1")


if __name__ == "__main__":
  absltest.main()
