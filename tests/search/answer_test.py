"""The answer that a search gives, by hand."""

import dataclasses

from absl.testing import absltest

from rstar_jax.search.answer import answer_node
from rstar_jax.search.tree import Tree
from tests.report import workdirs


class AnswerTest(absltest.TestCase):
  def test_by_vote_and_by_value(self):
    tree = workdirs.apples()
    # One vote each: the first one.
    self.assertEqual(answer_node(tree, "majority", "last"), 7)
    # Without a value "best" is a vote.
    self.assertEqual(answer_node(tree, "best", "last"), 7)
    tree.ppm[7], tree.ppm[9] = -0.5, 0.5
    self.assertEqual(answer_node(tree, "best", "last"), 9)
    self.assertEqual(answer_node(tree, "top_k", "last", k=1), 9)

  def test_without_an_answer(self):
    problem = dataclasses.replace(workdirs.apples().problem, id="empty")
    self.assertIsNone(answer_node(Tree(problem), "best", "last"))


if __name__ == "__main__":
  absltest.main()
