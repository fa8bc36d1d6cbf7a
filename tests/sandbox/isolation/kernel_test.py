"""System calls by ctypes, and their errors."""

import errno
import os
import sys
from unittest import mock

from absl.testing import absltest

from rstar_jax.sandbox.isolation import kernel
from tests.sandbox import forks

_QUERY = 0xFFFFFFFF


class KernelTest(absltest.TestCase):
  def test_returns_what_the_call_does(self):
    if not kernel.LINUX:
      self.skipTest(f"{sys.platform} is not Linux")
    self.assertEqual(kernel.call("getpid"), os.getpid())
    self.assertFalse(kernel.prctl(-1, 0))

  def test_errors_name_the_call(self):
    if not kernel.LINUX:
      self.skipTest(f"{sys.platform} is not Linux")
    with self.assertRaisesRegex(OSError, "close: Bad file") as caught:
      kernel.call("close", -1)
    self.assertEqual(caught.exception.errno, errno.EBADF)

  def test_same_addresses(self):
    if not kernel.LINUX:
      self.skipTest(f"{sys.platform} is not Linux")

    def after(change):
      kernel.call("personality", change(kernel.call("personality", _QUERY)))
      return kernel.has_same_addresses()

    off = forks.forked(lambda: after(lambda old: old & ~0x40000))
    on = forks.forked(lambda: after(lambda old: old | 0x40000))
    if "not permitted" in on:
      self.skipTest(on)
    self.assertEqual((off, on), ("False", "True"))
    with mock.patch.object(kernel, "call", side_effect=OSError):
      self.assertFalse(kernel.has_same_addresses())

  def test_elsewhere_it_says_so(self):
    with mock.patch.object(kernel, "LINUX", False):
      with self.assertRaisesRegex(OSError, "getpid: this is not Linux"):
        kernel.call("getpid")
      self.assertFalse(kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1))


if __name__ == "__main__":
  absltest.main()
