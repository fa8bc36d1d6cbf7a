"""One host: with constant times it takes what is worked out by hand."""

import dataclasses

import numpy as np
from absl.testing import absltest, parameterized

from benchmarks.fleet_host import Device, Host, Pool, Spent, Tick, search

# A step takes a second for each row, whatever else there is.
ROWS = Device(weights=0.0, row=1.0, compact=False)
# A step takes 3 seconds, however many rows there are.
FLAT = Device(weights=3.0, row=0.0, compact=False)


def host_of(device=ROWS, **changes) -> Host:
  host = Host(device=device, slots=1, groups=1, workers=1)
  return dataclasses.replace(host, **changes)


def random_trees(seed: int, count: int) -> list[list[Tick]]:
  rng = np.random.default_rng(seed)
  return [
    [
      Tick(
        lengths=tuple(rng.integers(1, 14, 3).tolist()),
        path=int(rng.integers(5, 50)),
        programs=tuple(rng.random(3).tolist()),
        answers=tuple(rng.random(2).tolist()),
      )
      for _ in range(rng.integers(1, 6))
    ]
    for _ in range(count)
  ]


class PoolTest(absltest.TestCase):
  def test_workers_take_tasks_in_order(self):
    pool = Pool(2)
    # 0-3 and 0-1, 1-3, then 3-5 behind either.
    self.assertEqual(pool.run(0.0, [3, 1, 2, 2]), 5)
    # The other is free at 3.
    self.assertEqual(pool.run(1.0, [1]), 4)
    self.assertEqual(pool.run(7.0, [1]), 8)
    self.assertEqual(pool.busy, 10)

  def test_nothing_takes_no_time(self):
    self.assertEqual(Pool(1).run(5.0, []), 5.0)


class DeviceTest(absltest.TestCase):
  def test_all_rows_go_on_to_the_end(self):
    # 4 rows of a second each, 7 steps: the longest.
    batch = [Tick((2, 7)), Tick((3, 3))]
    self.assertEqual(ROWS.expand(batch), 7 * 4)
    self.assertEqual(FLAT.expand(batch), 3 + 7 * 3)

  def test_leaves_are_padded_to_a_power_of_two(self):
    self.assertEqual(ROWS.expand([Tick((1, 1))] * 3), 2 * 4)

  def test_half_goes_on_once_half_has_ended(self):
    device = dataclasses.replace(ROWS, compact=True)
    # 4 rows for 3 steps, by when two have ended; 2 rows for 2, 1 for 4 more.
    self.assertEqual(device.expand([Tick((2, 3)), Tick((5, 9))]), 12 + 4 + 4)
    # Three leaves of one row in four: 4 rows for 2 steps, as one row is none.
    batch = [Tick((2,)), Tick((2,)), Tick((6,))]
    self.assertEqual(device.expand(batch), 2 * 4 + 4 * 1)

  def test_keys_and_values_are_read_once_a_leaf(self):
    device = Device(weights=0.0, row=0.0, token=1.0, compact=False)
    # Three steps: the path of 10, and 2 rows of 1.5 tokens on average.
    self.assertEqual(device.expand([Tick((3, 3), path=10)]), 3 * (10 + 2 * 1.5))

  def test_efficiency_and_overheads(self):
    device = Device(
      weights=3.0, row=0.0, efficiency=0.5, step=0.25, call=7.0, compact=False
    )
    self.assertEqual(device.expand([Tick((4,))]), 7 + 6 + 4 * 6.25)


class SearchTest(parameterized.TestCase):
  def test_one_tree_is_the_sum_of_its_phases(self):
    tick = Tick((2, 2), programs=(5.0, 1.0), answers=(0.5,), scored=4)
    host = host_of(controller=0.125)
    # 2 candidates, 2 steps of 2 rows, 2 programs, 4 tokens read, an answer.
    expected = 3 * (0.25 + 4 + 6 + 4 + 0.5)
    spent = search([[tick] * 3], host)
    self.assertEqual(spent.seconds, expected)
    self.assertEqual(spent.device, 3 * 8)
    self.assertEqual(spent.idle, 1 - 24 / expected)

  def test_trees_go_one_after_the_other_through_one_slot(self):
    trees = random_trees(0, 7)
    together = search(trees, host_of())
    alone = Spent()
    for tree in trees:
      alone += search([tree], host_of())
    for mine, its in zip(
      dataclasses.astuple(together), dataclasses.astuple(alone), strict=True
    ):
      self.assertAlmostEqual(mine, its)

  @parameterized.parameters(2, 3, 5)
  def test_two_groups_hide_what_is_shorter(self, ticks):
    # A call takes 3 to read, 3 to sample; code takes as long.
    tree = [Tick((1,), programs=(6.0,))] * ticks
    one = search([tree] * 2, host_of(FLAT))
    self.assertEqual(one.seconds, 2 * 12 * ticks)
    two = search([tree] * 2, host_of(FLAT, groups=2, workers=2))
    # The second starts 6 later, and then neither waits.
    self.assertEqual(two.seconds, 6 + 12 * ticks)
    self.assertAlmostEqual(two.idle, 6 / two.seconds)

  def test_a_device_that_is_the_bound_is_never_idle(self):
    # Code takes 1, a call 6: three groups wait for the device alone.
    tree = [Tick((1,), programs=(1.0,))] * 11
    spent = search([tree] * 3, host_of(FLAT, groups=3, workers=3))
    self.assertEqual(spent.seconds, 3 * 11 * 6 + 1)

  def test_a_sandbox_that_is_the_bound(self):
    # 4 programs of 5 on 2 workers: 10 a tick, behind a call of 6.
    tree = [Tick((1,), programs=(5.0,) * 4)] * 11
    spent = search([tree] * 2, host_of(FLAT, groups=2, workers=2))
    self.assertEqual(spent.seconds, 6 + 2 * 11 * 10)

  def test_a_freed_slot_goes_to_the_next_tree(self):
    # Slots 2, trees of 1, 3, 2 ticks: three ticks, both slots full.
    one = Tick((1,))
    spent = search([[one], [one] * 3, [one] * 2], host_of(FLAT, slots=2))
    self.assertEqual(spent.seconds, 3 * 6)
    self.assertEqual(spent.leaves / spent.expanding, 2)

  def test_empty_trees_take_nothing(self):
    self.assertEqual(search([[], []], host_of(slots=2)).seconds, 0)

  @parameterized.parameters((1, 1, 1), (3, 2, 2), (2, 4, 5), (7, 3, 11))
  def test_work_is_conserved(self, slots, groups, workers):
    trees = random_trees(1, 13)
    host = host_of(FLAT, slots=slots, groups=groups, workers=workers)
    spent = search(trees, host)
    ticks = [tick for tree in trees for tick in tree]
    self.assertAlmostEqual(
      spent.sandbox, sum(sum(each.programs) for each in ticks)
    )
    self.assertAlmostEqual(
      spent.grader, sum(sum(each.answers) for each in ticks)
    )
    self.assertEqual(spent.tokens, sum(sum(each.lengths) for each in ticks))
    # No resource works longer than there is time, and nothing overtakes.
    self.assertLessEqual(spent.device, spent.seconds)
    self.assertLessEqual(spent.sandbox, workers * spent.seconds)
    longest = max(
      sum(
        FLAT.expand([tick]) + max(tick.programs) + max(tick.answers)
        for tick in tree
      )
      for tree in trees
    )
    self.assertGreaterEqual(spent.seconds, longest - 1e-9)


if __name__ == "__main__":
  absltest.main()
