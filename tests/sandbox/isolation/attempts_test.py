"""Attempts succeed without layers, and leave nothing behind."""

import glob
import os
import signal
import sys

from absl.testing import absltest, parameterized

from rstar_jax.sandbox.isolation import attempts, confinement, kernel, landlock
from tests.sandbox import forks


class AttemptsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    if not kernel.LINUX:
      self.skipTest("what goes through elsewhere is that system's affair")
    self.targets = attempts.Targets(1 << 30, landlock.readable())
    self.addCleanup(self.targets.close)
    self.targets.sibling = os.fork()
    if self.targets.sibling == 0:
      signal.pause()
    self.addCleanup(os.waitpid, self.targets.sibling, 0)
    self.addCleanup(os.kill, self.targets.sibling, signal.SIGKILL)

  # Without those that a system may refuse by itself.
  @parameterized.parameters(
    "unix", "read", "write", "create", "remove", "kill", "fork", "thread"
  )
  def test_goes_through(self, name):
    for _ in range(2):
      self.targets.reset()
      text = forks.forked(lambda: attempts.ATTEMPTS[name](self.targets))
      self.assertEqual(text, "None")

  @parameterized.parameters(
    *(n for n in attempts.ATTEMPTS if n not in ("memory", "thread"))
  )
  def test_hook_refuses(self, name):
    def action():
      sys.addaudithook(confinement.make_hook(landlock.readable()))
      attempts.ATTEMPTS[name](self.targets)

    self.assertStartsWith(forks.forked(action), "Blocked: ")

  def test_exec_replaces_the_process(self):
    text = forks.forked(lambda: attempts.ATTEMPTS["exec"](self.targets))
    self.assertEqual(text, "")  # The process ended before it could report.

  def test_leaves_nothing_behind(self):
    for name in ("create", "remove", "write"):
      forks.forked(lambda name=name: attempts.ATTEMPTS[name](self.targets))
    self.targets.close()
    self.assertEmpty(glob.glob(self.targets.folder + "*"))

  @parameterized.parameters(*attempts.WORKS)
  def test_works_without_a_layer(self, name):
    self.assertEqual(forks.forked(attempts.WORKS[name]), "None")


if __name__ == "__main__":
  absltest.main()
