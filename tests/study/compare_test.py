"""Two runs side by side: problems in common, and what may be said."""

from absl.testing import absltest

from rstar_jax.study import compare
from tests.study.table_test import RIGHT, WRONG, record


def run(verdicts, first=0):
  return [
    record(f"p{first + i}", "samples", [verdict], [3])
    for i, verdict in enumerate(verdicts)
  ]


class CompareTest(absltest.TestCase):
  def test_problems_in_common_alone(self):
    rows = compare.rows(run([RIGHT] * 20), run([WRONG] * 20, 10), seed=0)
    self.assertLen(rows, 2)
    for row in rows:
      self.assertEqual((row["method"], row["units"]), ("samples", 1))
      self.assertEqual(row["found"].n, 10)
      self.assertEqual(row["found"].verdict, "first is better")
    text = compare.render(rows)
    self.assertIn("+100.0 [+100.0, +100.0], better", text)
    self.assertIn("| 10:0", text)

  def test_equal_runs_are_not_distinguishable(self):
    same = run([RIGHT, WRONG] * 8)
    text = compare.render(compare.rows(same, same, seed=0))
    self.assertIn("not distinguishable", text)

  def test_nothing_in_common(self):
    rows = compare.rows(run([RIGHT]), run([RIGHT], 1), seed=0)
    self.assertEqual(rows, [])
    self.assertIn("no problem in common", compare.render(rows))

  def test_of_an_evaluation(self):
    plain = {
      "problem_id": "p",
      "split": "s",
      "level": None,
      "source": "samples",
      "trajectories": [
        {"answer": "4", "verdict": RIGHT, "value": 0.5, "tokens": 3},
        {"answer": None, "verdict": "failed", "value": None, "tokens": 4},
      ],
      "tokens": 7,
    }
    found = compare.of_evaluation(plain)
    self.assertEqual((found["spent"], found["reward"]), ([3, 7], "ppm"))
    self.assertEqual([t["unit"] for t in found["trajectories"]], [0, 1])
    search = compare.of_evaluation(plain | {"source": "mcts"})
    self.assertEqual(search["spent"], [7])
    self.assertEqual([t["unit"] for t in search["trajectories"]], [0, 0])
    nothing = plain | {"source": "mcts", "trajectories": []}
    self.assertEqual(compare.of_evaluation(nothing)["spent"], [7])


if __name__ == "__main__":
  absltest.main()
