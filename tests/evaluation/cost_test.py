"""What solutions cost, by hand."""

import dataclasses

from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.evaluation import cost
from rstar_jax.search import driver, mcts
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import Tree
from rstar_jax.types import Problem
from tests.evaluation.methods_test import record, trajectory


class BudgetTest(parameterized.TestCase):
  @parameterized.parameters(
    # Means of the first 1, 2, 3 samples: 15, 35, 60.
    (14, 1),  # At least one, even above the budget.
    (15, 1),
    (34, 1),
    (35, 2),
    (59, 2),
    (60, 3),
    (1000, 3),
  )
  def test_largest_number_within_the_budget(self, mean, expected):
    def samples(name, *tokens):
      each = [trajectory("1", tokens=t) for t in tokens]
      return record("samples", *each, name=name)

    sampled = [
      samples("p", 10, 20, 30),
      samples("q", 20, 20, 20),
      samples("alone", 10**6, 1, 1),
    ]
    searched = [
      record("mcts", name="q", tokens=mean - 3),
      record("mcts", name="p", tokens=mean + 3),
      record("mcts", name="other", tokens=10**6),
    ]
    self.assertEqual(cost.equal_samples(sampled, searched), expected)

  def test_without_a_search_all_samples(self):
    each = [trajectory("1")] * 5
    self.assertEqual(cost.equal_samples([record("samples", *each)], []), 5)
    self.assertEqual(cost.equal_samples([], []), 1)

  def test_units_that_a_budget_pays_for(self):
    records = [
      {"spent": [10, 30, 60]},
      # Ended after its second unit: more cost no more.
      {"spent": [20, 40]},
    ]
    means = {1: 15, 2: 35, 3: 50}
    for budget, units in ((14.9, 0), (15, 1), (34, 1), (35, 2), (50, 3)):
      self.assertEqual(cost.units_within(records, budget), units)
    for units, mean in means.items():
      self.assertEqual(cost.mean_tokens(records, units), mean)
    self.assertEqual(cost.mean_tokens(records), 50)

  def test_samples_are_as_many_steps_as_a_search_or_a_few_more(self):
    config = config_lib.Config()
    config.eval.search.candidates = 11
    self.assertEqual(cost.samples_of_evaluation(config), 44)
    # Four code steps and the answer, in more ways than are sampled.
    policy = testing.ToySum(tuple(f"x += {i}" for i in range(997)), levels=4)
    found = []

    def expand(questions, prefixes, seeds):
      found.extend(each for row in seeds for each in row)
      return policy(questions, prefixes, seeds)

    calls = Calls(
      expand=expand,
      verify=testing.run_trusted,
      grade=testing.grade_equal,
      score=testing.score_by_hash,
    )
    problems = [Problem(str(i), f"{i}?", "0") for i in range(10)]
    driver.run_searches(
      [
        mcts.search_tree(Tree(each), config.eval.search, 0, ())
        for each in problems
      ],
      calls,
      1,
    )
    solutions = len(found) / len(problems) / (policy.levels + 1)
    self.assertBetween(solutions, 0.8 * 44, 44)
    # A study's rollouts are another number, and either may be said.
    config.study.trajectories = 3
    self.assertEqual(cost.samples_of_study(config), 33)
    config.study.samples, config.eval.samples = 5, 6
    self.assertEqual(cost.samples_of_study(config), 5)
    self.assertEqual(cost.samples_of_evaluation(config), 6)

  def test_work_is_what_was_done_between_two_readings(self):
    before = {
      "seconds": 100.0,
      "device_seconds": 60.0,
      "compile_seconds": 7.0,
      "generated_tokens": 1000,
      "scored_tokens": 300,
      "pages_used": 4,
    }
    after = {
      "seconds": 130.0,
      "device_seconds": 82.0,
      "compile_seconds": 12.0,
      "generated_tokens": 1500,
      "scored_tokens": 420,
      "pages_used": 2,
    }
    found = cost.work(before, after, 10)
    self.assertEqual(found, cost.Work(10, 25.0, 17.0, 5.0, 500, 120))
    each = found.of_problem()
    self.assertEqual(each, cost.Work(1, 2.5, 1.7, 0.5, 50, 12))
    # A server's backend counts fewer things, and has no count at first.
    found = cost.work({"seconds": 1.0}, {"seconds": 3.0}, 2)
    self.assertEqual(found, cost.Work(2, 2.0))
    found = cost.work(
      {"seconds": 1.0}, {"seconds": 3.0, "compile_seconds": 9.0}, 2
    )
    self.assertEqual(found, cost.Work(2, 0.0, 0.0, 9.0))

  def test_work_of_a_method_that_was_resumed_adds_up(self):
    def line(step, name, *values):
      names = [each.name for each in dataclasses.fields(cost.Work)]
      pairs = zip(names, values, strict=True)
      return {"step": step, **{f"study/{name}/{k}": v for k, v in pairs}}

    lines = [
      {"step": 4, "study/seconds": 9.0, "eval/problems": 3},
      line(4, "ppm/mcts", 3, 1.0, 2.0, 3.0, 4.0, 5.0),
      line(4, "policy/greedy", 5, 1.0, 1.0, 1.0, 1.0, 1.0),
      line(3, "ppm/mcts", 9, 9.0, 9.0, 9.0, 9.0, 9.0),
      line(4, "ppm/mcts", 2, 10.0, 20.0, 30.0, 40.0, 50.0),
      line(4, "orm/mcts", 0, 1.0, 1.0, 1.0, 1.0, 1.0),
      {"step": 4, "study/ppm/beam/problems": 2, "study/ppm/beam/nan": None},
    ]
    self.assertEqual(
      cost.measured(lines, "study/", 4),
      {
        "ppm/mcts": cost.Work(5, 11.0, 22.0, 33.0, 44.0, 55.0),
        "policy/greedy": cost.Work(5, 1.0, 1.0, 1.0, 1.0, 1.0),
        "ppm/beam": cost.Work(2),
      },
    )

  def test_flops_are_two_a_parameter_and_token(self):
    self.assertEqual(cost.flops(7, 3.5), 49.0)


if __name__ == "__main__":
  absltest.main()
