"""Decisions, picks and failures, on trees made by hand."""

import math

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.evaluation import decisions
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
_SIZES = ("n", "decisions")


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
    root, first = decisions.decisions(found, labels)
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
    self.assertEqual(decisions.picked(values, right), picked)
    self.assertEqual(decisions.preferred(values, right), preferred)


class AcrossTest(absltest.TestCase):
  # 0 -> 1 2 (0.0 0.1); 1 -> 3 4 5 (0.0 0.1 0.2); 2 -> 6 (0.0).
  FAMILIES = ((0, 2, STEP), (1, 3, STEP), (2, 1, STEP))

  def test_by_hand(self):
    found = tree(*self.FAMILIES)
    labels = np.array([R, R, W, W, R, U, W], np.int8)
    # Right are 1 (0.0) and 4 (0.1), wrong 2 (0.1), 3 (0.0) and 6 (0.0). 1 and 2
    # are siblings, as are 4 and 3: two ties, a win and a tie are left.
    self.assertEqual(decisions.across(found, labels), (0.5 + 0.5 + 0.5 + 1) / 4)
    found.ppm[4] = -1.0
    self.assertEqual(decisions.across(found, labels), (0.5 + 0.5 + 0 + 0) / 4)

  def test_there_is_nothing_to_compare(self):
    found = tree(*self.FAMILIES)
    siblings = np.array([R, R, W, U, U, U, U], np.int8)
    self.assertIsNone(decisions.across(found, siblings))
    labels = np.array([R, R, W, W, R, U, W], np.int8)
    found.ppm[:] = np.nan
    self.assertIsNone(decisions.across(found, labels))


class RatesTest(absltest.TestCase):
  def test_means_over_problems(self):
    def decision(right, ppm, logprob, depth=1):
      return decisions.Siblings(
        depth, np.array(right, bool), np.array(ppm), np.array(logprob)
      )

    one, other = (Problem(name, "") for name in "ab")
    judged = [
      decisions.Judged(
        one, (decision([1, 0], [0.5, 0.2], [-1.0, -2.0]),), 0.25, None
      ),
      decisions.Judged(
        one, (decision([0, 1], [0.5, 0.2], [-2.0, -1.0], 2),), 0.75, 0.5
      ),
      decisions.Judged(
        other,
        (decision([0, 1, 0, 0], [0.1, 0.2, 0, 0], [0.0, 0, -1, -1]),),
        None,
        0.25,
      ),
      decisions.Judged(Problem("c", ""), (), 1.0),
    ]
    line = decisions.rates(judged)
    self.assertEqual((line["n"], line["decisions"]), (2, 3))
    means = {name: each[0] for name, each in line.items() if name not in _SIZES}
    self.assertEqual(
      means,
      {
        "chance": 0.375,
        "policy": 0.75,
        "ppm": 0.75,
        "pairs": 0.75,
        "across": 0.75,
        "saturated": 0.375,
      },
    )
    self.assertEqual(line["ppm"][1:], [0.5, 1.0])
    self.assertEqual(
      decisions.by_problem(judged, "across"), {"a": 0.5, "c": 1.0}
    )
    deeper = decisions.rates([each.at(2) for each in judged])
    self.assertEqual((deeper["n"], deeper["decisions"]), (1, 1))
    self.assertEqual(deeper["ppm"], [0.0, 0.0, 0.0])
    self.assertNotIn("across", deeper)

  def test_of_a_tree(self):
    found = tree((0, 2, STEP), (1, 2, STEP))
    found.ppm[1:] = [0.995, -0.5, 0.5, -0.995]
    labels = np.array([R, R, W, W, R], np.int8)
    judged = decisions.judge(found, labels)
    self.assertLen(judged.siblings, 2)
    self.assertEqual(judged.saturated, 0.5)
    # 1 over 3, and 4 under 2.
    self.assertEqual(judged.across, 0.5)
    found.ppm[:] = np.nan
    self.assertIsNone(decisions.judge(found, labels).saturated)


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
    self.assertEqual(decisions.failure(found, labels, chosen), expected)

  def test_a_dead_leaf_is_the_policys(self):
    found = tree((0, 2, STEP))
    labels = np.array([R, R, W], np.int8)
    self.assertEqual(decisions.failure(found, labels, None), "search")
    found.give_up(1)
    self.assertEqual(decisions.failure(found, labels, None), "policy")

  def test_nothing_was_sampled(self):
    labels = np.array([R], np.int8)
    self.assertEqual(decisions.failure(tree(), labels, None), "policy")


if __name__ == "__main__":
  absltest.main()
