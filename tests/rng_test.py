import hashlib
import itertools
import subprocess
import sys

from absl.testing import absltest, parameterized

from rstar_jax import rng


class SeedForTest(parameterized.TestCase):
  def test_is_the_documented_hash(self):
    # Written out by hand: a change of the hash or of the name breaks resumes.
    digest = hashlib.blake2s(b"(7, 'rollout', 3)", digest_size=4).digest()
    expected = sum(byte << (8 * i) for i, byte in enumerate(digest))
    self.assertEqual(rng.seed_for(7, "rollout", 3), expected)

  def test_is_a_uint32(self):
    seeds = [rng.seed_for(0, i) for i in range(1009)]
    self.assertTrue(all(0 <= seed < 2**32 for seed in seeds))
    # Spread over the range: each quarter has about a quarter of them.
    for quarter in range(4):
      share = sum(seed >> 30 == quarter for seed in seeds) / len(seeds)
      self.assertBetween(share, 0.2, 0.3)

  def test_names_differ_by_type_order_and_grouping(self):
    names = [(), (1,), ("1",), (1, 2), (2, 1), (12,), ("1, 2",), ("a", "b")]
    names += [("ab",), ("a", "b", ""), ("", "a", "b")]
    seeds = [rng.seed_for(0, *name) for name in names]
    self.assertLen(set(seeds), len(names))

  def test_no_collision_among_a_small_run(self):
    # Five identities of primes' sizes: 2310 names in 2**32; a collision has a
    # chance of 6e-4 for a good hash, and this one is fixed.
    sizes = (2, 3, 5, 7, 11)
    names = itertools.product(*map(range, sizes))
    seeds = {rng.seed_for(0, *name) for name in names}
    self.assertLen(seeds, 2 * 3 * 5 * 7 * 11)

  def test_run_seed_counts(self):
    self.assertNotEqual(rng.seed_for(0, "x"), rng.seed_for(1, "x"))

  @parameterized.parameters("0", "1")
  def test_same_in_another_process(self, hash_seed):
    # Python's own hash() of a string would change with PYTHONHASHSEED.
    program = "from rstar_jax import rng; print(rng.seed_for(3, 'p/17', 2))"
    done = subprocess.run(
      [sys.executable, "-c", program],
      env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
      capture_output=True,
      text=True,
      check=True,
    )
    self.assertEqual(int(done.stdout), rng.seed_for(3, "p/17", 2))


if __name__ == "__main__":
  absltest.main()
