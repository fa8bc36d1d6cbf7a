"""What a dictionary of limited size keeps, by hand."""

from absl.testing import absltest

from rstar_jax.sandbox.recent import Recent


class RecentTest(absltest.TestCase):
  def kept(self, recent):
    return [key for key in "abcd" if key in recent]

  def test_what_was_used_longest_ago_goes_first(self):
    recent = Recent(2)
    recent["a"], recent["b"] = 1, 2
    recent["c"] = 3
    self.assertEqual(self.kept(recent), ["b", "c"])
    # A value that is found, or put again, is used.
    self.assertEqual(recent["b"], 2)
    recent["d"] = 4
    self.assertEqual(self.kept(recent), ["b", "d"])
    recent["b"] = 5
    recent["a"] = 6
    self.assertEqual(self.kept(recent), ["a", "b"])
    self.assertEqual(recent["b"], 5)

  def test_a_look_is_no_use(self):
    recent = Recent(2)
    recent["a"], recent["b"] = 1, 2
    self.assertIn("a", recent)
    recent["c"] = 3
    self.assertNotIn("a", recent)

  def test_no_room(self):
    recent = Recent(0)
    recent["a"] = 1
    self.assertEmpty(self.kept(recent))


if __name__ == "__main__":
  absltest.main()
