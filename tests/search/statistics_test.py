"""Histograms of trees, beside what is counted by hand."""

import math

import numpy as np
from absl.testing import absltest

from rstar_jax.search import statistics
from rstar_jax.search.tree import STEP, Child, Tree
from rstar_jax.types import Problem


def make_tree(name: str) -> Tree:
  """A root with two children, one of them with a child of its own."""
  tree = Tree(Problem(id=name, question="?"))
  tree.add_children(
    0,
    [
      Child("a", STEP, ppm=0.5, visits=2, value_sum=-1.0),
      Child("b", STEP, ppm=math.nan),
    ],
  )
  tree.add_children(1, [Child("c", STEP, ppm=-0.25, visits=4, value_sum=3.0)])
  tree.visits[0], tree.value_sum[0] = 6, 6.0
  tree.tokens = 11
  return tree


class SpreadTest(absltest.TestCase):
  def test_two_trees(self):
    found = statistics.of_trees([make_tree("p"), Tree(Problem("q", "?"))])
    np.testing.assert_array_equal(found["q"], [-0.5, 0.75])
    np.testing.assert_array_equal(found["ppm"], [0.5, -0.25])
    np.testing.assert_array_equal(found["nodes"], [3, 0])
    np.testing.assert_array_equal(found["depth"], [2, 0])
    np.testing.assert_array_equal(found["tokens"], [11, 0])

  def test_none(self):
    self.assertEqual(
      {len(each) for each in statistics.of_trees([]).values()}, {0}
    )


if __name__ == "__main__":
  absltest.main()
