"""What solutions cost, by hand."""

from absl.testing import absltest, parameterized

from rstar_jax.evaluation import cost
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

  def test_flops_are_two_a_parameter_and_token(self):
    self.assertEqual(cost.flops(7, 3.5), 49.0)


if __name__ == "__main__":
  absltest.main()
