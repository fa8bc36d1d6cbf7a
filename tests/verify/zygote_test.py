"""The process tree below a worker, without a host."""

import json
import os
import signal
import socket
import time

from absl.testing import absltest

from rstar_jax.verify import isolation, wire, zygote


def _gone(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return True
  return False


class ZygoteTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.host, theirs = socket.socketpair()
    self.addCleanup(self.host.close)
    self.addCleanup(theirs.close)
    self.zygote = zygote.Zygote(theirs, output_bytes=101, cpu_seconds=7)

  def test_messages_of_a_fork_come_in_order(self):
    messages = []

    def action(send):
      for i in range(5):
        send([i, "x" * 101 * i])

    status = self.zygote.fork(action, lambda p: messages.append(json.loads(p)))
    self.assertEqual(status, 0)
    self.assertEqual(messages, [[i, "x" * 101 * i] for i in range(5)])

  def test_too_long_a_message_ends_the_fork(self):
    messages = []
    status = self.zygote.fork(lambda send: send("x" * 10**7), messages.append)
    self.assertEmpty(messages)
    self.assertEqual(os.WTERMSIG(status), signal.SIGKILL)

  def test_what_a_program_leaves_running_is_killed(self):
    self.assertTrue(isolation.adopt_orphans())
    pids = []

    def action(send):
      # No hook here: as a program that got past it.
      pid = os.fork()
      if pid == 0:
        os.setsid()
        for descriptor in range(3, 64):  # Else its pipe would stay open.
          try:
            os.close(descriptor)
          except OSError:
            pass
        time.sleep(300)
      send(pid)

    self.zygote.fork(action, lambda payload: pids.append(json.loads(payload)))
    self.assertLen(pids, 1)
    self.assertTrue(_gone(pids[0]))

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
      self.zygote.serve()
      os._exit(0)
    self.zygote._connection.close()
    self.host.sendall(wire.frame(programs))
    self.assertEqual(wire.receive(self.host), "begun")
    results = [wire.receive(self.host)[:3] for _ in programs]
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

  def test_probes_are_reported(self):
    facts = dict.fromkeys(
      ("die_with_parent", "adopt_orphans", "no_new_privs"), True
    )
    report = self.zygote.probe(facts)
    self.assertContainsSubset(isolation.PROBES, report)
    # This process has no rlimits, so that only the hook can hold these.
    for name in ("net", "read", "exec", "kill", "ctypes"):
      self.assertEqual(report[name], "audit hook (not a boundary)", name)


if __name__ == "__main__":
  absltest.main()
