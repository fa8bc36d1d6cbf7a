"""Who is held out: by the problem alone, and never all."""

from absl.testing import absltest

from rstar_jax import rng
from rstar_jax.data import held_out
from rstar_jax.types import PreferencePair

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
    parts = [held_out.part_of(3, each, 10) for each in IDS]
    self.assertEqual(
      parts,
      ["held_out" if each in set(kept) else "training" for each in IDS],
    )

  def test_none(self):
    self.assertEqual(divide(IDS, 0), (IDS, []))
    self.assertEqual(divide(IDS, -1), (IDS, []))
    self.assertEqual(divide([], 10), ([], []))

  def test_the_only_ones_stay(self):
    kept = divide(IDS, 10)[1]
    self.assertEqual(divide(kept, 10), (kept, []))

  def test_neighbours_of_one_problem_come_together(self):
    def pair(name, question):
      return PreferencePair(name, question, ("a",), ("b",), 1.0, "step")

    # Two sources may give one id to different questions.
    pairs = [pair("p", "x"), pair("p", "x"), pair("p", "y"), pair("q", "y")]
    self.assertEqual(
      list(held_out.by_problem(iter(pairs))),
      [("p", pairs[:2]), ("p", pairs[2:3]), ("q", pairs[3:])],
    )


if __name__ == "__main__":
  absltest.main()
