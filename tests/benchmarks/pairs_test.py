import numpy as np
from absl.testing import absltest, flagsaver, parameterized

from benchmarks import pairs
from rstar_jax.data.synthetic import generator
from rstar_jax.search.tree import NO_NODE, Draw, Tree
from rstar_jax.types import Problem

SOLVED = [generator.generate("train", index) for index in range(5)]


class PairsTest(parameterized.TestCase):
  @flagsaver.flagsaver(rollouts=3, candidates=5)
  def test_a_setting_is_fields_of_a_config(self):
    config = pairs.config_of("annotation=ppm,c=1,ppm_counts_visit=false")
    self.assertEqual((config.rollouts, config.candidates), (3, 5))
    self.assertEqual((config.annotation, config.c), ("ppm", 1.0))
    self.assertIs(config.ppm_counts_visit, False)
    self.assertEqual(pairs.config_of("").uct_unvisited, "zero")
    with self.assertRaises(AttributeError):
      pairs.config_of("breadth=3")

  def test_figures_are_ratios_of_sums(self):
    counts = [{"trees": 1, "tokens": 10, "wasted": 4, "solved": 1, "step": 0}]
    counts += [{"trees": 1, "tokens": 30, "wasted": 30, "solved": 0, "step": 0}]
    counts = [pairs.Counter(each) for each in counts]
    found = pairs.figures(counts)
    self.assertEqual(found["tokens"], [20, 10, 30])
    self.assertEqual(found["wasted"], [0.85, 0.4, 1])
    self.assertEqual(found["solved"], [0.5, 0, 1])
    self.assertIsNone(found["true"])

  def test_tokens_of_repeated_and_dropped_candidates_are_wasted(self):
    tree = Tree(Problem("p", "q"), keeps_draws=True)
    for node, tokens in ((1, 3), (NO_NODE, 5), (1, 3), (2, 7), (NO_NODE, 11)):
      tree.draws.append(Draw(0, node, (0,) * tokens, ()))
    self.assertEqual(pairs.wasted(tree), 5 + 3 + 11)

  @flagsaver.flagsaver(problems=2, levels=["5"])
  def test_problems_have_the_chosen_levels(self):
    self.assertEqual([each.problem.level for each in pairs.problems()], [5, 5])

  @parameterized.parameters((0.0, 1.0), (1.0, 0.0))
  @flagsaver.flagsaver(noise=0.0, rollouts=4, candidates=3)
  def test_a_policy_without_slips_is_right(self, slip, share):
    policy, ppm = pairs.Scripted(SOLVED), pairs.Ppm(SOLVED)
    calls = pairs.Calls(policy, pairs.verify, pairs.testing.grade_equal, ppm)
    problems = [each.problem for each in SOLVED]
    config = pairs.config_of("annotation=ppm")
    with flagsaver.flagsaver(slip=slip):
      trees = pairs.search(problems, config, calls, 0)
    counts = [pairs.count(tree, ppm) for tree in trees]
    self.assertEqual(pairs.figures(counts)["solved"][0], share)
    for tree in trees:
      np.testing.assert_array_equal(tree.ppm[1:], share - 0.5)

  @flagsaver.flagsaver(noise=0.0, rollouts=16, slip=0.5, wordings=1)
  def test_a_ppm_without_noise_has_no_pair_the_wrong_way_round(self):
    policy, ppm = pairs.Scripted(SOLVED), pairs.Ppm(SOLVED)
    calls = pairs.Calls(policy, pairs.verify, pairs.testing.grade_equal, ppm)
    problems = [each.problem for each in SOLVED]
    trees = pairs.search(problems, pairs.config_of(""), calls, 0)
    total = sum((pairs.count(each, ppm) for each in trees), pairs.Counter())
    self.assertGreater(total["true"], 0)
    self.assertEqual((total["corrections"], total["nodes_wrong"]), (0, 0))
    steps = sum(total[f"step_{i}"] for i in (1, 2, 3, 4))
    self.assertEqual(steps, total["step"])
    self.assertEqual(total["step"] + total["final"], total["all"])


if __name__ == "__main__":
  absltest.main()
