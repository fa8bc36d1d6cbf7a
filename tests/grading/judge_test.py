"""The grader's worker module, run in the test's own process."""

import os
import resource
import signal
import time
from unittest import mock

from absl.testing import absltest

from rstar_jax.grading import algebra, answers, judge
from rstar_jax.sandbox.isolation import confinement

_OPTIONS = {
  "memory_bytes": 4 << 30,
  "seconds": 60.0,
  "percent_is_ratio": False,
}


class SelfTestTest(absltest.TestCase):
  def test_library_is_good(self):
    self.assertEqual(judge.self_test(), "")

  def test_library_that_calls_all_equal_is_found_out(self):
    with mock.patch.object(algebra, "same", return_value=True):
      self.assertEqual(judge.self_test(), "it calls 5 and 6 equal")

  def test_library_that_calls_none_equal_is_found_out(self):
    with mock.patch.object(algebra, "same", return_value=False):
      self.assertIn("1/2 and 0.5", judge.self_test())

  def test_library_that_is_missing_is_found_out(self):
    error = ImportError("No module named 'math_verify'")
    with mock.patch.object(algebra, "same", side_effect=error):
      self.assertStartsWith(judge.self_test(), "ImportError: No module")


class JudgeTest(absltest.TestCase):
  def test_verdicts(self):
    self.assertEqual(judge.judge("7", "7.0", 60), "equal")
    self.assertEqual(judge.judge("7", "8", 60), "different")
    for error in (RecursionError, MemoryError, ValueError):
      with mock.patch.object(answers, "equal", side_effect=error):
        self.assertEqual(judge.judge("7", "8", 60), "undecided")

  def test_soft_deadline_interrupts(self):
    def swallow(*_):
      while True:
        try:
          time.sleep(0.01)
        except Exception:  # As sympy does, in places.
          pass

    with mock.patch.object(answers, "equal", side_effect=swallow):
      self.assertEqual(judge.judge("7", "8", 0.05), "undecided")
    # The alarm is off again, and the handler what it was.
    self.assertEqual(signal.getitimer(signal.ITIMER_REAL), (0.0, 0.0))
    self.assertEqual(signal.getsignal(signal.SIGALRM), signal.SIG_DFL)


class ForkTest(absltest.TestCase):
  def test_answers(self):
    fork = judge.Fork(_OPTIONS)
    again, verdict = judge.answer(fork, [r"\sqrt{8}", r"2\sqrt{2}"], _OPTIONS)
    self.assertIs(again, fork)
    self.assertEqual(verdict, "equal")
    fork.end()

  def test_killed_fork_is_replaced_and_the_pair_kept(self):
    fork = judge.Fork(_OPTIONS)
    os.kill(fork.pid, signal.SIGKILL)
    again, verdict = judge.answer(fork, ["7", "7.0"], _OPTIONS)
    self.assertEqual(verdict, "equal")
    self.assertIsNot(again, fork)
    again.end()

  def test_hard_deadline_kills(self):
    options = {**_OPTIONS, "seconds": 0.2}
    fork = judge.Fork(options)
    os.kill(fork.pid, signal.SIGSTOP)
    again, verdict = judge.answer(fork, ["7", "7.0"], options)
    self.assertEqual(verdict, "undecided")
    with self.assertRaises(ProcessLookupError):
      os.kill(fork.pid, 0)
    again.end()

  def test_compares_in_confinement(self):
    # What a model wrote goes through a parser that evaluates.
    confined = []

    def equal(*_):
      limit = resource.getrlimit(resource.RLIMIT_AS)[0]
      return confined == [judge.PACKAGES] and limit == 4 << 30

    with (
      mock.patch.object(confinement, "confine_service", confined.append),
      mock.patch.object(answers, "equal", equal),
    ):
      fork = judge.Fork(_OPTIONS)  # After the patch: it is in its memory.
      self.assertEqual(fork.ask(["a", "b"]), "equal")
      fork.end()
    self.assertEmpty(confined)  # Not this process.


if __name__ == "__main__":
  absltest.main()
