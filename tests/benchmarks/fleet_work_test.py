"""What trees ask for: as recorded, or scaled by what was said."""

import json
import pathlib

import numpy as np
from absl.testing import absltest

from benchmarks.fleet_host import Device, Host
from benchmarks.fleet_work import Round, Scale, Source

ROOT = pathlib.Path(__file__).resolve().parents[2]

# One tree of two rollouts: root and a step, then another step below it.
TREE = [
  [0, 11, 2, 2, 0, 3, 4],
  [0, 14, 1, 0, 1, 5, 2],
  [1, 13, 2, 1, 0, 7, 6],
]
RECORD = {
  "trees": [TREE],
  "solved": [1],
  "released": [2000.0],
  "sympy": [3000.0],
  "labelled": [500.0],
}
# A second for each token of each row, and 0.1 to read the path's tail.
HOST = Host(
  Device(weights=0.0, row=1.0, compact=False), slots=3, groups=1, workers=7
)


def ticks(round_: Round, scale: Scale | None = None):
  source = Source(RECORD, round_, scale or Scale())
  rollouts = [TREE[:2], TREE[2:]]
  return source._tree(rollouts, round_.rollouts)


class WorkTest(absltest.TestCase):
  def test_a_tree_is_as_recorded(self):
    first, second, third = ticks(Round(2, 2))
    self.assertEqual(list(first.lengths), [3, 4])
    self.assertEqual(first.programs, (2.0, 2.0))
    self.assertEqual((first.answers, second.answers), ((), (0.5,)))
    self.assertEqual((second.programs, second.path), ((), 14))
    # The second rollout comes down from the root, whose keys are there.
    self.assertEqual([each.tail for each in (first, second, third)], [0, 0, 2])
    self.assertEqual(third.scored, 0)

  def test_what_is_scaled(self):
    first, second, third = ticks(
      Round(2, 2, ppm=True), Scale(step=3, limit=10, sandbox=2, distinct=1.0)
    )
    self.assertEqual(list(first.lengths), [9, 10])
    self.assertEqual((third.path, third.tail), (39, 6))
    self.assertEqual(third.programs, (4.0, 4.0))
    # An answer's tick runs no program. Its tokens are scored.
    self.assertEqual((second.programs, second.answers), ((), (1.0,)))
    self.assertEqual((first.scored, second.scored), (2 * 9.5, 8))

  def test_more_candidates_make_more_programs(self):
    first, *_ = ticks(Round(2, 7))
    self.assertLen(first.lengths, 7)
    self.assertContainsSubset([3, 4], first.lengths)
    self.assertLen(first.programs, 7)

  def test_a_tree_that_ran_out_goes_on_if_it_is_to(self):
    self.assertLen(ticks(Round(13, 2)), 3)
    # The second half of the rollouts is the second one.
    self.assertLen(ticks(Round(13, 2), Scale(full=True)), 3 + 11)

  def test_slow_and_long(self):
    first, *_ = ticks(
      Round(2, 2), Scale(slow=1.0, wall=9.0, long=1.0, limit=31)
    )
    self.assertEqual(first.programs, (9.0, 9.0))
    self.assertEqual(list(first.lengths), [31, 31])

  def test_spread_keeps_the_mean(self):
    scale = Scale(step=10, spread=0.5, limit=10_000)
    source = Source(RECORD, Round(1, 2), scale)
    lengths = [source._ticks(TREE[:1], [0])[0].lengths for _ in range(4000)]
    self.assertAlmostEqual(np.mean(lengths) / 35, 1, delta=0.02)

  def test_a_shard_is_its_trees(self):
    spent = Source(RECORD, Round(2, 2)).shard(3, HOST)
    # Three trees side by side: padded to 4 leaves of 2 rows.
    # Ticks of 4, 5 and 7 tokens; the last reads 3 x 2 tokens before them.
    self.assertEqual(spent.device, 8 * (4 + 5 + 7) + 6)
    # Programs side by side, then the answers in one grader.
    self.assertEqual(spent.seconds, spent.device + 2 + 3 * 0.5 + 2)
    self.assertEqual(spent.tokens, 3 * (7 + 7 + 13))

  def test_attempts(self):
    round_ = Round(2, 2, trees=2, extra=((1.0, 2), (0.5, 2)))
    source = Source(RECORD, round_)
    tokens = 7 + 7 + 13
    self.assertEqual(source.shard(6, HOST, extra=False).tokens, 2 * 6 * tokens)
    self.assertEqual(source.attempts(6, HOST).tokens, (6 + 3) * tokens)
    self.assertEqual(source.shard(6, HOST).tokens, (2 * 6 + 6 + 3) * tokens)

  def test_the_record_that_is_shipped(self):
    record = json.loads((ROOT / "benchmarks/fleet_record.json").read_text())
    self.assertLen(record["solved"], len(record["trees"]))
    for kind in ("plain", "light", "sympy", "released", "labelled"):
      self.assertEqual(record[kind], sorted(record[kind]))
    spent = Source(record, Round(3, 5, extra=((0.3, 2),))).shard(7, HOST)
    self.assertGreater(spent.tokens, 0)
    self.assertLess(spent.device, spent.seconds)


if __name__ == "__main__":
  absltest.main()
