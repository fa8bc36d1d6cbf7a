"""The grader's worker program, in this process."""

from unittest import mock

from absl.testing import absltest

from rstar_jax.verify import answers, judge


class JudgeTest(absltest.TestCase):
  def test_library_is_good(self):
    self.assertEqual(judge.self_test(), "")

  def test_library_that_calls_all_equal_is_found_out(self):
    with mock.patch.object(answers, "by_library", return_value=True):
      self.assertEqual(judge.self_test(), "it calls 5 and 6 equal")

  def test_library_that_calls_none_equal_is_found_out(self):
    with mock.patch.object(answers, "by_library", return_value=False):
      self.assertIn("1/2 and 0.5", judge.self_test())

  def test_library_that_is_missing_is_found_out(self):
    error = ImportError("No module named 'math_verify'")
    with mock.patch.object(answers, "by_library", side_effect=error):
      self.assertStartsWith(judge.self_test(), "ImportError: No module")

  def test_verdicts(self):
    self.assertEqual(judge.judge("7", "7.0"), "equal")
    self.assertEqual(judge.judge("7", "8"), "different")
    with mock.patch.object(answers, "equal", side_effect=RecursionError):
      self.assertEqual(judge.judge("7", "8"), "undecided")


if __name__ == "__main__":
  absltest.main()
