"""Prefix trees against the rows that they were made of."""

import hypothesis
import numpy as np
from absl.testing import absltest
from hypothesis import strategies as st

from rstar_jax.data import prefix_trees

ROWS = st.lists(
  st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=12
)


def arrays(rows):
  return [np.asarray(row, np.int32) for row in rows]


def sees(tree, query, key):
  return key <= query < tree.ends[key]


class JoinTest(absltest.TestCase):
  def test_by_hand(self):
    tree = prefix_trees.join(arrays([[7, 300, 5], [7, 2], [7, 300, 5, 1]]))
    #                                  7  2  300  5  1
    self.assertEqual(tree.tokens.tolist(), [7, 2, 300, 5, 1])
    self.assertEqual(tree.positions.tolist(), [0, 1, 1, 2, 3])
    self.assertEqual(tree.parents.tolist(), [-1, 0, 0, 2, 3])
    self.assertEqual(tree.ends.tolist(), [5, 2, 5, 5, 5])
    self.assertEqual(
      [each.tolist() for each in tree.places],
      [[0, 2, 3], [0, 1], [0, 2, 3, 4]],
    )

  @hypothesis.given(ROWS)
  def test_holds_each_prefix_once_and_each_row_whole(self, rows):
    tree = prefix_trees.join(arrays(rows))
    prefixes = {tuple(row[: i + 1]) for row in rows for i in range(len(row))}
    self.assertLen(tree.tokens, len(prefixes))
    for row, places in zip(rows, tree.places, strict=True):
      self.assertEqual(tree.tokens[places].tolist(), row)
      self.assertEqual(tree.positions[places].tolist(), [*range(len(row))])
      self.assertEqual(
        tree.parents[places].tolist(), [-1, *places[:-1].tolist()]
      )
      # A token sees its own path, and nothing else.
      for at, place in enumerate(places):
        seen = [i for i in range(len(tree.tokens)) if sees(tree, place, i)]
        self.assertEqual(seen, places[: at + 1].tolist())


class DivideTest(absltest.TestCase):
  @hypothesis.given(ROWS, st.integers(7, 20))
  def test_units_stay_whole_in_trees_that_fit(self, rows, length):
    units = [arrays([row, [*row[:2], 9]]) for row in rows]
    found = []
    for numbers, tree in prefix_trees.divide(units, length):
      found += numbers
      if len(numbers) > 1:
        self.assertLessEqual(len(tree.tokens), length)
      for at, number in enumerate(numbers):
        for side in range(2):
          self.assertEqual(
            tree.tokens[tree.places[2 * at + side]].tolist(),
            units[number][side].tolist(),
          )
    self.assertEqual(sorted(found), [*range(len(rows))])

  def test_what_fits_is_one_tree(self):
    rows = arrays([[1, 2, 3], [1, 2, 4], [5]])
    trees = [*prefix_trees.divide([[row] for row in rows], 5)]
    self.assertEqual([numbers for numbers, _ in trees], [[0, 1, 2]])
    trees = [*prefix_trees.divide([[row] for row in rows], 4)]
    self.assertEqual([numbers for numbers, _ in trees], [[0], [1, 2]])
    self.assertEmpty([*prefix_trees.divide([], 4)])

  def test_common(self):
    a, b = arrays([[1, 2, 3], [1, 2]])
    self.assertEqual(prefix_trees.common(a, b), 2)
    self.assertEqual(prefix_trees.common(a, a[1:]), 0)


if __name__ == "__main__":
  absltest.main()
