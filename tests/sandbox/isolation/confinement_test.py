"""All layers together, in forks; their notes must be true."""

import os
import resource
import socket
import sys
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.sandbox.isolation import (
  attempts,
  confinement,
  credentials,
  kernel,
  landlock,
)
from tests.sandbox import forks


def _hooked(action):
  def run():
    sys.addaudithook(confinement.make_hook(landlock.readable()))
    return action()

  return forks.forked(run)


def _confined(action, without=(), seconds=5):
  """Runs an action as a program of a worker; returns its result as text."""
  parent = os.getpid()

  def run():
    layers = confinement.Confinement(parent, without)
    return forks.forked(lambda: (layers.confine_program(seconds), action())[1])

  return forks.forked(run)


def _notes(without=()):
  parent = os.getpid()

  def run():
    layers = confinement.Confinement(parent, without)
    return {"notes": layers.notes, "active": layers.active}

  return eval(forks.forked(run))  # Our own repr.


class HookTest(parameterized.TestCase):
  def test_lets_pass_what_programs_need(self):
    def action():
      import colorsys  # An import reads files.

      with open("/dev/urandom", "rb") as file:
        file.read(1)
      return colorsys.rgb_to_hsv(0, 0, 1)[2]

    self.assertEqual(_hooked(action), "1")

  @parameterized.named_parameters(
    ("null", lambda: open(os.devnull, "w"), "writing"),
    ("project", lambda: open(__file__), "reading"),
    ("parent", lambda: os.kill(os.getppid(), 0), "os.kill"),
    ("everyone", lambda: os.kill(-1, 0), "os.kill"),
    ("passwd", lambda: open("/etc/passwd"), "reading"),
  )
  def test_refuses(self, action, word):
    self.assertStartsWith(_hooked(action), f"Blocked: {word}")

  def test_spawn(self):
    def action():
      confinement.refuse_spawn()
      sys.modules.pop("subprocess", None)  # It holds the original function.
      import subprocess

      subprocess.run(["true"])

    self.assertStartsWith(forks.forked(action), "Blocked: starting a process")


class LimitsTest(absltest.TestCase):
  def test_rlimits(self):
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]

    def action():
      confinement.limit_worker(1 << 40)
      confinement.limit_program(5)
      kinds = ("AS", "FSIZE", "NOFILE", "CORE", "CPU", "NPROC")
      return [
        resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))
        for kind in kinds
      ]

    expected = [(1 << 40,) * 2, (0, 0), (64, 64), (0, 0), (5, 6)]
    # The worker may raise the last limit, from outside, up to the hard limit.
    expected.append((0, processes))
    self.assertEqual(forks.forked(action), str(expected))

  def test_written_file_stays_empty(self):
    path = self.create_tempfile().full_path

    def action():
      confinement.limit_worker(1 << 40)
      with open(path, "w") as file:
        file.write("text")

    self.assertStartsWith(forks.forked(action), "OSError: [Errno 27]")


class ConfinementTest(parameterized.TestCase):
  @parameterized.parameters(*confinement.LAYERS)
  def test_each_layer_can_be_switched_off(self, name):
    seen = _notes(without=(name,))
    self.assertEqual(seen["notes"][name], "switched off")
    self.assertNotIn(name, seen["active"])
    self.assertEqual(list(seen["notes"]), list(dict.fromkeys(seen["notes"])))

  def test_what_is_missing_says_why(self):
    seen = _notes()
    for name in confinement.LAYERS:
      missing = seen["notes"][name].startswith("missing: ")
      self.assertEqual(name in seen["active"], not missing)

  def test_programs_work_and_are_held_without_the_hook(self):
    active = _notes(without=(confinement.HOOK,))["active"]
    if not {"seccomp", "landlock"} <= set(active):
      self.skipTest(f"only {active} here")

    def action():
      import colorsys

      return colorsys.__name__

    self.assertEqual(_confined(action, (confinement.HOOK,)), "colorsys")
    for act in (
      # Not `__file__`: a checkout in /tmp is hidden, not refused.
      lambda: open("/etc/passwd"),
      lambda: open(os.devnull, "w"),
      lambda: os.kill(os.getppid(), 0),
      lambda: os.kill(0, 0),
      socket.socket,
    ):
      text = _confined(act, (confinement.HOOK,))
      self.assertStartsWith(text, "PermissionError: ")

  def test_a_private_user_has_few_processes(self):
    if "credentials" not in _notes()["active"]:
      self.skipTest(_notes()["notes"]["credentials"])
    parent = os.getpid()

    def run():
      layers = confinement.Confinement(parent)
      layers.limit_worker(1 << 40, 7)
      reader, writer = os.pipe()
      for count in range(100):
        try:
          if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)  # Until the parent ends.
            os._exit(0)
        except BlockingIOError:
          return count
      return "no end"

    self.assertEqual(forks.forked(run), "6")

  def test_no_privilege_is_left(self):
    if not kernel.LINUX:
      self.skipTest("capabilities need Linux")
    off = (confinement.HOOK, "seccomp")
    held = int(_confined(credentials.capabilities, off))
    self.assertIn(held, (0, credentials.READ_SEARCH))
    if "landlock" not in _notes()["active"]:
      self.assertTrue(os.geteuid() == 0 or not held)

  def test_a_machine_that_is_not_linux(self):
    def run():
      with mock.patch.object(kernel, "LINUX", False):
        layers = confinement.Confinement(os.getppid())
        layers.limit_worker(1 << 40, 64)
        layers.confine_program(5)
        return {"notes": layers.notes, "active": layers.active, **layers.facts}

    seen = eval(forks.forked(run))
    self.assertEqual(seen["active"], ("rlimits", "hook"))
    for name in ("seccomp", "landlock", "credentials", "namespaces"):
      self.assertStartsWith(seen["notes"][name], "missing: ")
    self.assertFalse(seen["no_new_privs"] or seen["die_with_parent"])

  def test_a_service_keeps_what_it_has_open(self):
    path = self.create_tempfile(content="text").full_path
    file = open(path)
    self.addCleanup(file.close)

    def action():
      notes = confinement.confine_service(("absl",))
      import colorsys  # noqa: F401

      try:
        with open(path) as again:
          return notes, again.read()
      except OSError as error:
        return notes, file.read(), type(error).__name__

    text = forks.forked(action)
    if "'landlock': ''" not in text:
      self.skipTest(text)
    self.assertIn("'text', 'PermissionError'", text)

  def test_attempts_have_names_that_reports_use(self):
    self.assertContainsSubset(
      ("net", "read", "write", "exec", "fork", "kill", "ctypes", "memory"),
      attempts.ATTEMPTS,
    )


if __name__ == "__main__":
  absltest.main()
