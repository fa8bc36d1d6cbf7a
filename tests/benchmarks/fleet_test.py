"""Many hosts: with equal shards a stage takes what is worked out by hand."""

import random

from absl.testing import absltest, parameterized

from benchmarks import fleet
from benchmarks.fleet import Loss

ALL = ("static", "list", "steal")


class StageTest(parameterized.TestCase):
  @parameterized.parameters(*ALL)
  def test_one_host_takes_the_sum(self, assignment):
    stage = fleet.run([2.0, 3.0, 5.0], 1, assignment=assignment)
    self.assertEqual(stage.seconds, 10)
    self.assertEqual(stage.useful, 10)
    self.assertEqual(stage.idle(1), 0)

  @parameterized.product(
    assignment=ALL, sizes=((7, 3), (3, 7), (11, 11), (13, 1), (1, 5))
  )
  def test_equal_shards_go_in_rounds(self, assignment, sizes):
    shards, hosts = sizes
    stage = fleet.run([4.0] * shards, hosts, assignment=assignment)
    rounds = -(-shards // hosts)
    self.assertEqual(stage.seconds, 4.0 * rounds)
    self.assertEqual(stage.useful, 4.0 * shards)
    self.assertAlmostEqual(stage.idle(hosts), 1 - shards / (hosts * rounds))

  def test_a_list_evens_out_what_static_does_not(self):
    # Static: 5 + 5 against 1 + 1. A list: 5, 1 + 5 + ... = 6 and 6.
    shards = [5.0, 1.0, 5.0, 1.0]
    self.assertEqual(fleet.run(shards, 2).seconds, 10)
    stage = fleet.run(shards, 2, assignment="list")
    self.assertEqual(stage.seconds, 6)
    self.assertEqual(stage.idle(2), 0)

  def test_stealing_may_do_work_twice(self):
    # The second host is free at 1. It takes either of the two that are open:
    # the first, in vain, or the third, in which case all ends at 6.
    found = {
      fleet.run([5.0, 1.0, 5.0], 2, assignment="steal", seed=seed).seconds
      for seed in range(20)
    }
    self.assertEqual(found, {6.0, 10.0})

  @parameterized.parameters(*ALL)
  def test_a_slow_host(self, assignment):
    stage = fleet.run([1.0] * 5, 2, assignment=assignment, speeds=[1.0, 0.25])
    # Static: the slow one has 2. A list: it has one, the quick one the rest.
    expected = {"static": 8.0, "list": 4.0}.get(assignment)
    if expected:
      self.assertEqual(stage.seconds, expected)
    else:
      self.assertBetween(stage.seconds, 4.0, 8.0)

  @parameterized.product(assignment=ALL, seed=(1, 2, 3))
  def test_everything_is_done_whatever_dies(self, assignment, seed):
    rng = random.Random(seed)
    shards = [rng.uniform(1, 3) for _ in range(37)]
    stage = fleet.run(
      shards,
      5,
      assignment=assignment,
      loss=Loss(between=4.0, repair=2.0, notice=1.0),
      seed=seed,
    )
    self.assertAlmostEqual(stage.useful, sum(shards))
    self.assertGreater(stage.failures, 0)
    # Time is for work, loss, work done twice, or nothing.
    busy = stage.useful + stage.lost + stage.twice
    self.assertLessEqual(busy, 5 * (stage.seconds + 3.0) + 1e-9)
    again = fleet.run(
      shards,
      5,
      assignment=assignment,
      loss=Loss(between=4.0, repair=2.0, notice=1.0),
      seed=seed,
    )
    self.assertEqual(stage, again)

  def test_lost_work_is_as_the_formula_says(self):
    # Restarts of a shard of length s at rate 1/m: lost per shard is
    # m (exp(s/m) - 1) - s in the mean.
    length, between = 2.0, 5.0
    stage = fleet.run([length] * 20_000, 1, loss=Loss(between=between))
    mean = between * (2.718281828459045 ** (length / between) - 1) - length
    self.assertAlmostEqual(stage.lost / 20_000 / mean, 1, delta=0.05)
    self.assertAlmostEqual(stage.seconds, stage.useful + stage.lost, delta=1e-3)


if __name__ == "__main__":
  absltest.main()
