import itertools
from unittest import mock

import numpy as np
from absl.testing import absltest, flagsaver

from benchmarks import algorithms
from benchmarks.peers import crew
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

  @flagsaver.flagsaver(expert=["6", "8"])
  def test_each_round_of_expert_iteration_has_a_size(self):
    with self.assertRaisesRegex(ValueError, "--expert=6,8: .* has 4 rounds"):
      algorithms.config_of("expert", 0)

  @flagsaver.flagsaver(samples=2)
  def test_algorithms_are_compared_on_each_set(self):
    def point(set_, right, tokens):
      sets = {set_: {"right": right, "greedy": [0, 0]}}
      return {"cost": {"tokens": tokens}, "sets": sets}

    points = {
      ("paper", 1): [point("a", [0, 2], 10), point("a", [0, 0], 30)],
      ("grpo", 1): [point("a", [2, 2], 10), point("a", [1, 1], 10)],
    }
    with mock.patch.object(crew, "show") as show:
      algorithms.compare(points)
    lines = {c.kwargs["algorithm"]: c.kwargs for c in show.call_args_list}
    self.assertEqual(lines["paper"]["tokens"], 20)
    self.assertEqual(lines["paper"]["pass@1"][0], 0.25)
    self.assertEqual(lines["grpo"]["pass@1"][0], 0.75)
    # Of the two problems 3/4 - 0 and 3/4 - 1/2.
    self.assertEqual(lines["grpo"]["pass@1 less paper"], [0.5, 0.25, 0.75])


if __name__ == "__main__":
  absltest.main()
