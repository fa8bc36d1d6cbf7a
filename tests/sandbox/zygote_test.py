"""The process tree below a worker, without a host."""

import functools
import os
import socket

from absl.testing import absltest

from rstar_jax.sandbox import wire, zygote
from rstar_jax.sandbox.isolation import confinement
from tests.sandbox import forks


class ZygoteTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.host, theirs = socket.socketpair()
    self.addCleanup(self.host.close)
    self.addCleanup(theirs.close)
    enter = functools.partial(zygote.enter, confinement.limit_program, 101)
    self.zygote = zygote.Zygote(theirs, enter, 101, 7)

  def serve(self, programs):
    """Returns what a worker answers, each cut to status, output and error."""
    pid = os.fork()
    if pid == 0:
      self.host.close()
      forks.as_worker(self.zygote.serve)
      os._exit(0)
    self.zygote._connection.close()
    self.host.sendall(wire.frame(["run", 0, programs]))
    results = []
    while len(results) < len(programs):
      answer = wire.receive(self.host)
      if answer not in ("step", "fork"):
        results.append(answer[:3])
    self.host.close()
    self.assertEqual(os.waitpid(pid, 0)[1], 0)
    return results

  def test_cpu_time_of_arithmetic_is_limited(self):
    self.zygote._cpu_seconds = 1
    self.assertEqual(
      self.serve([["x = 0\nwhile True: x = 1 - x"], ["print(2)"]]),
      [["timeout", "", "CPU time limit"], ["ok", "2\n", ""]],
    )

  def test_arithmetic_does_not_notice_who_shared_its_process(self):
    # Each of the first takes much memory, which is less than the limit.
    grow = "x = [i for i in range({})]\nx = 0"
    steps = [[grow.format(2 * 10**6 + i)] for i in range(3)]
    found = self.serve([*steps, ["x = ['a'] * 10**7\nprint(len(x))"]])
    self.assertEqual(found[-1], ["ok", "10000000\n", ""])
    self.assertEqual(found[:3], [["ok", "", ""]] * 3)

  def test_keeps_only_the_code_of_arithmetic(self):
    self.zygote._programs = [["a = 5", "print(a)"], ["import os"], ["x = 1"]]
    self.assertLen(self.zygote._group(0), 1)
    self.assertEqual(list(self.zygote._codes), ["a = 5", "print(a)"])
    self.assertEqual(self.zygote._group(1), [])
    self.assertLen(self.zygote._group(2), 1)
    for i in range(1000):
      self.zygote._compiled(f"y = {i}")
    self.assertLessEqual(len(self.zygote._codes), 512)

  def test_a_changed_limit_ends_the_worker(self):
    self.zygote._limits = []
    pid = os.fork()
    if pid == 0:
      forks.as_worker(self.zygote.serve)
      os._exit(0)
    self.host.sendall(wire.frame(["run", 0, [["print(1)"]]]))
    self.assertEqual(os.waitpid(pid, 0)[1], 1 << 8)

  def test_serves_until_the_host_leaves(self):
    programs = [
      ["a = 5", "print(a)"],
      ["print(6)"],
      ["import os", "os._exit(3)"],
      ["x = (", "1)\nprint(x)"],
    ]
    results = self.serve(programs)
    self.assertEqual(
      results,
      [
        ["ok", "5\n", ""],
        ["ok", "6\n", ""],
        ["crashed", "", "exited with status 3"],
        ["ok", "1\n", ""],
      ],
    )


if __name__ == "__main__":
  absltest.main()
