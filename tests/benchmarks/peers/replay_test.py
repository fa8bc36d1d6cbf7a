"""A replay goes on with each tree by itself, from what was sampled."""

import dataclasses
import json
import time
from unittest import mock

from absl.testing import absltest

from benchmarks.peers import replay
from benchmarks.peers.replay import Leaf

_TREES = [
  [Leaf((), 2, 0), Leaf((1,), 3, 2), Leaf((0,), 1, 0)],
  [Leaf((), 1, 0)],
]


class ReplayTest(absltest.TestCase):
  def test_follows_what_was_sampled(self):
    going = replay.Replay([[1, 2, 3], [4, 5]], _TREES)
    self.assertEqual(going.ready(), [(0, [1, 2, 3], 2), (1, [4, 5], 1)])
    # Both are taken, and nothing else may begin.
    self.assertEqual(going.ready(), [])
    self.assertIsNone(going.pause())
    # The first tree waits for no other.
    going.add(0, [[10, 11], [12, 13]])
    self.assertEqual(going.ready(), [(0, [1, 2, 3, 12, 13, 100, 101], 3)])
    going.add(0, [[1, 1, 1], [2, 2, 2]])
    self.assertEqual(going.ready(), [(0, [1, 2, 3, 10, 11], 1)])
    going.add(0, [[9], [9]])
    self.assertEqual(going.ready(), [])
    self.assertFalse(going.over)
    going.add(1, [[14], [15]])
    self.assertTrue(going.over)
    self.assertEqual(going.decoded, 2 * (2 + 3 + 1 + 1))

  def test_a_tree_pauses_after_an_expansion(self):
    with mock.patch.object(time, "monotonic", return_value=50.0) as clock:
      going = replay.Replay([[1], [2]], [_TREES[0], _TREES[0]], think=4.0)
      self.assertLen(going.ready(), 2)
      going.add(1, [[10, 11], [12, 13]])
      clock.return_value = 51.0
      going.add(0, [[20, 21], [22, 23]])
      self.assertEqual(going.ready(), [])
      self.assertEqual(going.pause(), 3.0)
      clock.return_value = 54.0
      self.assertEqual(going.ready(), [(1, [2, 12, 13, 100, 101], 3)])
      self.assertEqual(going.pause(), 1.0)
      clock.return_value = 60.0
      self.assertEqual(going.pause(), 0.0)
      self.assertEqual(going.ready(), [(0, [1, 22, 23, 100, 101], 3)])

  def test_other_lengths_are_refused(self):
    going = replay.Replay([[1]], [[Leaf((), 2, 0)]])
    going.ready()
    with self.assertRaisesRegex(ValueError, "other steps than 3"):
      going.add(0, [[1, 2, 3]])

  def test_trees_go_through_json(self):
    rows = [[dataclasses.asdict(leaf) for leaf in tree] for tree in _TREES]
    self.assertEqual(replay.of_json(json.loads(json.dumps(rows))), _TREES)


if __name__ == "__main__":
  absltest.main()
