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

  def test_serves_until_the_host_leaves(self):
    programs = [
      ["a = 5", "print(a)"],
      ["print(6)"],
      ["import os", "os._exit(3)"],
      ["x = (", "1)\nprint(x)"],
    ]
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
