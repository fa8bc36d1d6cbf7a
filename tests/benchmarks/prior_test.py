"""A search with the policy's probabilities, by hand and against MCTS."""

import math

import numpy as np
from absl.testing import absltest

from benchmarks import prior
from rstar_jax.search import mcts
from rstar_jax.search.tree import STEP, Child, Tree
from rstar_jax.types import Problem
from tests.search import toys


class PriorTest(absltest.TestCase):
  def tree(self) -> Tree:
    tree = Tree(Problem("p", "q", "1"))
    tree.add_children(
      0,
      [
        Child("a", STEP, visits=2, value_sum=1.0, logprob=math.log(0.1)),
        Child("b", STEP, visits=1, value_sum=0.0, logprob=math.log(0.3)),
        Child("c", STEP, visits=1, value_sum=-1.0, logprob=math.log(0.1)),
      ],
    )
    return tree

  def test_scores_by_hand(self):
    # Shares 0.2, 0.6, 0.2; sqrt(4) = 2.
    np.testing.assert_allclose(
      prior.scores(self.tree(), 0, 3.0),
      [0.5 + 3 * 0.2 * 2 / 3, 0 + 3 * 0.6 * 2 / 2, -1 + 3 * 0.2 * 2 / 2],
    )

  def test_the_likely_child_is_preferred_as_c_says(self):
    tree = self.tree()
    greedy, likely = toys.config_of(c=0.0), toys.config_of(c=3.0)
    self.assertEqual(prior.select_leaf(tree, greedy), 1)
    self.assertEqual(prior.select_leaf(tree, likely), 2)
    tree.close(2)
    self.assertEqual(prior.select_leaf(tree, likely), 1)

  def test_without_a_bonus_it_is_mcts_without_one(self):
    config = toys.config_of(c=0.0, annotation="ppm")
    found, expected = (
      each.search(toys.PROBLEMS, config, toys.calls_of(), 3, name=("x",))
      for each in (prior, mcts)
    )
    self.assertEqual(toys.texts_of(found), toys.texts_of(expected))
    config = toys.config_of(c=5.0, annotation="ppm")
    likely = prior.search(toys.PROBLEMS, config, toys.calls_of(), 3, ("x",))
    self.assertNotEqual(toys.texts_of(likely), toys.texts_of(expected))


if __name__ == "__main__":
  absltest.main()
