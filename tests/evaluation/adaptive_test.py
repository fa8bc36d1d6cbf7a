"""Budgets by difficulty of two problems, by hand."""

from absl.testing import absltest, parameterized

from rstar_jax.evaluation import adaptive
from tests.evaluation.tables_test import RIGHT, WRONG, record


def answered(problem, *answers):
  """Returns samples of ten tokens each; 4 is right."""
  verdicts = [RIGHT if each == "4" else WRONG for each in answers]
  made = record(
    problem, "samples", verdicts, [10 * i + 10 for i in range(len(answers))]
  )
  for each, answer in zip(made["trajectories"], answers, strict=True):
    each["answer"] = answer
  return made


RECORDS = [answered("easy", *"44444"), answered("hard", *"94944")]


class AdaptiveTest(parameterized.TestCase):
  def test_the_hard_get_what_the_easy_leave(self):
    found = {row["confidence"]: row for row in adaptive.table(RECORDS, seed=0)}
    self.assertEqual(tuple(found), adaptive.CONFIDENCES)
    # One vote says 0.75 already; then 9 is given.
    first = found[0.75]
    self.assertEqual((first["fewest"], first["most"]), (1, 1))
    self.assertEqual((first["accuracy"], first["tokens"]), (0.5, 10.0))
    self.assertAlmostEqual(first["alike"], (1 + 3 / 5) / 2)
    # Three that agree are 0.9375, and settle five; of the hard all are needed.
    for confidence in (0.9, 0.95, 0.99, 1.0):
      row = found[confidence]
      self.assertEqual((row["fewest"], row["most"], row["units"]), (3, 5, 4.0))
      self.assertEqual((row["accuracy"], row["tokens"]), (1.0, 40.0))
      self.assertEqual((row["low"], row["high"]), (1.0, 1.0))
      # Four samples of the hard: right without a 9, else a tie.
      self.assertAlmostEqual(row["alike"], (1 + 2 / 5 + 3 / 5 / 2) / 2)

  @parameterized.parameters(
    (5, 0.8), (10, 0.8), (40, 0.85), (45, 0.925), (50, 1.0), (60, 1.0)
  )
  def test_alike(self, budget, expected):
    found = adaptive.alike(RECORDS, budget, seed=0)
    self.assertAlmostEqual(found, expected)

  def test_answers_that_vote_together(self):
    # The first of the hard votes with the others, and is not right.
    records = [RECORDS[0], answered("hard", "4.0", *"4444")]
    rows = adaptive.table(records, seed=0)
    self.assertEqual([row["most"] for row in rows], [1, 3, 3, 3, 3])
    # The first of the group is given.
    self.assertEqual([row["accuracy"] for row in rows], [0.5] * 5)
    self.assertAlmostEqual(rows[1]["alike"], 0.9)


if __name__ == "__main__":
  absltest.main()
