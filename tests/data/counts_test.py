"""Counts are added up as deep as they go."""

from absl.testing import absltest

from rstar_jax.data import counts


class CountsTest(absltest.TestCase):
  def test_names_of_either_side(self):
    total = {}
    for more in ({"a": 1, "b": {"x": 2}}, {"a": 3, "b": {"y": 4, "x": 0.5}}):
      counts.add(total, more)
    self.assertEqual(total, {"a": 4, "b": {"x": 2.5, "y": 4}})

  def test_what_is_added_stays_as_it_was(self):
    more = {"b": {"x": 1}}
    total = {}
    counts.add(total, more)
    counts.add(total, more)
    self.assertEqual((total, more), ({"b": {"x": 2}}, {"b": {"x": 1}}))


if __name__ == "__main__":
  absltest.main()
