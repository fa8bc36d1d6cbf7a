import contextlib
import itertools
import pathlib
import shutil
import types
from unittest import mock

import numpy as np
from absl.testing import absltest, flagsaver, parameterized

from benchmarks import algorithms
from benchmarks import lines as lines_lib
from rstar_jax.config import validation
from rstar_jax.storage import layout, manifests


class AlgorithmsTest(parameterized.TestCase):
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

  @parameterized.parameters(1, 2, 3)
  def test_half_of_few_samples_is_one(self, samples):
    with flagsaver.flagsaver(samples=samples):
      found = algorithms.rates({"right": [0, samples], "greedy": [0, 1]})
    self.assertEqual({*found}, {"pass@1", "greedy"})
    np.testing.assert_array_equal(found["pass@1"], [0, 1])

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
    with mock.patch.object(lines_lib, "show") as show:
      algorithms.compare(points)
    lines = {c.kwargs["algorithm"]: c.kwargs for c in show.call_args_list}
    self.assertEqual(lines["paper"]["tokens"], 20)
    self.assertEqual(lines["paper"]["pass@1"][0], 0.25)
    self.assertEqual(lines["grpo"]["pass@1"][0], 0.75)
    # Of the two problems 3/4 - 0 and 3/4 - 1/2.
    self.assertEqual(lines["grpo"]["pass@1 less paper"], [0.5, 0.25, 0.75])

  def test_a_rounds_cost_is_of_all_that_trained_it(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    config = algorithms.config_of("paper", 0)
    spent, stages = [0.0, 0.0], []
    killed = []

    def stage(name):
      def run(context, round_):
        path = context.folder(round_, "trees")
        if name == "rollout":
          manifests.write(path, {"generated_tokens": 70}, [])
        if killed:
          raise killed.pop()
        stages.append(name)
        spent[0] += 5.0
        spent[1] += 2.0

      return run

    @contextlib.contextmanager
    def open_run(config, folder):
      del config
      yield types.SimpleNamespace(
        folder=lambda *args: layout.stage_folder(folder, *args)
      )

    for name, value in (
      ("open_run", open_run),
      ("STAGES", {each: stage(each) for each in algorithms.rj.STAGES}),
    ):
      self.enter_context(mock.patch.object(algorithms.rj, name, value))
    self.enter_context(
      mock.patch.object(algorithms, "spent", lambda: tuple(spent))
    )
    cost = {"tokens": 70, "cpu_seconds": 15.0, "seconds": 6.0}
    self.assertEqual(algorithms.train(config, folder, 1), cost)
    self.assertEqual(stages, ["rollout", "extract", "sft"])
    # Killed while it was measured, which trains nothing again.
    self.assertEqual(algorithms.train(config, folder, 1), cost)
    self.assertLen(stages, 3)
    # The next round's search needs the PPM. Killed while it was trained.
    killed.append(KeyboardInterrupt())
    with self.assertRaises(KeyboardInterrupt):
      algorithms.train(config, folder, 2)
    begun = folder / "round_2"
    with self.assertRaisesRegex(ValueError, f"{begun} was .*; remove it"):
      algorithms.train(config, folder, 2)
    shutil.rmtree(begun)
    cost = {"tokens": 70, "cpu_seconds": 20.0, "seconds": 8.0}
    self.assertEqual(algorithms.train(config, folder, 2), cost)
    self.assertEqual(stages[3:], ["rollout", "extract", "sft", "ppm"])


if __name__ == "__main__":
  absltest.main()
