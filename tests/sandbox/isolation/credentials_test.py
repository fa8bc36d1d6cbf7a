"""A private user: tried if the test runs as root, else reported as missing."""

import builtins
import io
import os
import resource
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.sandbox.isolation import credentials, kernel, landlock
from tests.sandbox import forks


def _private(action, paths=(), bounded=False):
  def run():
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    user = credentials.private_id(os.getpid())
    word = credentials.become_private(user, paths, bounded)
    return action(user, word)

  return forks.forked(run)


def _map(text: str):
  """Replaces the kernel's map of user ids of this process."""
  return mock.patch.object(builtins, "open", lambda *_: io.StringIO(text))


class IdTest(absltest.TestCase):
  def test_no_two_workers_share_one(self):
    pids = (1, 2, 4711, 32768, (1 << 22) - 1)
    with _map("0 0 4294967295\n"):
      ids = [credentials.private_id(pid) for pid in pids]
    self.assertLen({each % (1 << 22) for each in ids}, len(pids))
    for each in ids:
      self.assertBetween(each, 1 << 30, (1 << 31) - 1)

  def test_stays_within_a_container(self):
    with _map("0 100000 65536\n"):
      ids = {credentials.private_id(pid) for pid in range(5000)}
    self.assertLen(ids, 5000)
    self.assertBetween(min(ids), 50000, 65535)
    self.assertLess(max(ids), 65534)  # Not "nobody".

  def test_too_few_users(self):
    with _map("1000 1000 1\n"):
      with self.assertRaisesRegex(OSError, "too few users"):
        credentials.private_id(5)


class CapabilitiesTest(absltest.TestCase):
  def test_all_go(self):
    if not kernel.LINUX:
      self.skipTest("capabilities need Linux")

    def action():
      credentials.drop_capabilities()
      return credentials.capabilities()

    self.assertEqual(forks.forked(action), "0")

  def test_elsewhere(self):
    with mock.patch.object(kernel, "LINUX", False):
      with self.assertRaisesRegex(OSError, "not Linux"):
        credentials.drop_capabilities()


class OrdinaryTest(absltest.TestCase):
  def test_only_root_can(self):
    with mock.patch.object(os, "geteuid", lambda: 1000):
      with self.assertRaisesRegex(OSError, "only root"):
        credentials.become_private(5, (), True)

  def test_root_of_a_container_may_lack_the_right(self):
    with (
      mock.patch.object(os, "geteuid", lambda: 0),
      mock.patch.object(credentials, "capabilities", lambda: 0),
      self.assertRaisesRegex(OSError, "lacks the capability"),
    ):
      credentials.become_private(5, (), True)


class RootTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    text = _private(lambda *_: "private")
    if text != "private":
      self.skipTest(text)

  def test_is_nobody_else(self):
    def action(user, word):
      ids = {*os.getresuid(), *os.getresgid()}
      return ids == {user}, os.getgroups(), credentials.capabilities(), word

    self.assertEqual(_private(action), "(True, [], 0, '')")

  def test_cannot_signal_trace_or_look_at_others(self):
    parent = os.getpid()
    for act in (
      lambda *_: os.kill(parent, 0),
      lambda *_: open(f"/proc/{parent}/environ").close(),
      lambda *_: kernel.call("ptrace", 0x4206, parent, 0, 0),
      lambda *_: os.setuid(0),
    ):
      self.assertStartsWith(_private(act), "PermissionError")

  def test_limit_of_processes_binds(self):
    def action(*_):
      resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
      os.fork()

    self.assertStartsWith(_private(action), "BlockingIOError")

  def test_reads_under_closed_folders_only_when_bounded(self):
    folder = self.create_tempdir()
    os.chmod(folder.full_path, 0o700)
    path = folder.create_file("file", "text").full_path
    text = _private(lambda *_: "private", [path])
    self.assertStartsWith(text, "OSError: another user could not read")
    if not credentials.capabilities() & credentials.READ_SEARCH:
      self.skipTest("root here may not read what others closed")

    def action(_, word):
      with open(path) as file:
        return file.read(), credentials.capabilities(), word

    self.assertEqual(
      _private(action, [path], bounded=True),
      "('text', 4, 'reads with CAP_DAC_READ_SEARCH')",
    )

  def test_lazy_import(self):
    def action(*_):
      import colorsys

      return colorsys.__name__

    paths = landlock.readable()
    self.assertEqual(_private(action, paths, bounded=True), "colorsys")


if __name__ == "__main__":
  absltest.main()
