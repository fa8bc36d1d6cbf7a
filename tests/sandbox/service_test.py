"""Forks that answer questions about untrusted text."""

import contextlib
import fcntl
import functools
import os
import signal
import time
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.sandbox import service
from rstar_jax.sandbox.isolation import confinement


def send(data):
  """Writes to every open descriptor."""
  for number in range(4096):
    with contextlib.suppress(OSError):
      os.write(number, data)


def evaluated(question):
  return eval(question, {"os": os, "time": time, "send": send})


make = functools.partial(service.Fork, evaluated, (), 1 << 30, 30.0)
hasty = functools.partial(service.Fork, evaluated, (), 1 << 30, 0.2)


class ServiceTest(parameterized.TestCase):
  def test_answers(self):
    fork = make()
    self.addCleanup(fork.end)
    for question, wanted in (("6 * 7", 42), ("[1, 'a'] * 2", [1, "a", 1, "a"])):
      again, found = service.answer(fork, question, make, "no")
      self.assertIs(again, fork)
      self.assertEqual(found, wanted)

  def test_killed_fork_is_replaced_and_the_question_kept(self):
    fork = make()
    os.kill(fork.pid, signal.SIGKILL)
    again, found = service.answer(fork, "7", make, "no")
    self.addCleanup(again.end)
    self.assertEqual(found, 7)
    self.assertIsNot(again, fork)

  def test_deadline_kills(self):
    # Also one that sends the beginning of a message.
    for question in ("time.sleep(99)", "9**9**9**9", "send(b'{' * 9)"):
      fork = hasty()
      again, found = service.answer(fork, question, hasty, "no")
      self.addCleanup(again.end)
      self.assertEqual(found, "no")
      with self.assertRaises(ProcessLookupError):
        os.kill(fork.pid, 0)

  @parameterized.parameters(
    "1 / 0",
    "os._exit(0)",
    "len(bytes(1 << 31))",
    "set()",
    "'x' * 10**6",
    "send(b'[' * 10**6)",
    "send(b'\\0\\0\\0\\1{')",
  )
  def test_no_answer(self, question):
    fork, found = service.answer(make(), question, make, "no")
    self.addCleanup(fork.end)
    self.assertEqual(found, "no")

  def test_it_reaches_nothing_but_its_socket(self):
    # Descriptors below and above those of the child.
    below = os.open(os.devnull, os.O_RDONLY)
    above = fcntl.fcntl(below, fcntl.F_DUPFD, 900)
    fork = make()
    for clean in (fork.end, lambda: os.close(below), lambda: os.close(above)):
      self.addCleanup(clean)
    null = "os.fstat(2)[:] == os.stat('/dev/null')[:]"
    self.assertIs(fork.ask(null), True)
    self.assertLen(os.listdir(f"/proc/{fork.pid}/fd"), 4)

  def test_what_it_is_not_confined_by(self):
    notes = {"landlock": "No such thing", "credentials": "", "seccomp": "no"}
    confine = mock.patch.object(
      confinement, "confine_service", return_value=notes
    )
    with confine:
      fork = make()
      found = service.missing(make)
    self.addCleanup(fork.end)
    wanted = ["landlock (No such thing)", "seccomp (no)"]
    self.assertEqual((fork.missing(), found), (wanted, wanted))
    # It answers as ever.
    self.assertEqual(fork.ask("7"), 7)

  def test_it_is_confined(self):
    confined = []
    with mock.patch.object(confinement, "confine_service", confined.append):
      fork = service.Fork(lambda _: confined, ("numpy",), 1 << 30, 30.0)
    self.addCleanup(fork.end)
    self.assertEqual(fork.ask(0), [["numpy"]])
    self.assertEmpty(confined)  # Not this process.


if __name__ == "__main__":
  absltest.main()
