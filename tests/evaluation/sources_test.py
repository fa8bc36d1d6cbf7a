"""What each source of solutions needs, by hand."""

from absl.testing import absltest, parameterized

from rstar_jax.config import schema as config_lib
from rstar_jax.evaluation import sources


class SourcesTest(parameterized.TestCase):
  @parameterized.parameters(
    ("greedy", False, False, False),
    ("samples", False, True, True),
    ("beam", True, False, False),
    ("diverse_beam", True, False, False),
    ("rebase", True, False, False),
    ("mcts", True, False, False),
    ("puct", True, False, False),
    ("searches", True, False, True),
    ("ab_mcts", True, False, False),
    ("one_of:mine", True, False, False),
  )
  def test_what_each_is(self, name, guided, shared, independent):
    found = sources.of(name)
    self.assertEqual(
      (found.guided, found.shared, found.independent),
      (guided, shared, independent),
    )
    self.assertEqual(found.greedy, name == "greedy")

  def test_each_of_the_config_has_a_title_of_its_own(self):
    titles = [sources.of(name).title for name in config_lib.METHODS]
    self.assertLen({*titles} - {""}, len(titles))
    self.assertEqual(sources.of("one_of:mine").title, "")

  @parameterized.parameters(
    # 6 searches of 8 candidates are 48 solutions under way.
    ("mcts", 5, 6),
    ("samples", 5, 9),
    ("samples", 24, 2),
    ("samples", 48, 1),
    ("samples", 99, 1),
    ("greedy", 1, 48),
  )
  def test_in_flight(self, name, count, expected):
    search = config_lib.SearchConfig(in_flight=6, candidates=8)
    found = sources.of(name)
    self.assertEqual(found.in_flight(search, count), expected)
    if name == "greedy":
      self.assertEqual(found.in_flight(search, 99), expected)
      self.assertEqual(found.count(99), 1)
    else:
      self.assertEqual(found.count(99), 99)


if __name__ == "__main__":
  absltest.main()
