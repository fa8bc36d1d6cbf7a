"""Tests of the grouping of leaves into device calls."""

import itertools

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.inference import buckets


def cost(calls, step_cost):
  return sum(
    buckets.CALL_COST + each.leaves * (each.length + step_cost)
    for each in calls
  )


class BucketsTest(parameterized.TestCase):
  def test_bucket_of(self):
    sizes = [buckets.bucket_of(n, (3, 8)) for n in (1, 3, 4, 8, 9, 33)]
    self.assertEqual(sizes, [3, 3, 8, 8, 16, 64])

  @parameterized.parameters(0, 1, 2, 3)
  def test_plan_holds_each_leaf_once_and_long_enough(self, seed):
    lengths = np.random.default_rng(seed).integers(1, 400, 71).tolist()
    plan = buckets.plan(lengths, (128, 256, 400), (4, 32), 100)
    self.assertEqual(
      sorted(i for call in plan for i in call.indices), list(range(71))
    )
    for call in plan:
      self.assertLessEqual(len(call.indices), call.leaves)
      self.assertIn(call.length, (128, 256, 400))
      self.assertLessEqual(max(lengths[i] for i in call.indices), call.length)

  @parameterized.parameters(0, 50, 5000)
  def test_plan_is_the_cheapest_cut(self, step_cost):
    lengths = [3, 300, 5, 130, 120, 250, 7]
    prefix_buckets, leaf_buckets = (128, 256, 512), (1, 2, 4)
    plan = buckets.plan(lengths, prefix_buckets, leaf_buckets, step_cost)
    ordered = sorted(
      (buckets.bucket_of(n, prefix_buckets) for n in lengths), reverse=True
    )
    cheapest = np.inf
    for count in range(1, 8):
      for sizes in itertools.product(leaf_buckets, repeat=count):
        starts = [0, *itertools.accumulate(sizes)]
        if starts[-1] < 7 or starts[-2] >= 7:
          continue
        calls = [
          buckets.Call((), size, ordered[start])
          for size, start in zip(sizes, starts, strict=False)
        ]
        cheapest = min(cheapest, cost(calls, step_cost))
    self.assertEqual(cost(plan, step_cost), cheapest)

  def test_short_leaves_do_not_pay_for_long_ones(self):
    lengths = [10] * 32 + [500] * 32
    plan = buckets.plan(lengths, (128, 512), (32,), 0)
    self.assertEqual(
      plan,
      [
        buckets.Call(tuple(range(32, 64)), 32, 512),
        buckets.Call(tuple(range(32)), 32, 128),
      ],
    )

  def test_nothing(self):
    self.assertEqual(buckets.plan([], (8,), (2,), 1), [])

  def test_pad_rows(self):
    tokens, lengths = buckets.pad_rows([[5, 6], [], [7]], (4, 3), 9)
    np.testing.assert_array_equal(
      tokens, [[5, 6, 9], [9, 9, 9], [7, 9, 9], [9, 9, 9]]
    )
    np.testing.assert_array_equal(lengths, [2, 0, 1, 0])


if __name__ == "__main__":
  absltest.main()
