"""Where a corrective rollout begins, by hand and in whole searches."""

import itertools

import numpy as np
from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.search import corrective, mcts, selection
from rstar_jax.search.tree import ANSWER, CODE, STEP, Child, Tree
from rstar_jax.types import Problem
from tests.search.toys import PROBLEMS, calls_of, config_of


def searched(*rewards: float) -> Tree:
  """A tree whose rollouts ended at answers of these rewards.

  Nodes 1, 2 and 3 are steps; below 1 are 4, 5 and 6, and below 4 the answers.
  """
  tree = Tree(Problem("p", "q", "1"))

  def add(node, kind, *values):
    children = [Child(str(v), kind, ppm=v, reward=v) for v in values]
    tree.add_children(node, children)

  add(0, STEP, 0.9, 0.1, 0.2)
  add(1, CODE, 0.5, -0.7, -0.3)
  add(4, ANSWER, *rewards, 0.4)
  for end in range(7, 7 + len(rewards)):
    selection.backup(tree, end, float(tree.reward[end]))
    tree.close(end)
    tree.end_rollout(end)
  return tree


class StartTest(absltest.TestCase):
  def starts(self, tree: Tree, share: float = 1.0) -> set[int]:
    return {corrective.start(tree, share, seed) for seed in range(50)}

  def test_the_best_sibling_of_each_step_that_was_only_wrong(self):
    # After 0 it is 3, after 1 it is 6. The open answer beside 7 is none.
    self.assertEqual(self.starts(searched(-1.0)), {3, 6})
    self.assertEqual(self.starts(searched(-1.0, 0.0)), {3, 6})

  def test_no_place_with_a_right_answer(self):
    self.assertEqual(self.starts(searched(1.0)), {0})
    self.assertEqual(self.starts(searched(-1.0, 0.5, -1.0)), {0})

  def test_a_place_below_counts_for_itself(self):
    tree = searched(-1.0)
    tree.add_children(3, [Child("x", ANSWER, reward=1.0)])
    tree.end_rollout(len(tree) - 1)
    self.assertEqual(self.starts(tree), {6})

  def test_the_root_if_there_is_nothing_else(self):
    self.assertEqual(self.starts(searched()), {0})
    tree = searched(-1.0)
    tree.end_rollout()  # It failed.
    for node in (2, 3, 5, 6):
      self.assertNotEqual(self.starts(tree), {0})
      tree.give_up(node)
    self.assertEqual(self.starts(tree), {0})

  def test_so_many_rollouts_are_corrective(self):
    tree = searched(-1.0)
    self.assertEqual(self.starts(tree, 0.0), {0})
    found = [corrective.start(tree, 0.25, seed) for seed in range(2000)]
    # 2000 draws of 1/4: five deviations are 97.
    self.assertBetween(np.count_nonzero(found), 403, 597)

  def test_the_identity_of_the_rollout_decides(self):
    tree = searched(-1.0)
    one = [corrective.start(tree, 0.5, 3, ("r", i)) for i in range(60)]
    again = [corrective.start(tree, 0.5, 3, ("r", i)) for i in range(60)]
    self.assertEqual(one, again)
    self.assertEqual(set(one), {0, 3, 6})
    tree.end_rollout()
    later = [corrective.start(tree, 0.5, 3, ("r", i)) for i in range(60)]
    self.assertNotEqual(one, later)


class SearchTest(absltest.TestCase):
  def test_enough_rollouts_visit_everything_once(self):
    policy = testing.ToySum(covers=True)
    config = config_of(rollouts=99, corrective=0.5)
    trees = mcts.search(PROBLEMS, config, calls_of(policy), seed=1)
    config.corrective = 0.0
    plain = mcts.search(PROBLEMS, config, calls_of(policy), seed=1)
    self.assertNotEqual(
      [each.growth for each in trees], [each.growth for each in plain]
    )
    for tree in trees:
      self.assertEqual(tree.rollouts, 9)
      self.assertTrue(tree.exhausted[0])
      sums = [a + b for a, b in itertools.product((1, 2, 3), (1, 2, 3))]
      right = sum(str(each) == tree.problem.answer for each in sums)
      self.assertEqual(tree.value_sum[0], 2 * right - 9)


if __name__ == "__main__":
  absltest.main()
