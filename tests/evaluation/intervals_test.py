"""Paired statistics against hand-computed values and simulation."""

import math

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.evaluation import intervals


def of(bits: str) -> dict[str, bool]:
  return {f"p{i}": bit == "1" for i, bit in enumerate(bits)}


class BootstrapTest(parameterized.TestCase):
  @parameterized.parameters((0.5, 2003), (0.9, 1009), (0.13, 3001))
  def test_agrees_with_the_normal_approximation(self, share, n):
    right = np.arange(n) < round(share * n)
    low, high = intervals.bootstrap(right, seed=7)
    mean = right.mean()
    half = 1.96 * math.sqrt(mean * (1 - mean) / n)
    self.assertAlmostEqual(low, mean - half, delta=half / 8)
    self.assertAlmostEqual(high, mean + half, delta=half / 8)

  def test_against_all_resamples_of_a_small_set(self):
    # A resample of 3 values of which one is 1 has Binomial(3, 1/3) ones.
    cdf = np.cumsum([8 / 27, 12 / 27, 6 / 27, 1 / 27])
    low, high = intervals.bootstrap(np.array([1.0, 0.0, 0.0]), seed=3)
    quantile = [np.searchsorted(cdf, q) / 3 for q in (0.025, 0.975)]
    np.testing.assert_allclose([low, high], quantile)

  def test_in_pieces_the_same(self):
    values = np.random.default_rng(5).normal(size=101)
    whole = intervals.bootstrap(values, seed=11)
    chunk = intervals._CHUNK
    self.addCleanup(setattr, intervals, "_CHUNK", chunk)
    intervals._CHUNK = 1
    self.assertEqual(intervals.bootstrap(values, seed=11), whole)
    self.assertNotEqual(intervals.bootstrap(values, seed=13), whole)

  @parameterized.parameters(0.0, 1.0)
  def test_equal_values_have_no_width(self, value):
    self.assertEqual(
      intervals.bootstrap(np.full(5, value), seed=0), (value, value)
    )


class CrossedTest(absltest.TestCase):
  def test_of_one_seed_it_is_the_bootstrap_of_problems(self):
    right = (np.arange(97) % 3 == 0).astype(float)
    low, high = intervals.crossed(right[None], 3, 20_000)
    expected = intervals.bootstrap(right, 5, 20_000)
    np.testing.assert_allclose((low, high), expected, atol=0.006)

  def test_what_does_not_vary_has_no_width(self):
    self.assertEqual(intervals.crossed(np.ones((3, 7)), 0), (1.0, 1.0))
    # Seeds that differ and problems that do not: the seeds' means are left.
    right = np.repeat([[0.0], [1.0]], 11, axis=1)
    self.assertEqual(intervals.crossed(right, 0), (0.0, 1.0))

  def test_is_that_of_draws_that_are_written_out(self):
    right = np.random.default_rng(2).random((4, 9))
    random, means = np.random.default_rng(11), []
    drawn = random.multinomial(4, [1 / 4] * 4, 401)
    for seeds, problems in zip(
      drawn, random.multinomial(9, [1 / 9] * 9, 401), strict=True
    ):
      total = 0.0
      for s, p in np.ndindex(4, 9):
        total += seeds[s] * problems[p] * right[s, p]
      means.append(total / 36)
    means.sort()
    # Of 401 values the quantile q is number 400 q, from 0.
    self.assertLess(means[9], means[10] - 1e-6)
    self.assertLess(means[10], means[11] - 1e-6)
    low, high = intervals.crossed(right, 11, 401)
    self.assertAlmostEqual(low, means[10])
    self.assertAlmostEqual(high, means[390])

  def test_the_mean_is_over_the_values_that_are_there(self):
    right = np.random.default_rng(2).random((3, 6))
    right[0, 1] = right[2, 1] = right[2, 4] = np.nan
    less = np.array([[0.25, 0.75, 0.5, np.nan, 1, 0]])
    random = np.random.default_rng(11)
    drawn = [
      random.multinomial(count, [1 / count] * count, 401) for count in (3, 6, 1)
    ]
    means = []
    for seeds, problems, _ in zip(*drawn, strict=True):
      columns = np.repeat(np.arange(6), problems)
      first = np.repeat(right, seeds, axis=0)[:, columns]
      means.append(np.nanmean(first) - np.nanmean(less[:, columns]))
    means.sort()
    low, high = intervals.crossed(right, 11, 401, less)
    self.assertAlmostEqual(low, means[10])
    self.assertAlmostEqual(high, means[390])

  def test_covers_the_truth_about_as_often_as_it_says(self):
    """Seeds and problems have effects of their own, of known size."""
    random = np.random.default_rng(7)
    covered, runs = 0, 300
    for run in range(runs):
      chance = (
        0.5 + random.normal(0, 0.05, (7, 1)) + random.normal(0, 0.2, (1, 101))
      )
      right = (random.random((7, 101)) < chance).astype(float)
      low, high = intervals.crossed(right, run, 500)
      covered += low <= 0.5 <= high
    self.assertBetween(covered / runs, 0.9, 0.99)

  def test_of_two_sides_with_seeds_of_their_own(self):
    random = np.random.default_rng(3)
    first, second = random.random((3, 8)), random.random((2, 8))
    low, high = intervals.crossed(first, 5, 20_000, less=second)
    means = []
    for _ in range(20_000):
      problems = random.integers(0, 8, 8)
      one, two = (
        each[random.integers(0, len(each), len(each))][:, problems].mean()
        for each in (first, second)
      )
      means.append(one - two)
    expected = np.percentile(means, (2.5, 97.5))
    np.testing.assert_allclose((low, high), expected, atol=0.01)
    # The problems are shared: equal sides do not differ.
    same = intervals.crossed(first[:1], 5, less=first[:1])
    np.testing.assert_allclose(same, (0, 0), atol=1e-12)


