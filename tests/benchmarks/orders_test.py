"""Differences of policies over problems and seeds."""

import json

import numpy as np
from absl import app
from absl.testing import absltest, flagsaver

from benchmarks import orders


def line(policy, seed, right, samples=3):
  return {
    "policy": policy,
    "seed": seed,
    "set": "sums",
    "samples": samples,
    "right": right,
  }


class OrdersTest(absltest.TestCase):
  def test_shares_by_seed_and_problem(self):
    lines = [line("b", 0, "33"), line("a", 1, "03"), line("a", 0, "12")]
    np.testing.assert_allclose(
      orders.rates(lines, "a", "sums"), [[1 / 3, 2 / 3], [0, 1]]
    )
    np.testing.assert_allclose(
      orders.rates(lines, "b+a", "sums"), [[1, 1], [1 / 3, 2 / 3], [0, 1]]
    )
    for policy, problems in (("a", "differences"), ("a+c", "sums")):
      with self.assertRaisesRegex(ValueError, "only a on sums, b on sums"):
        orders.rates(lines, policy, problems)

  def test_what_all_problems_and_seeds_say_is_certain(self):
    found = orders.compare(np.full((2, 5), 0.75), np.full((3, 5), 0.5))
    for name in ("less", "low", "high"):
      self.assertEqual(found[name], 0.25)

  def test_problems_are_shared(self):
    # Each problem is as often right on both sides, and problems differ much.
    one = np.array([[0.0, 1.0] * 20])
    found = orders.compare(one, one)
    np.testing.assert_allclose([found["low"], found["high"]], 0, atol=1e-12)

  def test_seeds_that_differ_widen_the_interval(self):
    first = np.repeat([[0.2], [0.6]], 30, axis=1)
    found = orders.compare(first, np.full((1, 30), 0.1))
    self.assertAlmostEqual(found["less"], 0.3)
    # Twice the same seed, either one.
    np.testing.assert_allclose([found["low"], found["high"]], [0.1, 0.5])
    np.testing.assert_allclose(found["first_seeds"], [0.2, 0.6])

  def test_sides_of_other_problems_are_refused(self):
    lines = [line("search", 0, "33"), line("cold", 0, "123")]
    path = self.create_tempfile(content="\n".join(map(json.dumps, lines)))
    with flagsaver.flagsaver(set="sums"):
      with self.assertRaisesRegex(app.UsageError, "has 2 problems and .* 3:"):
        orders.main(["", path.full_path])


if __name__ == "__main__":
  absltest.main()
