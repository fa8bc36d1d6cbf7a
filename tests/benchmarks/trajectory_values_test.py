"""Mistakes of a PPM in a tree of a generated problem, by hand."""

import dataclasses
import math

import numpy as np
from absl.testing import absltest

from benchmarks import trajectory_values
from rstar_jax.config.schema import SearchConfig
from rstar_jax.data.synthetic import generator, oracle
from rstar_jax.search import mcts
from rstar_jax.search.tree import RIGHT, WRONG, Tree
from tests.benchmarks import worlds


class MistakesTest(absltest.TestCase):
  def searched(self, flip):
    solved = generator.generate("test", 0, 0)
    world = worlds.of(solved)
    world = dataclasses.replace(
      world, ppm=dataclasses.replace(world.ppm, flip=flip)
    )
    config = SearchConfig(
      rollouts=4,
      candidates=8,
      annotation="ppm",
      terminal_reward="ppm",
      max_depth=12,
    )
    return world.run(mcts.search_tree(Tree(solved.problem), config, 0))

  def test_a_perfect_ppm_makes_none_and_its_opposite_makes_all(self):
    for flip, rate in ((0.0, 0.0), (1.0, 1.0)):
      tree = self.searched(flip)
      found = trajectory_values.mistakes([tree])
      labels = oracle.labels(tree)[1:]
      self.assertEqual(found["right"], (rate, int((labels == RIGHT).sum())))
      self.assertEqual(found["wrong"][0], rate)
      after = found["missed"], found["noticed"]
      # What comes after a wrong step is wrong, whatever was thought of it.
      self.assertEqual(
        found["wrong"][1] + after[0][1] + after[1][1],
        int((labels == WRONG).sum()),
      )
      self.assertEqual(after[0][1] > 0, flip == 1.0)
      self.assertTrue(math.isnan(after[flip == 1.0][0]))

  def test_whether_a_mistake_stays(self):
    tree = self.searched(0.0)
    labels = oracle.labels(tree)
    first = next(
      node
      for node in range(1, len(tree))
      if labels[node] == WRONG
      and labels[tree.parent[node]] == RIGHT
      and tree.num_children[node]
    )
    tree.ppm[first] = 0.9
    children = np.arange(len(tree))[tree.span(first)]
    tree.ppm[children[0]] = 0.9
    found = trajectory_values.mistakes([tree])
    self.assertAlmostEqual(found["wrong"][0] * found["wrong"][1], 1)
    below = [n for n in range(1, len(tree)) if first in tree.path(n)[:-1]]
    self.assertEqual(found["missed"], (1 / len(below), len(below)))
    self.assertEqual(found["noticed"][0], 0.0)


if __name__ == "__main__":
  absltest.main()
