"""The simulation of hosts that die, against what can be said by hand."""

from absl.testing import absltest, parameterized

from benchmarks import searchers
from benchmarks.searchers import Fleet, simulate


class SimulateTest(parameterized.TestCase):
  def test_problems_share_a_host(self):
    # Both run at half speed until the short one is done, after 4 s; the long
    # one has 4 of 6 left then.
    found = simulate(Fleet(1, in_flight=2), [[2.0, 6.0]])
    self.assertAlmostEqual(found.seconds, 8.0)
    # A host that two problems make full: one is half as fast.
    found = simulate(Fleet(1, in_flight=2, full=2), [[2.0, 6.0]])
    self.assertAlmostEqual(found.seconds, 4.0 + 8.0)

  def test_a_shard_more_when_few_problems_are_left(self):
    # At 2 s the first problem is done, and 1 is left of 2 that may be in
    # flight: the second shard begins. Three problems share the host until 14 s,
    # when the two have had 4; of the 9 are 4 left, at half speed.
    shards = [[1.0, 9.0], [4.0, 4.0]]
    found = simulate(Fleet(1, in_flight=2, full=2), shards)
    self.assertAlmostEqual(found.seconds, 22.0)

  def test_hosts_load_first(self):
    found = simulate(Fleet(3, in_flight=1, load=7.0), [[2.0]] * 3)
    self.assertAlmostEqual(found.seconds, 9.0)
    self.assertAlmostEqual(found.up, 6.0)
    self.assertAlmostEqual(found.begun, 7.0)

  def test_the_middle_ends_when_the_last_shard_begins(self):
    # One host is free at 2 s; until then the other did 2 of 5.
    found = simulate(Fleet(2, in_flight=1), [[2.0], [5.0], [1.0]])
    self.assertAlmostEqual(found.seconds, 5.0)
    self.assertAlmostEqual(found.begun, 2.0)
    self.assertAlmostEqual(found.middle, 4.0)

  @parameterized.parameters(range(5))
  def test_nothing_is_done_twice_but_what_was_lost(self, seed):
    fleet = Fleet(
      4, in_flight=3, full=2, speed=2.0, deaths=0.02, away=3.0, load=1.0
    )
    shards = [[1.0 + (n * k) % 7 for k in range(5)] for n in range(40)]
    found = simulate(fleet, shards, seed)
    self.assertGreater(found.deaths, 0)
    self.assertGreater(found.lost, 0)
    work = sum(map(sum, shards)) + found.lost
    # No host does more than it can while it is there.
    self.assertLessEqual(work, fleet.speed * found.up * (1 + 1e-9))
    self.assertLessEqual(found.up, 4 * found.seconds)
    calm = simulate(Fleet(4, in_flight=3, full=2, speed=2.0), shards, seed)
    self.assertEqual((calm.deaths, calm.lost), (0, 0.0))
    self.assertGreater(found.seconds, calm.seconds)

  def test_a_death_loses_what_is_in_flight(self):
    host = searchers._Host(Fleet(1, in_flight=2))
    host.begin(0, [2.0, 6.0, 5.0])
    host.pass_until(2.0)
    left, lost = host.die()
    # Each of the two has had 1.
    self.assertEqual(left, {0: [5.0, 2.0, 6.0]})
    self.assertAlmostEqual(lost, 2.0)

  def test_lengths_are_those_of_rounds(self):
    found = searchers.lengths("4", 40, 0)
    self.assertLen(found, 40)
    self.assertEqual(found, searchers.lengths("4", 40, 0))
    # Two trees of 16 rollouts of 16 candidates at least; up to 224 rollouts.
    self.assertBetween(min(found), 5e3, 1e5)
    self.assertBetween(max(found), 3 * min(found), 3e6)


if __name__ == "__main__":
  absltest.main()
