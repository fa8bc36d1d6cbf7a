"""Trees that are drawn are those that were recorded, scaled."""

import numpy as np
from absl.testing import absltest

from benchmarks.fleet_work import ROUNDS, Round, Source


class SourceTest(absltest.TestCase):
  def test_a_tree(self):
    (ticks,) = Source(Round(16, 5), seed=1).problem()
    self.assertGreaterEqual(len(ticks), 16)
    for index, tick in enumerate(ticks):
      self.assertLen(tick.lengths, 5)
      self.assertGreaterEqual(min(tick.lengths), 1)
      self.assertLess(tick.after, index)
      self.assertEqual(tick.scored, 0)
      self.assertLess(tick.child, 5)
      if tick.after >= 0:
        self.assertGreater(tick.path, ticks[tick.after].path)
    self.assertEqual(ticks[0].after, -1)

  def test_leaves_of_one_place_are_one_candidate(self):
    (ticks,) = Source(Round(40, 8), seed=2).problem()
    known = {}
    for tick in ticks:
      key = tick.after, tick.path
      self.assertEqual(known.setdefault(key, tick.child), tick.child)

  def test_lengths_are_those_of_released_solutions(self):
    source = Source(Round(16, 8))
    lengths = np.concatenate(
      [t.lengths for _ in range(60) for tree in source.problem() for t in tree]
    )
    # Theirs are 48.9 in the mean, with a deviation of 55%; later rollouts have
    # shorter steps.
    self.assertBetween(lengths.mean(), 35, 50)
    self.assertAlmostEqual(lengths.std() / lengths.mean(), 0.55, delta=0.1)

  def test_extra_rollouts_of_the_unsolved(self):
    source = Source(ROUNDS["4"])
    trees = [len(source.problem()) for _ in range(400)]
    shares = [sum(n > more for n in trees) / 400 for more in (2, 3)]
    self.assertAlmostEqual(shares[0], 0.221, delta=0.06)
    self.assertAlmostEqual(shares[1], 0.0975, delta=0.05)

  def test_timeouts(self):
    (ticks,) = Source(Round(16, 8), slow=1.0, wall=7.0).problem()
    self.assertEqual({s for tick in ticks for s in tick.programs}, {7.0})


if __name__ == "__main__":
  absltest.main()
