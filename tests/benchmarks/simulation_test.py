"""Methods against each other, on problems of the generator."""

import numpy as np
from absl.testing import absltest, flagsaver

from benchmarks import simulation
from benchmarks.equal_cost import Curve


class UnitsTest(absltest.TestCase):
  def test_numbers_of_units(self):
    self.assertEqual(simulation.steps_of(1), [1])
    self.assertEqual(simulation.steps_of(5), [1, 2, 3, 4, 5])
    self.assertEqual(simulation.steps_of(16), [1, 2, 3, 4, 6, 8, 12, 16])


class ProblemTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    values = {"levels": ["3"], "samples": 24, "rollouts": 4}
    self.enter_context(
      flagsaver.flagsaver(
        mcts=["mcts", "mcts_zero"], beams=["2"], spread=0.0, **values
      )
    )
    self.solved = simulation.drawn([1, 3], 6, 1)

  def test_draws_so_many_of_each_level(self):
    levels = [each.problem.level for each in self.solved]
    self.assertEqual(sorted(levels), [1] * 6 + [3] * 6)
    with self.assertRaisesRegex(ValueError, "no split"):
      simulation.drawn([99], 1, 0)

  def test_a_perfect_ppm_finds_what_there_is(self):
    read = {}
    for solved in self.solved:
      problem = simulation.Problem(solved, 0.3, 1, len)
      curves = {
        name: each for (_, name), each in problem.samples([0.0]).items()
      }
      best = curves["best"]
      # Once one is right, the perfect PPM chooses it.
      self.assertEqual(sorted(best.right), list(best.right))
      self.assertEqual(curves["best, mean"].right[-1], best.right[-1])
      self.assertEqual(list(best.cost), sorted(best.cost))
      self.assertEqual(curves["majority"].cost, best.cost)
      # Equal steps are read once.
      self.assertLess(best.read[-1], best.cost[-1])
      self.assertGreater(best.read[-1], 0)
      searches = problem.searches(0.0)
      for name, each in searches.items():
        self.assertTrue(each.right[-1], name)
        self.assertLessEqual(each.read[-1], each.cost[-1])
      self.assertEqual(searches["mcts"].cost, searches["mcts, mean"].cost)
      read[solved.problem.id] = problem.siblings[0.0]
    picked, found, children = np.array(sum(read.values(), [])).T
    self.assertEqual(np.nanmin(picked), 1.0)
    self.assertBetween(found.mean(), 0.95, 1.0)
    self.assertBetween(children.mean(), 1.5, 4.0)

  def test_a_useless_ppm_does_not(self):
    right = []
    for solved in self.solved:
      problem = simulation.Problem(solved, 0.3, 1, len)
      right.append(problem.searches(1.0)["beam_2"].right[-1])
    self.assertLess(np.mean(right), 0.5)


class CostsTest(absltest.TestCase):
  def test_seconds_are_of_each_number_in_flight(self):
    made = {((6, 0.2, 0.1), "majority"): [Curve((1000,), (True,), (0,))]}
    lines = [
      {"line": "rate", "in_flight": each, "method": name, "seconds": rate}
      for each, rate in ((16, 2.0), (1, 7.0))
      for name in ("majority", "read")
    ]
    self.enter_context(flagsaver.flagsaver(clock="seconds"))
    lines.insert(0, {"line": "turn", "in_flight": 16, "seconds": 99.0})
    costs = simulation.by_cost(made, lines)
    self.assertEqual(
      [*costs], ["tokens", "seconds, 16 in flight", "seconds, 1 in flight"]
    )
    cell = (6, 0.2, 0.1)
    found = [each[cell, "majority"][0].cost for each in costs.values()]
    self.assertEqual(found, [(1000,), (2.0,), (7.0,)])


if __name__ == "__main__":
  absltest.main()
