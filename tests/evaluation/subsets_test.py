"""Accuracies over subsets, against all orders in which units might come."""

import fractions
import itertools
import math

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.evaluation import choices, subsets, tables
from tests.evaluation.tables_test import RIGHT, WRONG, record

UNITS = 5


def drawn(seed, source="samples", ties=True):
  """Returns a record of few answers, some failed, some of equal value."""
  draws = np.random.default_rng(seed)
  verdicts = [[RIGHT, WRONG, WRONG][i] for i in draws.integers(0, 3, UNITS)]
  values = draws.integers(0, 3, UNITS) / 2 if ties else draws.uniform(-1, 1, 5)
  made = record(
    "a", source, verdicts, [3, 5, 9, 10, 20], "ppm", values.tolist()
  )
  for each in made["trajectories"]:
    if each["verdict"] == WRONG:
      each["answer"] = str(draws.integers(100, 102))
    if draws.integers(5) == 0:
      each["answer"], each["verdict"], each["value"] = None, "failed", None
    # A group of votes whose members are not all right.
    elif draws.integers(6) == 0:
      each["answer"] = "4"
  return made


def without_values(made):
  found = [each | {"value": None} for each in made["trajectories"]]
  return made | {"trajectories": found}


def brute(made, choice, units, k=4, orders=itertools.permutations):
  """Returns the mean over all orders of units, of the first ones."""
  by_unit = {}
  for each in made["trajectories"]:
    by_unit.setdefault(each["unit"], []).append(each)
  verdicts = []
  for order in orders(range(UNITS), units):
    found = [
      each | {"unit": place}
      for place, unit in enumerate(order)
      for each in by_unit.get(unit, [])
    ]
    chosen = choices.choose({**made, "trajectories": found}, choice, k=k)
    verdicts.append(chosen.right)
  return np.mean(verdicts)


