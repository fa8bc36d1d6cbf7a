"""Two runs side by side: problems in common, and what may be said."""

from absl.testing import absltest

from rstar_jax.evaluation import compare
from tests.evaluation.tables_test import RIGHT, WRONG, record


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
    plain = record("p", "samples", [RIGHT], [3])
    valued = record("p", "mcts", [RIGHT], [3], values=[0.5])
    greedy = record("p", "greedy", [RIGHT], [3], values=[0.5])
    samples = record("p", "samples", [RIGHT], [3], values=[0.5])
    found = [
      [each["reward"] for each in compare.of_evaluation([one])]
      for one in (plain, valued, greedy, samples)
    ]
    self.assertEqual(found, [[None], ["ppm"], [None], [None, "ppm"]])
    # Neither another method nor another split has the values of a search.
    other = {**record("p", "mcts", [RIGHT], [3]), "split": "t"}
    found = compare.of_evaluation([plain, valued, other])
    self.assertEqual([each["reward"] for each in found], [None, "ppm", None])

  def test_problems_without_an_answer_count(self):
    choices = ["pass", "majority", "best", "weighted", "top_k"]
    for source in ("mcts", "samples"):
      few, every = (
        compare.of_evaluation(
          record(f"p{i}", source, [RIGHT], [3], values=[0.5])
          if i < answered
          else record(f"p{i}", source, [], [3])
          for i in range(10)
        )
        for answered in (3, 10)
      )
      rows = compare.rows(few, every, seed=0)
      self.assertEqual([row["choice"] for row in rows], choices)
      for row in rows:
        found = row["found"]
        self.assertEqual(
          (found.n, found.first, found.second, found.only_second),
          (10, 0.3, 1.0, 7),
        )
        self.assertEqual(found.verdict, "second is better")


if __name__ == "__main__":
  absltest.main()
