"""The filter, by interpreting its instructions and by attempts."""

import errno
import mmap
import os
import resource
import signal
import socket
import struct
import sys
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.sandbox.isolation import kernel, seccomp
from tests.sandbox import forks

_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOWED = 0x7FFF0000
_EPERM, _ENOSYS = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS


def verdict(code, arch: int, number: int, *arguments: int) -> int:
  """Interprets a filter for a system call, as the kernel does."""
  data = struct.pack("IIQ", number & 0xFFFFFFFF, arch, 0)
  data += b"".join(struct.pack("Q", each) for each in arguments)
  data = data.ljust(64, b"\0")
  word, at = 0, 0
  while True:
    operation, if_true, if_false, value = code[at]
    at += 1
    if operation == 0x20:  # Load a word.
      word = struct.unpack_from("I", data, value)[0]
    elif operation == 0x54:  # And.
      word &= value
    elif operation == 0x05:  # Jump.
      at += value
    elif operation == 0x15:  # Jump if equal.
      at += if_true if word == value else if_false
    elif operation == 0x35:  # Jump if at least.
      at += if_true if word >= value else if_false
    elif operation == 0x45:  # Jump if any bit is set.
      at += if_true if word & value else if_false
    elif operation == 0x06:  # Return.
      return value
    else:
      raise ValueError(f"operation {operation:#x}")


def _filtered(action):
  def run():
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.Filter().install()
    return action()

  return forks.forked(run)


class ProgramTest(parameterized.TestCase):
  """Numbers are those of the kernel's tables: x86-64, then 64-bit ARM."""

  @parameterized.named_parameters(
    ("read", 0, 63),
    ("futex", 202, 98),
    ("exit_group", 231, 94),
    ("getrandom", 318, 278),
    ("wait4", 61, 260),
    ("recvmsg", 47, 212),
  )
  def test_allows(self, *numbers):
    for machine, number in zip(_ARCH, numbers, strict=True):
      code = seccomp.assemble(machine)
      self.assertEqual(verdict(code, _ARCH[machine], number), _ALLOWED)

  @parameterized.named_parameters(
    ("socket", 41, 198),
    ("connect", 42, 203),
    ("bind", 49, 200),
    ("execve", 59, 221),
    ("execveat", 322, 281),
    ("kill", 62, 129),
    ("tgkill", 234, 131),
    ("pidfd_send_signal", 424, 424),
    ("rt_sigqueueinfo", 129, 138),
    ("ptrace", 101, 117),
    ("process_vm_readv", 310, 270),
    ("setrlimit", 160, 164),
    ("memfd_create", 319, 279),
    ("io_uring_setup", 425, 425),
    ("userfaultfd", 323, 282),
    ("bpf", 321, 280),
    ("mount", 165, 40),
    ("unshare", 272, 97),
    ("setns", 308, 268),
    ("openat2", 437, 437),
    ("open_by_handle_at", 304, 265),
    ("unlinkat", 263, 35),
    ("renameat2", 316, 276),
    ("fchmodat", 268, 53),
    ("truncate", 76, 45),
    ("keyctl", 250, 219),
    ("timer_create", 222, 107),
    ("setuid", 105, 146),
    ("seccomp", 317, 277),
    ("landlock", 446, 446),
    ("tkill", 200, 130),
  )
  def test_refuses(self, *numbers):
    for machine, number in zip(_ARCH, numbers, strict=True):
      code = seccomp.assemble(machine)
      self.assertEqual(verdict(code, _ARCH[machine], number), _EPERM)

  @parameterized.named_parameters(
    # Name, numbers, arguments that pass, arguments that do not.
    ("openat", 257, 56, (0, 0, 0o2100000), (0, 0, 0o1), (0, 0, 0o100)),
    ("truncating", 257, 56, (0, 0, 0), (0, 0, 0o1000), (0, 0, 0o20200002)),
    ("prlimit64", 302, 261, (0, 6, 0), (0, 6, 4096), (0, 6, 1 << 32)),
    ("child", 56, 220, (0x1200011,), (0x40000011,), (0x20011,)),
    ("sibling", 56, 220, (0x8011,), (0x3D0F00,), (0x4111,)),
    ("mmap", 9, 222, (0, 9, 3, 0x22), (0, 9, 3, 0x21), (0, 9, 3, 0x4023)),
    ("mmap_of_a_file", 9, 222, (0, 9, 1, 0x01), (0, 9, 1, 0x21)),
    ("fcntl", 72, 25, (0, 1030), (0, 8), (0, 10)),
    ("ioctl", 16, 29, (0, 0x5401), (0, 0x5412), (0, 0x8901)),
    ("death", 157, 167, (1, 9), (1, 0), (4, 1)),
    ("naming", 157, 167, (15, 0), (22, 2), (38, 1)),
    ("socketpair", 53, 199, (1, 0o2000001), (1, 2), (2, 1)),
    (
      "sendto",
      44,
      206,
      (0, 9, 9, 0, 0),
      (0, 9, 9, 0, 1 << 40),
      (0,) * 4 + (8,),
    ),
  )
  def test_looks_at_arguments(self, x86, arm, good, *bad):
    for machine, number in (("x86_64", x86), ("aarch64", arm)):
      code, arch = seccomp.assemble(machine), _ARCH[machine]
      self.assertEqual(verdict(code, arch, number, *good), _ALLOWED)
      for arguments in bad:
        self.assertEqual(verdict(code, arch, number, *arguments), _EPERM)

  def test_unknown_calls(self):
    for machine, arch in _ARCH.items():
      code = seccomp.assemble(machine)
      self.assertEqual(verdict(code, arch, 500), _ENOSYS)
      self.assertEqual(verdict(code, arch, 435), _ENOSYS)  # clone3
      # Another machine's calls in the same process, and x32's.
      self.assertEqual(verdict(code, 0x40000003, 3), _EPERM)
      self.assertEqual(verdict(code, arch, 1 << 30), _EPERM)
      self.assertEqual(verdict(code, arch, -1), _EPERM)

  def test_no_other_number_passes(self):
    for machine, arch in _ARCH.items():
      code, known = seccomp.assemble(machine), seccomp.table(machine).values()
      for number in range(600):
        if number not in known:
          self.assertNotEqual(verdict(code, arch, number), _ALLOWED, number)

  def test_other_machines(self):
    with self.assertRaisesRegex(OSError, "no table of system calls for riscv"):
      seccomp.assemble("riscv64")
    with mock.patch.object(kernel, "LINUX", False):
      with self.assertRaisesRegex(OSError, "Linux"):
        seccomp.Filter()


