"""Problems with several right answers: any of them is accepted."""

import numpy as np
from absl.testing import absltest

from rstar_jax.grading import judging
from rstar_jax.types import Problem

ONE = Problem("a", "q", "3")
TWO = Problem("b", "q", "3", alternatives=("-3", "hard"))


def grade(pairs):
  calls.append(list(pairs))
  return [
    "undecided" if gold == "hard" else "equal" if gold == given else "different"
    for gold, given in pairs
  ]


calls: list = []


class GradingTest(absltest.TestCase):
  def test_any_right_answer_counts(self):
    calls.clear()
    found = judging.verdicts(
      grade, [(ONE, "3"), (TWO, "-3"), (ONE, "-3"), (TWO, "3"), (TWO, "5")]
    )
    self.assertEqual(
      found, ["equal", "equal", "different", "equal", "undecided"]
    )
    self.assertLen(calls, 1)
    self.assertLen(calls[0], 2 + 3 * 3)

  def test_by_the_grader(self):
    calls.clear()
    none = Problem("c", "q")
    found = judging.judge([(ONE, "3"), (none, "3"), (TWO, "5")], grade)
    self.assertEqual(found, [("equal", 1.0), None, ("undecided", -1.0)])
    self.assertEqual(judging.judge([(none, "3")], grade), [None])
    self.assertLen(calls, 1)

  def test_by_a_reward(self):
    def reward(problem, answer):
      return {"3": 0.25, "4": 0}.get(answer, -0.5) + (problem.answer is None)

    calls.clear()
    none = Problem("c", "q")
    found = judging.judge(
      [(ONE, "3"), (ONE, "4"), (ONE, "5"), (none, "5")], grade, reward
    )
    expected = [("equal", 0.25), ("different", 0.0), ("different", -0.5)]
    self.assertEqual(found, [*expected, ("equal", 0.5)])
    self.assertEmpty(calls)

  def test_what_is_no_reward(self):
    for worth in (None, "1", True, float("nan"), 1.5, -2, [0.5]):
      with self.subTest(str(worth)):
        with self.assertRaisesRegex(
          ValueError, "^calls.reward=.*must return a number from -1 to 1, not"
        ):
          judging.judge([(ONE, "3")], grade, lambda *_, worth=worth: worth)
    judging.judge([(ONE, "3")], grade, lambda *_: np.float32(0.5))


if __name__ == "__main__":
  absltest.main()
