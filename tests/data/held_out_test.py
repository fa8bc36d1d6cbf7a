"""Who is held out: by the problem alone, and never all."""

from absl.testing import absltest

from rstar_jax import rng
from rstar_jax.data import held_out

IDS = [f"p{n % 300}" for n in range(600)]


def divide(ids, one_in, seed=3):
  return held_out.divide(ids, lambda each: each, seed, one_in)


class HeldOutTest(absltest.TestCase):
  def test_a_problem_is_on_one_side_and_nothing_is_lost(self):
    training, kept = divide(IDS, 10)
    self.assertEmpty(set(training) & set(kept))
    self.assertCountEqual(training + kept, IDS)
    self.assertBetween(len(kept), 30, 95)
    # In the order in which they came.
    self.assertEqual(training, [each for each in IDS if each in set(training)])

  def test_who_it_is_depends_on_the_seed_alone(self):
    kept = divide(IDS, 10)[1]
    self.assertEqual(divide(IDS[::-1], 10)[1], kept[::-1])
    self.assertNotEqual(divide(IDS, 10, seed=4)[1], kept)
    # As the runs of earlier versions have it.
    expected = [e for e in IDS if rng.seed_for(3, "held out", e) % 10 == 0]
    self.assertEqual(kept, expected)

  def test_none(self):
    self.assertEqual(divide(IDS, 0), (IDS, []))
    self.assertEqual(divide(IDS, -1), (IDS, []))
    self.assertEqual(divide([], 10), ([], []))

  def test_the_only_ones_stay(self):
    kept = divide(IDS, 10)[1]
    self.assertEqual(divide(kept, 10), (kept, []))


if __name__ == "__main__":
  absltest.main()
