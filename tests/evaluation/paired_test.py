"""Paired statistics against hand-computed values and simulation."""

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.evaluation import paired


def of(bits: str) -> dict[str, bool]:
  return {f"p{i}": bit == "1" for i, bit in enumerate(bits)}


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
    self.assertEqual(paired.mcnemar(first, second), p)
    self.assertEqual(paired.mcnemar(second, first), p)

  def test_mcnemar_of_many_problems(self):
    # The normal approximation with continuity: z = 99 / sqrt(10000), p = 0.322.
    self.assertAlmostEqual(paired.mcnemar(5050, 4950), 0.322, places=2)

  def test_counts_the_problems_that_both_have(self):
    found = paired.compare(of("110100"), of("1001"), seed=1)
    self.assertEqual((found.n, found.only_first, found.only_second), (4, 1, 0))
    self.assertEqual((found.first, found.second), (0.75, 0.5))
    self.assertEqual(found.difference, 0.25)
    self.assertLessEqual(found.low, 0)
    self.assertIsNone(paired.compare(of("1"), {"other": True}, seed=1))

  @parameterized.parameters(
    ("1" * 40, "0" * 30 + "1" * 10, "first is better"),
    ("0" * 30 + "1" * 10, "1" * 40, "second is better"),
    ("1" * 40, "1" * 40, "not distinguishable"),
    # Three of three disagreements: p is 1/4.
    ("1" * 40, "1" * 37 + "000", "not distinguishable"),
  )
  def test_says_what_may_be_said(self, first, second, verdict):
    found = paired.compare(of(first), of(second), seed=2)
    self.assertEqual(found.verdict, verdict)

  def test_interval_and_test_hold_what_they_promise(self):
    """Of equal methods about one in twenty looks different, and not more."""
    rng = np.random.default_rng(5)
    claimed, covered, runs = 0, 0, 300
    for seed in range(runs):
      # Easy and hard problems; both methods are right as often.
      chance = rng.beta(1, 1, 150)
      first, second = (rng.random((2, 150)) < chance).tolist()
      found = paired.compare(
        dict(enumerate(first)), dict(enumerate(second)), seed
      )
      claimed += found.verdict != "not distinguishable"
      covered += found.low <= 0 <= found.high
    self.assertLess(claimed / runs, 0.08)
    self.assertBetween(covered / runs, 0.9, 0.99)


if __name__ == "__main__":
  absltest.main()
