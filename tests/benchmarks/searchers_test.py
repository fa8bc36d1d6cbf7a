"""The simulation of hosts that die, against what can be said by hand."""

from absl.testing import absltest, parameterized

from benchmarks import searchers
from benchmarks.searchers import Fleet, simulate


class SimulateTest(parameterized.TestCase):
  def test_problems_share_a_host(self):
    # Both run at half speed until the short one is done, after 4 s; the long
    # one has 4 of 6 left then.
    found = simulate(Fleet(1, in_flight=2), [[[2.0], [6.0]]])
    self.assertAlmostEqual(found.seconds, 8.0)
    # A host that two problems make full: one is half as fast.
    found = simulate(Fleet(1, in_flight=2, full=2), [[[2.0], [6.0]]])
    self.assertAlmostEqual(found.seconds, 4.0 + 8.0)
    # Attempts follow each other at once.
    found = simulate(Fleet(1, in_flight=2, full=2), [[[2.0], [1.0, 4.0, 1.0]]])
    self.assertAlmostEqual(found.seconds, 4.0 + 8.0)

  def test_a_shard_more_when_few_problems_are_left(self):
    # At 2 s the first problem is done, and 1 is left of 2 that may be in
    # flight: the second shard begins. Three problems share the host until 14 s,
    # when the two have had 4; of the 9 are 4 left, at half speed.
    shards = [[[1.0], [9.0]], [[4.0], [4.0]]]
    found = simulate(Fleet(1, in_flight=2, full=2), shards)
    self.assertAlmostEqual(found.seconds, 22.0)

  def test_hosts_load_first(self):
    found = simulate(Fleet(3, in_flight=1, load=7.0), [[[2.0]]] * 3)
    self.assertAlmostEqual(found.seconds, 9.0)
    self.assertAlmostEqual(found.up, 6.0)

  @parameterized.product(seed=tuple(range(5)), keeps=(False, True))
  def test_nothing_is_done_twice_but_what_was_lost(self, seed, keeps):
    fleet = Fleet(
      *(4, 3),
      full=2,
      speed=2.0,
      deaths=0.02,
      away=3.0,
      load=1.0,
      keeps=keeps,
    )
    shards = [
      [[1.0 + (n * k) % 7] * (1 + k % 3) for k in range(5)] for n in range(40)
    ]
    found = simulate(fleet, shards, seed)
    self.assertGreater(found.deaths, 0)
    self.assertGreater(found.lost, 0)
    total = sum(sum(map(sum, each)) for each in shards)
    # No host does more than it can while it is there.
    most = fleet.speed * found.up * (1 + 1e-9)
    self.assertLessEqual(total + found.lost, most)
    self.assertLessEqual(found.up, 4 * found.seconds)
    calm = simulate(Fleet(4, in_flight=3, full=2, speed=2.0), shards, seed)
    self.assertEqual((calm.deaths, calm.lost), (0, 0.0))
    self.assertGreater(found.seconds, calm.seconds)

  def test_a_death_loses_what_is_in_flight(self):
    # After 5 s each of the two has had 2.5.
    for keeps, lost, rest in (
      (False, 5.0, [[5.0], [2.0, 6.0], [6.0]]),
      (True, 3.0, [[5.0], [6.0], [6.0]]),
    ):
      host = searchers._Host(Fleet(1, in_flight=2, keeps=keeps))
      host.begin(0, [[2.0, 6.0], [6.0], [5.0]])
      self.assertAlmostEqual(host.next(), 4.0)
      host.pass_until(4.0)
      self.assertFalse(host.finish())
      host.pass_until(5.0)
      left, found = host.die()
      self.assertCountEqual(left[0], rest)
      self.assertAlmostEqual(found, lost)

  def test_problems_are_those_of_rounds(self):
    found = searchers.problems("4", 40, 0)
    self.assertEqual(found, searchers.problems("4", 40, 0))
    # Two trees of 16 rollouts of 16 candidates, and 64 rollouts more, twice.
    for attempts, before in found:
      self.assertBetween(len(attempts), 1, 3)
      self.assertEqual(before.right == 0, len(attempts) > 1)
      self.assertBetween(attempts[0], 5e3, 3e5)
      self.assertBetween(before.tokens / attempts[0], 0.3, 3.0)
      for extra in attempts[1:]:
        self.assertBetween(extra / attempts[0], 1.0, 4.0)


if __name__ == "__main__":
  absltest.main()
