import itertools

import numpy as np
from absl.testing import absltest, flagsaver

from benchmarks import algorithms
from rstar_jax.config import validation


class AlgorithmsTest(absltest.TestCase):
  @flagsaver.flagsaver(samples=5)
  def test_rates_are_those_of_all_subsets(self):
    right = [0, 1, 3, 5]
    found = algorithms.rates({"right": right, "greedy": [0, 1, 0, 1]})
    self.assertEqual(set(found), {"pass@1", "pass@2", "greedy"})
    np.testing.assert_allclose(found["pass@1"], [0, 0.2, 0.6, 1])
    any_right = [
      # The first samples are the right ones.
      np.mean([min(two) < count for two in itertools.combinations(range(5), 2)])
      for count in right
    ]
    np.testing.assert_allclose(found["pass@2"], any_right)
    np.testing.assert_allclose(found["greedy"], [0, 1, 0, 1])

  def test_configs_can_run(self):
    for name in ("paper", "expert", "grpo", "tree"):
      config = algorithms.config_of(name, 7)
      validation.validate(config)
      self.assertLen(config.rounds, 4)
      self.assertEqual((config.seed, config.eval.data.count), (7, 200))
    with self.assertRaisesRegex(ValueError, "no such algorithm"):
      algorithms.config_of("chance", 0)


if __name__ == "__main__":
  absltest.main()
