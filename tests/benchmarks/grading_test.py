"""Rows of the table of graders, by hand."""

import contextlib
import io
from unittest import mock

from absl import flags
from absl.testing import absltest, flagsaver, parameterized

from benchmarks import grading
from rstar_jax.grading.labelled import Pair


class GradingTest(parameterized.TestCase):
  # The grader under test is right in the first and the last of four, ours in
  # the last two.
  PAIRS = (
    Pair("1", "1.0", True, "form"),
    Pair("2", "3", False, "form"),
    Pair("4", "4.0", True, "form"),
    Pair("9**9", "7", False, "huge"),
  )
  VERDICTS = ("equal", "equal", "undecided", "different")
  OURS = ("different", "equal", "equal", "different")

  def cells(self, group):
    lines = grading.rows(
      *("any", group, self.PAIRS, self.VERDICTS),
      *([1.0, 2.0, 4.0, 900.0], self.OURS),
    )
    return [[each.strip() for each in line.split("|")[2:-1]] for line in lines]

  def test_a_row(self):
    (row,) = self.cells("golds")
    self.assertEqual(
      row,
      # One of two that are called equal is; of two that are equal, one is
      # called so. Better in the first pair.
      ["golds", "4", "0.500", "0.500", "1", "1", "1", "1"]
      # The median, and the last but one; of all, and of the tame.
      + ["3.00", "4", "2"],
    )

  def test_a_row_for_each_half_of_labelled_pairs(self):
    halves = [False, True, True, True]
    with mock.patch.object(
      Pair,
      "held_out",
      property(lambda pair: halves[self.PAIRS.index(pair)]),
    ):
      tuning, apart = self.cells("labelled")
    self.assertEqual(tuning[:4], ["tuning", "1", "1.000", "1.000"])
    self.assertEqual(apart[:4], ["kept apart", "3", "0.000", "0.000"])
    self.assertEqual((tuning[7], apart[7]), ("1", "0"))

  def test_graders_take_turns(self):
    log, now = [], [0.0]

    def grader(name, seconds):
      def grade(pair):
        log.append((name, pair.gold))
        now[0] += seconds
        return "equal" if name == "one" else "different"

      return grade

    with mock.patch.object(grading.time, "perf_counter", lambda: now[0]):
      one, two = grading.measure(
        [grader("one", 0.002), grader("two", 0.5)], self.PAIRS[:2]
      )
    # After a pair that starts each.
    self.assertEqual(
      log[2:], [("two", "1"), ("one", "1"), ("one", "2"), ("two", "2")]
    )
    self.assertEqual((one[0], two[0]), (["equal"] * 2, ["different"] * 2))
    for times, ms in ((one[1], 2.0), (two[1], 500.0)):
      self.assertLen(times, 2)
      for each in times:
        self.assertAlmostEqual(each, ms)

  def test_times_are_compared_without_the_huge(self):
    found = [((), [1.0, 2.0, 6.0, 900.0]), ((), [2.0, 4.0, 6.0, 1.0])]
    with contextlib.redirect_stdout(io.StringIO()) as out:
      grading.compare_times(["now", "before"], found, self.PAIRS)
    self.assertEqual(
      out.getvalue().splitlines(),
      [
        "median: now 2.00 ms, before 4.00 ms, ratio 0.500",
        "sum: now 9.00 ms, before 12.00 ms, ratio 0.750",
        "p99: now 2.00 ms, before 4.00 ms, ratio 0.500",
      ],
    )

  @flagsaver.flagsaver
  def test_sets_are_known_before_any_is_made(self):
    with self.assertRaisesRegex(
      flags.IllegalFlagValueError, "give some of labelled, golds, sympy"
    ):
      flags.FLAGS["sets"].parse("golds,simpy")
      flags.FLAGS.validate_all_flags()
    flags.FLAGS["sets"].parse("golds")
    flags.FLAGS.validate_all_flags()

  @parameterized.parameters(
    (r"$\boxed{12}$", "12"),
    (r"\[x + 1\]", "x + 1"),
    ("$$5$$", "5"),
    (" 7. ", "7"),
    ("costs $5", "costs $5"),
  )
  def test_what_is_around_an_answer(self, answer, bare):
    self.assertEqual(grading._bare(answer), bare)

  def test_plain_baselines(self):
    self.assertTrue(grading.plain_number("1e3", "1000.0"))
    self.assertFalse(grading.plain_number("1", "1.1"))
    self.assertTrue(grading.plain_number("x ", "x"))
    self.assertFalse(grading.plain_string("1", "1.0"))


if __name__ == "__main__":
  absltest.main()
