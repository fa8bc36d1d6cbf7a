"""The grader's worker module, run in the test's own process."""

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


class ForkedTest(absltest.TestCase):
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
      fork = judge.forked(_OPTIONS)  # After the patch: it is in its memory.
      self.assertEqual(fork.ask(["a", "b"]), "equal")
      fork.end()
    self.assertEmpty(confined)  # Not this process.

  def test_percent(self):
    for ratio, wanted in ((False, "different"), (True, "equal")):
      fork = judge.forked({**_OPTIONS, "percent_is_ratio": ratio})
      self.assertEqual(fork.ask(["1/4", "25%"]), wanted)
      fork.end()


if __name__ == "__main__":
  absltest.main()
