"""Settings that would make a program fit, with numbers made for it."""

from absl.testing import absltest

from rstar_jax.tools.aot import knobs


class KnobsTest(absltest.TestCase):
  def test_fewer(self):
    # 10 that stay and 2 for each: 3 fit into 16, 3 into 17, none into 11.
    for has, count in ((16, 3), (17, 3), (11, 0), (9, 0), (1000, 7)):
      self.assertEqual(knobs.fewer(7, 10, 14, has), count)

  def test_fewer_of_what_does_not_grow(self):
    self.assertEqual(knobs.fewer(7, 10, 0, 10), 7)
    self.assertEqual(knobs.fewer(7, 10, 0, 9), 0)

  def test_search(self):
    # 8 for the weights, 8 for the slots, 6 for the candidates of calls; 2 more.
    sizes = dict(
      slots=16,
      most_tokens=600,
      room=4096,
      weights=8.0,
      pools=8.0,
      calls=6.0,
      needs=24.0,
    )
    self.assertEqual(
      knobs.search(**sizes, has=20.0),
      {"slots": 8, "most_tokens": 200, "room": 2048},
    )
    # Without any candidates it would still be 18.
    self.assertEqual(knobs.search(**sizes, has=17.0), {"slots": 2, "room": 512})
    # Neither alone is enough: 10 stay, and 3.5 of 14 may be there besides.
    self.assertEqual(
      knobs.search(**sizes, has=13.5), {"slots_and_most_tokens": 0.25}
    )
    self.assertEqual(knobs.search(**sizes, has=9.0), {"tensor": 3})
    self.assertEqual(knobs.search(**sizes, has=3.0), {"tensor": 3})

  def test_training(self):
    # 6 that stay and 2 for each of 4 rows at once; 32 rows on 4 devices.
    sizes = dict(
      batch_size=32, accumulate=2, parts=4, state=4.0, gradients=2.0, needs=14.0
    )
    # 8 / 4 parts is 4 more; 3 does not divide.
    self.assertEqual(knobs.training(**sizes, has=10.5), {"accumulate": 4})
    self.assertEqual(knobs.training(**sizes, has=8.0), {"accumulate": 8})
    # One row at a time needs 8.
    self.assertEqual(knobs.training(**sizes, has=4.0), {"times_chips": 2})


if __name__ == "__main__":
  absltest.main()
