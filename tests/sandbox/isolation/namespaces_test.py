"""Namespaces of network, files and processes, by attempt if available."""

import os
import signal
import socket
import time
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.sandbox import children
from rstar_jax.sandbox.isolation import kernel, landlock, namespaces
from tests.sandbox import forks


def _enter(action):
  def run():
    failures, outer = namespaces.enter(landlock.readable())
    if outer is not None:
      namespaces.follow(outer)
    return action(failures)

  return forks.forked(run)


class NamespacesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.failures = eval(_enter(lambda failures: failures))  # Our own repr.

  def need(self, name: str) -> None:
    if self.failures[name]:
      self.skipTest(f"no {name} namespace here: {self.failures[name]}")

  def test_says_what_it_has(self):
    self.assertEqual(list(self.failures), ["mnt", "ipc", "net", "pid"])

  def test_no_network(self):
    self.need("net")
    with socket.create_server(("127.0.0.1", 0)) as server:
      address = server.getsockname()
      text = _enter(lambda _: socket.create_connection(address))
    self.assertStartsWith(text, "OSError: [Errno 101]")

  def test_what_is_not_needed_is_covered(self):
    self.need("mnt")
    processes = "[each for each in os.listdir('/proc') if each.isdigit()]"
    text = _enter(lambda _: eval(processes))
    self.assertIn(text, ("[]", "['1']"))  # Itself, where that is allowed.
    self.assertEqual(_enter(lambda _: os.listdir("/dev/shm")), "[]")
    text = _enter(lambda _: os.open("/dev/shm/x", os.O_CREAT | os.O_WRONLY))
    self.assertStartsWith(text, "OSError: [Errno 30]")  # Read-only.
    self.assertNotEmpty(os.listdir("/proc"))  # Nothing changed out here.

    def lazily(_):
      import colorsys

      return colorsys.__name__

    self.assertEqual(_enter(lazily), "colorsys")

  def test_what_is_needed_is_not_covered(self):
    paths = landlock.readable()
    covered = namespaces._unneeded(paths)
    self.assertIn("/proc", covered)
    self.assertNotIn("/usr", covered)
    for folder in covered:
      for path in paths:
        self.assertFalse(path.startswith(folder + "/"), (folder, path))

  def test_first_process_and_the_end_of_all(self):
    self.need("pid")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
      try:
        namespaces.follow(namespaces.enter(landlock.readable())[1])
        # Both outlive an ordinary parent, and hold the pipe.
        if os.fork() == 0:
          os.setsid()
          time.sleep(300)
        os.write(writer, str(os.getpid()).encode())
        time.sleep(300)
      finally:
        os._exit(1)
    os.close(writer)
    self.assertEqual(os.read(reader, 9), b"1")
    os.kill(pid, signal.SIGKILL)  # The outer one.
    os.waitpid(pid, 0)
    self.assertEqual(os.read(reader, 9), b"")  # End of file: all are gone.
    os.close(reader)

  def test_outer_process_ends_as_the_inner_one(self):
    self.need("pid")
    pid = os.fork()
    if pid == 0:
      namespaces.enter(landlock.readable())
      os._exit(7)
    status = os.waitpid(pid, 0)[1]
    self.assertEqual(os.waitstatus_to_exitcode(status), 7)

  @parameterized.named_parameters(
    ("of_all", lambda name, *_: name == "mount"),
    ("of_proc", lambda name, *args: name == "mount" and b"proc" in args),
  )
  def test_without_a_proc_of_its_own_the_outer_one_holds(self, refused):
    self.need("pid")
    call = kernel.call

    def refuse(name, *args):
      if refused(name, *args):
        raise PermissionError(1, f"{name}: Operation not permitted")
      return call(name, *args)

    def look(failures):
      child = os.fork()
      if child == 0:
        time.sleep(300)
      seen = os.getpid(), namespaces.sees_itself()
      below = children.children_of(os.getpid())
      os.kill(child, signal.SIGKILL)
      os.waitpid(child, 0)
      memory = children.memory_of(os.getpid()) > 0
      return failures["pid"], below == [child], memory, *seen

    with mock.patch.object(kernel, "call", refuse):
      why, found, memory, pid, itself = eval(_enter(look))
    self.assertIn("Operation not permitted", why)
    self.assertNotEqual(pid, 1)
    self.assertEqual((found, memory, itself), (True, True, True))

  def test_a_proc_of_others_is_none(self):
    self.assertTrue(namespaces.sees_itself())
    for where in ("1", "self"):
      with mock.patch.object(os, "readlink", lambda _, where=where: where):
        self.assertFalse(namespaces.sees_itself())
    with mock.patch.object(os, "readlink", side_effect=FileNotFoundError):
      self.assertFalse(namespaces.sees_itself())

  def test_elsewhere(self):
    with mock.patch.object(kernel, "LINUX", False):
      failures, outer = namespaces.enter(())
    self.assertIsNone(outer)
    self.assertEqual(set(failures.values()), {"namespaces need Linux"})

  def test_refused_user_namespace_changes_nothing(self):
    def refuse(name, *_):
      raise PermissionError(1, f"{name}: Operation not permitted")

    with (
      mock.patch.object(os, "geteuid", lambda: 1000),
      mock.patch.object(kernel, "call", refuse),
    ):
      text = _enter(lambda failures: failures)
    self.assertEqual(
      set(eval(text).values()), {"[Errno 1] unshare: Operation not permitted"}
    )


if __name__ == "__main__":
  absltest.main()
