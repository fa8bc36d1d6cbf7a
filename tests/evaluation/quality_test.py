"""Quality of reward models against brute force and known answers."""

import itertools
import json
import math

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config.schema import ExtractConfig
from rstar_jax.data import pairs as pairs_lib
from rstar_jax.data import trajectories
from rstar_jax.evaluation import quality
from rstar_jax.search import mcts
from rstar_jax.search import tree as tree_lib
from tests.search.toys import PROBLEMS, calls_of, config_of


def measure(trees, score):
  rows = [
    quality.of_problem(group, score, ExtractConfig())
    for group in trajectories.by_problem(trees)
  ]
  return quality.summary(json.loads(json.dumps(rows)))


class QualityTest(parameterized.TestCase):
  @parameterized.parameters(range(5))
  def test_auc_is_how_often_right_is_above_wrong(self, seed):
    rng = np.random.default_rng(seed)
    # Few values, so that there are ties.
    values = rng.integers(0, 5, 23) / 4
    right = rng.random(23) < 0.4
    pairs = itertools.product(values[right], values[~right])
    wins = [(a > b) + 0.5 * (a == b) for a, b in pairs]
    self.assertAlmostEqual(quality.auc(values, right), np.mean(wins))

  def test_auc_needs_both_kinds(self):
    self.assertIsNone(quality.auc([0.1, 0.2], [True, True]))
    self.assertEqual(quality.auc([-1, 1], [False, True]), 1.0)
    self.assertEqual(quality.auc([0, 0], [False, True]), 0.5)

  def test_calibration_by_hand(self):
    # Chances 0.95, 0.95, 0.05 and 1: two bins of 0.95 to 1, one of 0.05.
    error, bins = quality.calibration(
      np.array([0.9, 0.9, -0.9, 1.0]), np.array([True, False, False, True])
    )
    self.assertLen(bins, 2)
    self.assertEqual([each["n"] for each in bins], [1, 3])
    high = (0.95 + 0.95 + 1) / 3
    self.assertAlmostEqual(bins[1]["predicted"], high)
    self.assertEqual((bins[0]["right"], bins[1]["right"]), (0.0, 2 / 3))
    self.assertAlmostEqual(error, (0.05 + 3 * (high - 2 / 3)) / 4)

  def test_chances_are_float64(self):
    error, ((each),) = quality.calibration(
      np.array([0.1, 0.1]), np.array([True, True])
    )
    self.assertEqual(each, {"predicted": (1 + 0.1) / 2, "right": 1.0, "n": 2})
    self.assertEqual(error, 1 - (1 + 0.1) / 2)

  def test_a_calibrated_model_has_little_error(self):
    rng = np.random.default_rng(3)
    chance = rng.random(20_000)
    right = rng.random(20_000) < chance
    error, bins = quality.calibration(2 * chance - 1, right)
    self.assertLess(error, 0.02)
    self.assertLen(bins, 10)

  def test_report_by_step_and_level(self):
    rows = [
      {"values": [0.0, 0.9], "right": True, "problem": "a", "level": 1},
      {"values": [0.5, -0.9], "right": False, "problem": "a", "level": 1},
      {"values": [-0.95], "right": True, "problem": "b", "level": None},
    ]
    found = quality.report(rows)
    # Of right above wrong one of two; of the one problem with both, all.
    self.assertEqual(found["auc"], 0.5)
    self.assertEqual((found["auc_within"], found["problems_within"]), (1.0, 1))
    self.assertEqual(found["by_step"]["0"], {"auc": 0.5, "n": 3})
    # One step before the answer the wrong one had the higher value.
    self.assertEqual(found["by_step"]["-1"], {"auc": 0.0, "n": 2})
    self.assertEqual(found["by_level"]["1"], {"auc": 1.0, "n": 2})
    self.assertEqual(found["by_level"]["None"], {"auc": None, "n": 1})

  def test_measures_trees(self):
    config = config_of(rollouts=9, candidates=5)
    trees = mcts.search(PROBLEMS, config, calls_of(), seed=2)
    found = measure(trees, testing.score_by_hash)
    pairs, stats = pairs_lib.pairs(trees, ExtractConfig())
    self.assertEqual(found["pairs"]["step"]["n"], stats["step"])

    def value(question, nodes):
      return testing.score_by_hash([question], [nodes[:-1]], [nodes[-1:]])[0][0]

    wins = [
      value(p.question, p.chosen) > value(p.question, p.rejected)
      for p in pairs
      if p.kind == "final"
    ]
    self.assertAlmostEqual(found["pairs"]["final"]["accuracy"], np.mean(wins))
    answers = [
      (value(t.question, t.steps), t.correct)
      for tree in trees
      for t in tree_lib.trajectories(tree)
    ]
    self.assertEqual(found["solutions"], len(answers))
    self.assertAlmostEqual(
      found["auc"], quality.auc(*zip(*answers, strict=True))
    )

  def test_an_oracle_is_found_to_be_one(self):
    config = config_of(rollouts=9, candidates=5)
    trees = mcts.search(PROBLEMS, config, calls_of(), seed=2)
    right = {
      (t.question, t.steps): t.correct
      for tree in trees
      for t in tree_lib.trajectories(tree)
    }

    def score(questions, prefixes, steps):
      return [
        np.array([math.tanh(2 * right.get((q, (*p, s)), 0.5) - 1) for s in row])
        for q, p, row in zip(questions, prefixes, steps, strict=True)
      ]

    found = measure(trees, score)
    self.assertEqual(found["auc"], 1.0)
    self.assertEqual(found["pairs"]["final"]["accuracy"], 1.0)


if __name__ == "__main__":
  absltest.main()
