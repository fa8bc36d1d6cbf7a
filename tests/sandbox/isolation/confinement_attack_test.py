"""Attacks without the audit hook, as by programs that have bypassed it."""

import os

from absl.testing import absltest, parameterized

from rstar_jax.sandbox.pool import Limits, Sandbox

_LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
# A snapshot that forks endlessly when it is told to fork.
_BOMB = """
import os, sys, time
def bomb():
  while True:
    try:
      if os.fork() == 0: time.sleep(100)
    except OSError: return 1
frame = sys._getframe()
while frame:
  if "_fork_here" in frame.f_globals:
    frame.f_globals["children"].fork_sibling = bomb
  frame = frame.f_back
"""


def _returns(call: str) -> str:
  return f"{_LIBC}print(libc.{call}, ctypes.get_errno())"


class AttackTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.sandbox = Sandbox(
      1, Limits(wall_seconds=4.0, memory_bytes=1 << 28), without=("hook",)
    )
    cls.layers = cls.sandbox.isolation["layers"]

  @classmethod
  def tearDownClass(cls):
    cls.sandbox.close()
    super().tearDownClass()

  def need(self, *layers):
    for layer in layers:
      if self.layers[layer].startswith("missing"):
        self.skipTest(f"{layer}: {self.layers[layer]}")

  @parameterized.named_parameters(
    ("outlive_the_parent", "prctl(1, 0, 0, 0, 0)"),
    ("be_dumpable", "prctl(4, 1, 0, 0, 0)"),
    ("leave_the_session", "setsid()"),
    ("kill_all", "kill(-1, 9)"),
    ("kill_its_group", "kill(0, 9)"),
    ("new_namespaces", "unshare(0x10000000)"),
    ("other_root", "chroot(b'.')"),
    ("memory_file", "memfd_create(b'x', 0)"),
    ("trace", "ptrace(0x4206, 1, 0, 0)"),
    ("host_name", "sethostname(b'x', 1)"),
    ("swap_root", "umount2(b'/proc', 2)"),
    ("own_user", "setuid(0)"),
  )
  def test_system_calls(self, call):
    self.need("seccomp")
    result = self.sandbox.run([[_returns(call)]])[0]
    self.assertEqual((result.status, result.stdout), ("ok", "-1 1\n"))

  @parameterized.named_parameters(
    ("socket", "import socket; socket.socket()"),
    ("signal", "import os; os.kill(os.getppid(), 15)"),
    ("terminal", "import fcntl; fcntl.ioctl(0, 0x5412, b'x')"),
    ("signal_by_descriptor", "import fcntl; fcntl.fcntl(60, 8, 1)"),
    ("null", "import os; os.open(os.devnull, os.O_RDWR)"),
  )
  def test_refused_by_seccomp(self, step):
    self.need("seccomp")
    result = self.sandbox.run([[step]])[0]
    self.assertEqual(result.status, "blocked")
    self.assertStartsWith(result.error, "PermissionError: [Errno 1]")

  @parameterized.parameters("/etc/passwd", "/proc/self/mem", "/etc/hosts")
  def test_files_of_others(self, path):
    self.need("landlock")
    result = self.sandbox.run([[f"open({path!r}, 'rb')"]])[0]
    self.assertEqual(result.status, "blocked")
    self.assertStartsWith(result.error, "PermissionError: [Errno 13]")

  def test_raising_its_limits(self):
    self.need("seccomp")
    step = "import resource as r; r.setrlimit(r.RLIMIT_NPROC, (9, 9))"
    self.assertEqual(self.sandbox.run([[step]])[0].status, "error")

  def test_fork(self):
    self.need("seccomp")
    if os.geteuid() == 0:
      self.need("credentials")
    # In a process of its own, and in one that a snapshot has just forked.
    for steps in (["import os; os.fork()"], ["import os", "os.fork()"]):
      self.assertEqual(
        self.sandbox.run([steps])[0].error,
        "BlockingIOError: [Errno 11] Resource temporarily unavailable",
      )

  def test_nothing_of_the_sandbox_or_the_run_is_in_reach(self):
    self.need("landlock")
    step = """
import os, sys
names = "children isolation kernel landlock probe seccomp".split()
print([name for name in names if name in sys.modules], "HOME" in os.environ)
import rstar_jax
"""
    result = self.sandbox.run([[step]])[0]
    self.assertEqual(result.stdout, "[] False\n")
    # In an editable install its folder is known, but may not be read.
    self.assertRegex(result.error, "^(ModuleNotFound|Permission)Error")

  def test_a_bomb_that_is_told_to_fork(self):
    self.need("seccomp", "credentials")  # Another user has other processes.
    self.sandbox.run([[_BOMB]])
    result = self.sandbox.run([[_BOMB, "print(5)"]])[0]
    # It did not obey; however it ends, the next program is served.
    self.assertIn(result.status, ("ok", "timeout", "crashed"))
    self.assertEqual(
      self.sandbox.run([["import math; print(6)"]])[0].stdout, "6\n"
    )


if __name__ == "__main__":
  absltest.main()
