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

  def test_four_vote_unless_it_is_said_otherwise(self):
    tree = Tree(workdirs.apples().problem)
    children = [
      workdirs.answer(text, False, ppm=value)
      for text, value in (
        *(("1", 0.95), ("2", 0.9), ("3", 0.8), ("2", 0.7)),
        *(("1", 0.6), ("1", 0.5)),
      )
    ]
    tree.add_children(0, children)
    # "2" has two of four votes; one of three, and two of five, are no majority.
    self.assertEqual(answer_node(tree, "top_k", "last"), 2)
    for k in (3, 5, 6):
      self.assertEqual(answer_node(tree, "top_k", "last", k=k), 1)

  def test_the_value_of_a_solution_is_combined_as_is_said(self):
    tree = workdirs.apples()
    # The first solution has the higher last value, the second the higher least.
    tree.ppm[tree.path(7)[1:]] = -0.9, 0.5, 0.8
    tree.ppm[tree.path(9)[1:]] = 0.1, 0.2, 0.3
    self.assertEqual(answer_node(tree, "best", "last"), 7)
    self.assertEqual(answer_node(tree, "best", "min"), 9)
    self.assertEqual(answer_node(tree, "best", "mean"), 9)

  def test_without_an_answer(self):
    problem = dataclasses.replace(workdirs.apples().problem, id="empty")
    self.assertIsNone(answer_node(Tree(problem), "best", "last"))


if __name__ == "__main__":
  absltest.main()
