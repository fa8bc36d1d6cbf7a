"""Problems with several right answers: any of them is accepted."""

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


if __name__ == "__main__":
  absltest.main()
