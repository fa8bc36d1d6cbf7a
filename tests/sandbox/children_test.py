"""Forked processes: their messages, their ends and their parents."""

import contextlib
import os
import signal
import socket
import time
from unittest import mock

from absl.testing import absltest

from rstar_jax.sandbox import children, wire
from rstar_jax.sandbox.isolation import confinement
from tests.sandbox import forks


def _gone(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return True
  return False


class ChildrenTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.host, theirs = socket.socketpair()
    self.addCleanup(self.host.close)
    self.addCleanup(theirs.close)
    self.watch = children.Watch(theirs, limit=10007)

  def fork(self, action):
    child = forks.as_worker(lambda: children.fork(action))
    self.addCleanup(self.end, child)
    return child

  def end(self, child):
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
      child.end()

  def test_messages_come_in_order(self):
    def action(channel):
      for i in range(5):
        channel.sendall(wire.frame([i, "x" * 1009 * i]))

    child = self.fork(action)
    for i in range(5):
      self.assertEqual(self.watch.next(child), [i, "x" * 1009 * i])
    self.assertIsNone(self.watch.next(child))
    self.assertEqual(child.end(), 0)

  def test_the_exit_status_is_kept(self):
    child = self.fork(lambda channel: os._exit(7))
    self.assertIsNone(self.watch.next(child))
    self.assertEqual(os.WEXITSTATUS(child.end()), 7)

  def test_without_waitid_and_pidfd(self):
    """As on macOS before Python 3.13."""
    for action, message, status in (
      (lambda channel: os._exit(7), None, 7 << 8),
      (lambda channel: channel.sendall(wire.frame([1])), [1], 0),
    ):
      with (
        mock.patch.object(os, "waitid"),
        mock.patch.object(os, "pidfd_open", side_effect=OSError),
      ):
        del os.waitid
        child = self.fork(action)
        while not child.has_ended():
          time.sleep(0.01)
        self.assertTrue(child.has_ended())
        self.assertEqual(self.watch.next(child), message)
        with mock.patch.object(os, "kill") as kill:
          self.assertEqual((child.end(), child.end()), (status, status))
        kill.assert_not_called()

  def test_too_long_a_message_ends_the_child(self):
    child = self.fork(lambda channel: channel.sendall(wire.frame("x" * 10**6)))
    self.assertIsNone(self.watch.next(child))
    child.end()
    self.assertTrue(_gone(child.pid))

  def test_nonsense_is_lost(self):
    child = self.fork(lambda channel: channel.sendall(b"\0\0\0\1{"))
    with self.assertRaises(children.Lost):
      self.watch.next(child)

  def test_a_child_that_closes_its_channel_is_ended(self):
    def action(channel):
      channel.close()
      time.sleep(300)

    child = self.fork(action)
    self.assertIsNone(self.watch.next(child))
    self.assertEqual(os.WTERMSIG(child.end()), signal.SIGKILL)

  def test_the_host_orders_the_end_of_the_program_whose_time_runs(self):
    child = self.fork(lambda channel: time.sleep(300))
    self.watch.start(5)
    self.host.sendall(wire.frame(["kill", 3]) + wire.frame(["kill", 5]))
    self.assertIsNone(self.watch.next(child))
    self.assertTrue(self.watch.killed)
    # A late order to kill is not a request.
    self.host.sendall(wire.frame(["kill", 5]) + wire.frame(["run", 6, []]))
    self.assertEqual(self.watch.request(), ["run", 6, []])

  def test_a_child_has_its_channel_and_nothing_else(self):
    opened = os.open(os.devnull, os.O_RDONLY)
    self.addCleanup(os.close, opened)

    def action(channel):
      found = []
      for descriptor in range(3, 256):
        with contextlib.suppress(OSError):
          os.fstat(descriptor)
          found.append(descriptor)
      channel.sendall(wire.frame(found))

    child = self.fork(action)
    self.assertEqual(self.watch.next(child), [children.CHANNEL])

  def test_a_child_forks_a_child_of_ours(self):
    if not children.can_fork_sibling():
      self.skipTest("no clone on this kind of machine")
    ours, theirs = children.pair()

    def action(channel):
      os.register_at_fork(before=os.abort)  # Which must not be run.
      _, (other,), *_ = socket.recv_fds(channel, 1, 1)
      if children.fork_sibling() == 0:
        channel = socket.socket(fileno=other)
        children.greet(channel)
        os._exit(11)
      channel.sendall(wire.frame("forked"))

    child = self.fork(action)
    socket.send_fds(child.channel, [b"."], [theirs.fileno()])
    theirs.close()
    pid = children.pid_of(ours, 60)
    self.assertNotIn(pid, (child.pid, os.getpid()))
    self.assertEqual(self.watch.next(child), "forked")
    self.assertEqual(os.WEXITSTATUS(os.waitpid(pid, 0)[1]), 11)
    ours.close()

  def test_who_does_not_greet_is_lost(self):
    ours, theirs = children.pair()
    with self.assertRaises(children.Lost):
      children.pid_of(ours, 0.01)
    theirs.close()
    with self.assertRaises(children.Lost):
      children.pid_of(ours, 60)

  def test_a_child_that_is_known_is_not_new(self):
    def action(channel):
      children.greet(channel)
      children.greet(channel)
      time.sleep(300)

    child = self.fork(action)
    self.assertEqual(children.pid_of(child.channel, 60, [1]), child.pid)
    with self.assertRaises(children.Lost):
      children.pid_of(child.channel, 60, [child.pid])

  def test_what_a_program_leaves_running_is_killed(self):
    self.assertTrue(confinement.adopt_orphans())

    def action(channel):
      # No hook here: as a program that got past it.
      pid = os.fork()
      if pid == 0:
        os.setsid()
        os.closerange(3, 256)  # Else its channel would stay open.
        time.sleep(300)
      channel.sendall(wire.frame(pid))

    wanted = self.fork(lambda channel: time.sleep(300))
    child = self.fork(action)
    pid = self.watch.next(child)
    child.end()
    self.assertFalse(_gone(pid))
    children.end_orphans({wanted.pid})
    self.assertTrue(_gone(pid))
    self.assertFalse(_gone(wanted.pid))


if __name__ == "__main__":
  absltest.main()
