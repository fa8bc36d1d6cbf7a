"""Records of a study against what the search did, step by step."""

from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.evaluation import solutions
from rstar_jax.search import mcts, sampling
from rstar_jax.search import tree as tree_lib
from rstar_jax.types import Problem
from tests.search.toys import PROBLEMS, calls_of, config_of

POLICY = testing.ToySum(offsets=(0, 1), covers=True)


class SolutionsTest(absltest.TestCase):
  def test_a_search_cut_short_is_the_shorter_search(self):
    """The first units of a long search are all that a short one finds."""
    problem, calls = PROBLEMS[2], calls_of(POLICY)

    def search(rollouts):
      config = config_of(rollouts=rollouts)
      (tree,) = mcts.search([problem], config, calls, seed=4)
      return solutions.of_tree(tree, "mcts", "s", "last")

    long = search(11)
    self.assertLen(long["spent"], 11)
    for rollouts in range(1, 12):
      short = search(rollouts)
      self.assertEqual(short["spent"], long["spent"][:rollouts])
      self.assertEqual(short["tokens"], long["spent"][rollouts - 1])
      self.assertEqual(
        short["trajectories"],
        [t for t in long["trajectories"] if t["unit"] < rollouts],
      )

  def test_tokens_are_those_of_the_tree(self):
    for tree in mcts.search(
      PROBLEMS, config_of(rollouts=5), calls_of(POLICY), seed=1
    ):
      record = solutions.of_tree(tree, "mcts", "s", "last")
      self.assertEqual(record["tokens"], tree.tokens)
      self.assertEqual(record["spent"], sorted(record["spent"]))
      self.assertLen(record["trajectories"], len(tree_lib.trajectories(tree)))
      visited = solutions.of_tree(tree, "beam", "s", "last", visited=True)
      self.assertLen(visited["trajectories"], 5)

  def test_searches_of_a_problem_add_up(self):
    trees = [
      mcts.search(
        [PROBLEMS[1]], config_of(rollouts=2), calls_of(), seed=0, name=(i,)
      )[0]
      for i in range(3)
    ]
    record = solutions.of_trees(trees, "searches", "s", "last")
    self.assertEqual(record["spent"][-1], sum(tree.tokens for tree in trees))
    units = [each["unit"] for each in record["trajectories"]]
    self.assertEqual(
      [units.count(i) for i in range(3)],
      [len(tree_lib.trajectories(tree)) for tree in trees],
    )

  def test_samples(self):
    samples = [
      sampling.Sample(("a", "b"), "4", "equal", 5, "ok", 0.5),
      sampling.Sample((), None, None, 7, "length"),
    ]
    record = solutions.of_samples(
      Problem("p", "q", "4", "made", 3), "samples", "s", samples
    )
    self.assertEqual(record["spent"], [5, 12])
    self.assertEqual(
      (record["level"], record["family"], record["gold"]), (3, "made", "4")
    )
    first, second = record["trajectories"]
    self.assertEqual(first["steps"], ["a", "b"])
    self.assertEqual((first["verdict"], second["verdict"]), ("equal", "failed"))
    self.assertEqual((first["value"], second["value"]), (0.5, None))


if __name__ == "__main__":
  absltest.main()