class PairedTest(parameterized.TestCase):
  @parameterized.parameters(
    (0, 0, 1.0),
    (1, 0, 1.0),  # 2 x 1/2
    (5, 0, 0.0625),  # 2 x 1/32
    (0, 6, 0.03125),  # 2 x 1/64
    (8, 2, 0.109375),  # 2 x (1 + 10 + 45) / 1024
    (3, 3, 1.0),
  )
  def test_mcnemar_by_hand(self, first, second, p):
    self.assertEqual(intervals.mcnemar(first, second), p)
    self.assertEqual(intervals.mcnemar(second, first), p)

  def test_mcnemar_of_many_problems(self):
    # The normal approximation with continuity: z = 99 / sqrt(10000), p = 0.322.
    self.assertAlmostEqual(intervals.mcnemar(5050, 4950), 0.322, places=2)

  def test_counts_the_problems_that_both_have(self):
    found = intervals.compare(of("110100"), of("1001"), seed=1)
    self.assertEqual((found.n, found.only_first, found.only_second), (4, 1, 0))
    self.assertEqual((found.first, found.second), (0.75, 0.5))
    self.assertEqual(found.difference, 0.25)
    self.assertLessEqual(found.low, 0)
    self.assertIsNone(intervals.compare(of("1"), {"other": True}, seed=1))

  @parameterized.parameters(
    ("1" * 40, "0" * 30 + "1" * 10, "first is better"),
    ("0" * 30 + "1" * 10, "1" * 40, "second is better"),
    ("1" * 40, "1" * 40, "not distinguishable"),
    # Three of three disagreements: p is 1/4.
    ("1" * 40, "1" * 37 + "000", "not distinguishable"),
  )
  def test_says_what_may_be_said(self, first, second, verdict):
    found = intervals.compare(of(first), of(second), seed=2)
    self.assertEqual(found.verdict, verdict)

  @parameterized.parameters(
    # A difference is claimed where both p < 0.05 and the interval says so.
    (0.0499, 0.01, 0.2, 0.1, "first is better"),
    (0.0499, -0.2, -0.01, -0.1, "second is better"),
    (0.05, 0.01, 0.2, 0.1, "not distinguishable"),
    (0.09, -0.2, -0.01, -0.1, "not distinguishable"),
    (0.01, -0.01, 0.2, 0.1, "not distinguishable"),
    (0.01, 0.0, 0.2, 0.1, "not distinguishable"),
    (0.01, -0.2, 0.0, -0.1, "not distinguishable"),
    (0.9, -0.2, 0.2, 0.1, "not distinguishable"),
  )
  def test_interval_and_test_have_to_agree(
    self, p, low, high, difference, verdict
  ):
    found = intervals.Difference(
      *(50, 0.5, 0.4, difference, low, high, 9, 4), p=p
    )
    self.assertEqual(found.verdict, verdict)

  def test_interval_and_test_hold_what_they_promise(self):
    """Of equal methods about one in twenty looks different, and not more."""
    rng = np.random.default_rng(5)
    claimed, covered, runs = 0, 0, 300
    for seed in range(runs):
      # Easy and hard problems; both methods are right as often.
      chance = rng.beta(1, 1, 150)
      first, second = (rng.random((2, 150)) < chance).tolist()
      found = intervals.compare(
        dict(enumerate(first)), dict(enumerate(second)), seed
      )
      claimed += found.verdict != "not distinguishable"
      covered += found.low <= 0 <= found.high
    self.assertLess(claimed / runs, 0.08)
    self.assertBetween(covered / runs, 0.9, 0.99)

  def test_in_percent(self):
    self.assertEqual(
      intervals.percent(0.1234, -0.05, 1.0), "12.3 [-5.0, 100.0]"
    )
    self.assertEqual(
      intervals.percent(0.1234, -0.05, 1.0, signed=True),
      "+12.3 [-5.0, +100.0]",
    )


if __name__ == "__main__":
  absltest.main()
