"""Unsolved and suspect problems, by hand."""

from absl.testing import absltest

from rstar_jax.data import unsolved
from rstar_jax.search.tree import RIGHT, WRONG
from tests.data.trajectories_test import make_tree


def wrong(name, *answers):
  # One path comes to no answer.
  return make_tree(
    ("open", 0.0, None, 0.0, WRONG),
    *((f"s{i}", 0.0, each, -1.0, WRONG) for i, each in enumerate(answers)),
    name=name,
    level=2,
  )


class UnsolvedTest(absltest.TestCase):
  def test_the_most_suspicious_first(self):
    trees = [
      wrong("spread", "2", "3", "4", "5"),
      # Five of six say 7, in two notations.
      wrong("agreed", "7", "7.0", "7", "8", "7", "7"),
      # Three alike are too few to say anything.
      wrong("few", "7", "7", "7"),
      make_tree(("a", 1.0, "1", 1.0, RIGHT), name="solved"),
      wrong("nothing"),
    ]
    rows = [row for each in trees if (row := unsolved.report([each]))]
    rows.sort(key=unsolved.rank)
    self.assertEqual(
      [(row["problem_id"], row["suspect"]) for row in rows],
      [("agreed", True), ("few", False), ("spread", False), ("nothing", False)],
    )
    first = rows[0]
    self.assertEqual((first["agreed"], first["votes"]), ("7", 5))
    self.assertEqual((first["answers"], first["distinct"]), (6, 2))
    self.assertEqual((first["gold"], first["level"]), ("1", 2))
    self.assertIsNone(rows[-1]["agreed"])

  def test_trees_of_a_problem_are_pooled(self):
    trees = [wrong("p", "7", "7"), wrong("p")]
    other = make_tree(
      ("x", 0.0, "7", -1.0, WRONG), ("y", 0.0, "7", -1.0, WRONG), name="p"
    )
    row = unsolved.report([*trees, other])
    self.assertEqual((row["votes"], row["suspect"]), (4, True))


if __name__ == "__main__":
  absltest.main()
