"""A trace is a search: leaves are children that were made, one tick a tree."""

from absl.testing import absltest

from benchmarks import trace
from benchmarks.trace import Leaf


class RecordTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.ticks = trace.record(
      problems=3, rollouts=5, candidates=4, depth=3, lengths=(2, 7), shown=5
    )
    self.leaves = [leaf for tick in self.ticks for leaf in tick]

  def test_a_leaf_is_a_candidate_of_a_leaf_before_it(self):
    seen = set()
    for leaf in self.leaves:
      if leaf.path:
        self.assertIn((leaf.tree, leaf.path[:-1]), seen)
        self.assertBetween(leaf.path[-1], 0, 3)
      seen.add((leaf.tree, leaf.path))

  def test_each_tree_has_one_leaf_a_tick(self):
    for tick in self.ticks:
      trees = [leaf.tree for leaf in tick]
      self.assertLen(trees, len(set(trees)))
    self.assertEqual({leaf.tree for leaf in self.leaves}, {0, 1, 2})

  def test_lengths_are_of_identities(self):
    again = trace.record(
      problems=2, rollouts=5, candidates=4, depth=3, lengths=(2, 7), shown=5
    )
    of = lambda ticks, tree: [  # noqa: E731
      leaf for tick in ticks for leaf in tick if leaf.tree == tree
    ]
    for tree in range(2):
      self.assertEqual(of(again, tree), of(self.ticks, tree))
    for leaf in self.leaves:
      self.assertBetween(leaf.limit, 2, 7)

  def test_output_is_shown_where_the_program_has_ended(self):
    for leaf in self.leaves:
      self.assertLess(len(leaf.path), 3)
      self.assertEqual(leaf.shown, 5 if len(leaf.path) == 2 else 0)


class ReplayTest(absltest.TestCase):
  def test_follows_what_was_sampled(self):
    ticks = [
      [Leaf(0, (), 2, 0), Leaf(1, (), 1, 0)],
      [Leaf(0, (1,), 3, 2)],
      [Leaf(0, (0,), 1, 0)],
    ]
    replay = trace.Replay([[1, 2, 3], [4, 5]])
    self.assertEqual(replay.prefixes(ticks[0]), [[1, 2, 3], [4, 5]])
    replay.add(ticks[0], [[[10, 11], [12, 13]], [[14], [15]]])
    self.assertEqual(replay.prefixes(ticks[1]), [[1, 2, 3, 12, 13, 100, 101]])
    replay.add(ticks[1], [[[1, 1, 1], [2, 2, 2]]])
    self.assertEqual(replay.prefixes(ticks[2]), [[1, 2, 3, 10, 11]])
    replay.add(ticks[2], [[[9], [9]]])
    self.assertEqual(replay.unshared, 3 + 2 + 7 + 5)
    self.assertEqual(replay.repeated, 2 * replay.unshared)
    self.assertEqual(replay.decoded, 2 * 2 + 2 * 1 + 2 * 3 + 2 * 1)
    self.assertEqual(trace.longest(ticks, 3), 7)
    # The third expansion leaves the branch of the second.
    self.assertEqual(trace.switches(ticks), 0.5)

  def test_other_lengths_are_refused(self):
    replay = trace.Replay([[1]])
    with self.assertRaisesRegex(ValueError, "other steps than 3"):
      replay.add([Leaf(0, (), 2, 0)], [[[1, 2, 3]]])


if __name__ == "__main__":
  absltest.main()