class SubsetsTest(parameterized.TestCase):
  @parameterized.product(
    choice=("pass", "best", "majority"), seed=tuple(range(12))
  )
  def test_exact_ones_are_the_mean_over_all_orders(self, choice, seed):
    made = drawn(seed)
    for units in range(1, UNITS):
      self.assertAlmostEqual(
        subsets.right(made, choice, units, seed=0), brute(made, choice, units)
      )

  @parameterized.product(
    choice=("weighted", "top_k"), seed=tuple(range(6)), k=(1, 2, 4)
  )
  def test_few_subsets_are_all_tried(self, choice, seed, k):
    made = drawn(seed)
    for units in range(1, UNITS):
      found = subsets.right(made, choice, units, seed=0, k=k)
      tried = brute(made, choice, units, k, itertools.combinations)
      self.assertAlmostEqual(found, tried)

  @parameterized.parameters("best", "weighted", "top_k")
  def test_without_values_it_is_the_majority(self, choice):
    made = without_values(drawn(3))
    for units in range(1, UNITS):
      self.assertEqual(
        subsets.right(made, choice, units, seed=0),
        subsets.right(made, "majority", units, seed=0),
      )

  @parameterized.parameters("best", "weighted", "top_k")
  def test_where_some_answers_have_no_value(self, choice):
    for seed in range(6):
      made = drawn(seed)
      for each in made["trajectories"][::2]:
        each["value"] = None
      for units in range(1, UNITS):
        self.assertAlmostEqual(
          subsets.right(made, choice, units, seed=0),
          brute(made, choice, units, orders=itertools.combinations),
        )

  def test_answers_that_vote_together(self):
    made = record("a", "samples", [RIGHT, WRONG, WRONG], [1, 2, 3])
    for each, answer in zip(
      made["trajectories"], ("18", "18.0", "18 dollars"), strict=True
    ):
      each["answer"] = answer
    # All are one answer, of which any may be given; of all units the first.
    for units, expected in ((1, 1 / 3), (2, 1 / 3), (3, 1.0)):
      found = subsets.right(made, "majority", units, seed=0)
      self.assertAlmostEqual(found, expected)
      (row,) = (
        each
        for each in tables.table([made], seed=0)
        if (each["choice"], each["units"]) == ("majority", units)
      )
      self.assertAlmostEqual(row["accuracy"], expected)

  @parameterized.parameters(*choices.CHOICES)
  def test_of_searches_each_gives_its_best(self, choice):
    made = drawn(1, "searches", ties=False)
    more = drawn(2, "searches", ties=False)["trajectories"]
    made["trajectories"] += [each for each in more if each["value"] is not None]
    made["trajectories"].sort(key=lambda each: each["unit"])
    for units in range(1, UNITS):
      if choice != "first":
        found = subsets.right(made, choice, units, seed=0)
        self.assertAlmostEqual(found, brute(made, choice, units), delta=0.1)

  def test_by_hand(self):
    # Two of four right; the value of the first, which is wrong, is highest.
    made = record("a", "samples", [WRONG, RIGHT, RIGHT, WRONG], [1, 2, 3, 4],
                  "ppm", [0.9, 0.5, 0.1, 0.3])  # fmt: skip
    # 1 - 1/6; of three all.
    self.assertAlmostEqual(subsets.right(made, "pass", 2, seed=0), 5 / 6)
    self.assertEqual(subsets.right(made, "pass", 3, seed=0), 1.0)
    # Without the first, 3 of 6 pairs, the second is in 2 of them.
    self.assertAlmostEqual(subsets.right(made, "best", 2, seed=0), 2 / 6)
    # Both right in 1 of 6, one right and a tie in 4.
    self.assertAlmostEqual(subsets.right(made, "majority", 2, seed=0), 3 / 6)
    self.assertAlmostEqual(subsets.tokens(made, 3), 3.0)

  @parameterized.parameters(1, 3, 1024, 2040)
  def test_of_thousands_of_samples(self, units):
    # As many as 64 rollouts of 32 candidates cost; 1024 of them can be chosen
    # in more ways than a float holds.
    right, wrong, failed = 960, 1080, 8
    count = right + wrong + failed
    made = record(
      "a", "samples", [RIGHT] * right + [WRONG] * wrong, list(range(count))
    )
    for each in made["trajectories"][right:]:
      each["answer"] = "9"
    twice = 0
    for silent in range(min(failed, units) + 1):
      votes = units - silent
      for ours in range(max(votes - wrong, 0), min(right, votes) + 1):
        ways = math.comb(right, ours) * math.comb(wrong, votes - ours)
        share = (2 * ours > votes) + (2 * ours >= votes > 0)
        twice += share * ways * math.comb(failed, silent)
    expected = fractions.Fraction(twice, 2 * math.comb(count, units))
    found = subsets.right(made, "majority", units, seed=0)
    self.assertAlmostEqual(found, float(expected), places=10)

  def test_what_depends_on_its_order_is_taken_as_it_came(self):
    for made in (
      drawn(4, "mcts"),
      drawn(4) | {"stop": "majority"},
      drawn(4, "greedy"),
    ):
      for units, spent in ((1, 3), (2, 5), (4, 10)):
        self.assertEqual(
          subsets.right(made, "majority", units, seed=0),
          choices.choose(made, "majority", units).right,
        )
        self.assertEqual(subsets.tokens(made, units), spent)

  def test_of_all_units_there_is_one_order(self):
    made = drawn(0)
    for units, spent in ((5, 20), (9, 20), (None, 20), (4, 16), (1, 4)):
      self.assertEqual(subsets.tokens(made, units), spent)
    for choice in choices.CHOICES:
      self.assertEqual(
        subsets.right(made, choice, 5, seed=0),
        choices.choose(made, choice, 5).right,
      )

  def test_of_many_subsets_some_are_drawn(self):
    draws = np.random.default_rng(0)
    verdicts = [[RIGHT, WRONG][i] for i in draws.permutation(20) % 2]
    made = record("a", "samples", verdicts, list(range(20)), "ppm", [0.5] * 20)
    for each in made["trajectories"]:
      if each["verdict"] == WRONG:
        each["answer"] = "9"
    exact = subsets.right(made, "majority", 9, seed=0)
    self.assertBetween(exact, 0.05, 0.95)
    # Equal values: a weighted vote is the majority.
    found = [
      subsets.right(made, "weighted", 9, seed=seed) for seed in (0, 0, 1, 2)
    ]
    self.assertEqual(found[0], found[1])
    self.assertGreater(len(set(found)), 1)
    for each in found:
      self.assertAlmostEqual(each, exact, delta=0.1)
      self.assertEqual(each * 128, int(each * 128))


if __name__ == "__main__":
  absltest.main()
