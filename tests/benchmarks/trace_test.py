"""A trace is a search: leaves are children that were made before."""

from absl.testing import absltest

from benchmarks import trace
from benchmarks.trace import Leaf


class RecordTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.trees = trace.record(
      problems=3, rollouts=5, candidates=4, depth=3, lengths=(2, 7), shown=5
    )

  def test_a_leaf_is_a_candidate_of_a_leaf_before_it(self):
    self.assertLen(self.trees, 3)
    for tree in self.trees:
      self.assertEqual(tree[0].path, ())
      seen = {()}
      for leaf in tree[1:]:
        self.assertIn(leaf.path[:-1], seen)
        self.assertNotIn(leaf.path, seen)
        self.assertBetween(leaf.path[-1], 0, 3)
        seen.add(leaf.path)

  def test_a_tree_depends_on_no_other(self):
    again = trace.record(
      problems=2, rollouts=5, candidates=4, depth=3, lengths=(2, 7), shown=5
    )
    self.assertEqual(again, self.trees[:2])
    for leaf in sum(self.trees, []):
      self.assertBetween(leaf.limit, 2, 7)

  def test_output_is_shown_where_the_program_has_ended(self):
    for leaf in sum(self.trees, []):
      self.assertLess(len(leaf.path), 3)
      self.assertEqual(leaf.shown, 5 if len(leaf.path) == 2 else 0)


class CountsTest(absltest.TestCase):
  def test_of_a_tree(self):
    tree = [
      Leaf((), 2, 0),
      Leaf((1,), 3, 2),
      Leaf((1, 0), 4, 1),
      Leaf((0,), 1, 0),
    ]
    # The question, the steps above, and what is shown.
    self.assertEqual(
      trace.prefix_sizes(tree, 10), [10, 10 + 2 + 2, 10 + 2 + 3 + 1, 10 + 2]
    )
    # Only the last does not continue the expansion before it.
    self.assertEqual(trace.switches([tree, [Leaf((), 1, 0)]]), 1 / 3)
    self.assertEqual(
      trace.switches([tree, [Leaf((), 1, 0), Leaf((0,), 1, 0)]]), 1 / 4
    )


if __name__ == "__main__":
  absltest.main()