def _set_owner():
  import fcntl

  fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())


def _datagram():
  socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


class AttemptTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    if (text := _filtered(lambda: "installed")) != "installed":
      self.skipTest(f"no seccomp here: {text}")

  @parameterized.named_parameters(
    ("socket", socket.socket),
    ("datagram", _datagram),
    ("kill_self", lambda: os.kill(os.getpid(), 0)),
    ("raise_signal", lambda: signal.raise_signal(signal.SIGTERM)),
    ("owner", _set_owner),
    ("write", lambda: os.open(os.devnull, os.O_WRONLY)),
    ("exec", lambda: os.execv(sys.executable, [sys.executable])),
    ("mkdir", lambda: os.mkdir("/never")),
    ("setsid", os.setsid),
    ("shared", lambda: mmap.mmap(-1, 9)),
    ("memfd", lambda: kernel.call("memfd_create", b"x", 0)),
    ("unshare", lambda: kernel.call("unshare", 0)),
    ("ptrace", lambda: kernel.call("ptrace", 0, 0, 0, 0)),
  )
  def test_refused(self, action):
    self.assertStartsWith(_filtered(action), "PermissionError: [Errno 1]")

  def test_limits_stay(self):
    limit = resource.RLIMIT_NOFILE
    text = _filtered(lambda: resource.setrlimit(limit, (5, 5)))
    self.assertStartsWith(text, "ValueError")  # Python's word for EPERM.
    self.assertIn(", ", _filtered(lambda: resource.prlimit(0, limit)))

  def test_what_programs_need(self):
    def action():
      import asyncio
      import random
      import subprocess  # noqa: F401
      import time

      with open(__file__) as file:
        file.read(1)
      time.sleep(1e-4)
      os.urandom(1)
      # A snapshot forks when it is told to.
      pid = os.fork()
      if pid == 0:
        os._exit(7)
      status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
      left, right = socket.socketpair()
      left.sendall(b"ab")
      asyncio.run(asyncio.sleep(0))
      return status, right.recv(2), random.Random(0).randint(5, 5)

    self.assertEqual(_filtered(action), "(7, b'ab', 5)")


if __name__ == "__main__":
  absltest.main()
