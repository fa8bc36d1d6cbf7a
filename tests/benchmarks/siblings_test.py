"""Decisions, picks and failures, on trees made by hand."""

import math

import numpy as np
from absl.testing import absltest, parameterized

from benchmarks import siblings
from rstar_jax.search.tree import (
  ANSWER,
  CODE,
  RIGHT,
  STEP,
  UNKNOWN,
  WRONG,
  Child,
  Tree,
)
from rstar_jax.types import Problem

R, W, U = RIGHT, WRONG, UNKNOWN


def tree(*families: tuple[int, int, int]) -> Tree:
  """Builds a tree: (parent, number of children, their kind)."""
  made = Tree(Problem("p", "q", "1"))
  for parent, count, kind in families:
    answer = "1" if kind == ANSWER else None
    made.add_children(
      parent,
      [
        Child(f"{len(made) + i}", kind, logprob=-i, ppm=i / 10, answer=answer)
        for i in range(count)
      ],
    )
  return made


class DecisionsTest(absltest.TestCase):
  def test_right_and_wrong_children_of_what_is_right(self):
    # 0 -> 1 2 3; 1 -> 4 5 6; 2 -> 7 8; 3 -> 9 10; 4 -> 11 12.
    found = tree(
      (0, 3, STEP), (1, 3, STEP), (2, 2, STEP), (3, 2, STEP), (4, 2, STEP)
    )
    labels = np.array([R, R, W, R, R, U, W, R, W, R, R, U, R], np.int8)
    root, first = siblings.decisions(found, labels)
    self.assertEqual((root.depth, first.depth), (1, 2))
    self.assertEqual(root.right.tolist(), [True, False, True])
    # Of 5 nothing is known.
    self.assertEqual(first.right.tolist(), [True, False])
    self.assertEqual(first.ppm.tolist(), [0.0, 0.2])
    self.assertEqual(first.logprob.tolist(), [0, -2])
    self.assertEqual((root.chance, first.chance), (2 / 3, 0.5))


class PicksTest(parameterized.TestCase):
  @parameterized.parameters(
    ([0.1, 0.3, 0.2], [1, 0, 1], 0.0, 0.0),
    ([0.1, 0.3, 0.2], [0, 1, 0], 1.0, 1.0),
    ([0.3, 0.3, 0.2], [0, 1, 0], 0.5, 0.75),
    ([0.1, 0.3, 0.2], [0, 0, 1], 0.0, 0.5),
    ([0.1, math.nan, 0.2], [0, 0, 1], None, None),
  )
  def test_by_hand(self, values, right, picked, preferred):
    values, right = np.array(values), np.array(right, bool)
    self.assertEqual(siblings.picked(values, right), picked)
    self.assertEqual(siblings.preferred(values, right), preferred)


class FailureTest(parameterized.TestCase):
  @parameterized.parameters(
    # 0 -> 1 2 (steps); 1 -> 3 4 (codes); 3 -> 5 6 (answers).
    ([R, R, W, R, W, R, W], 5, None),
    ([R, R, W, R, W, R, W], 6, "choice"),
    ([R, R, W, R, W, W, W], 6, "policy"),
    ([R, R, W, R, R, W, W], 5, "search"),
    ([R, W, R, W, W, W, W], 5, "search"),
    ([R, R, U, R, W, W, W], None, "unclear"),
    ([R, W, W, W, W, W, W], None, "policy"),
    # A right answer counts wherever it comes from.
    ([R, W, W, W, W, R, W], 6, "choice"),
  )
  def test_by_hand(self, labels, chosen, expected):
    found = tree((0, 2, STEP), (1, 2, CODE), (3, 2, ANSWER))
    labels = np.array(labels, np.int8)
    self.assertEqual(siblings.failure(found, labels, chosen), expected)

  def test_a_dead_leaf_is_the_policys(self):
    found = tree((0, 2, STEP))
    labels = np.array([R, R, W], np.int8)
    self.assertEqual(siblings.failure(found, labels, None), "search")
    found.give_up(1)
    self.assertEqual(siblings.failure(found, labels, None), "policy")

  def test_nothing_was_sampled(self):
    labels = np.array([R], np.int8)
    self.assertEqual(siblings.failure(tree(), labels, None), "policy")


if __name__ == "__main__":
  absltest.main()
