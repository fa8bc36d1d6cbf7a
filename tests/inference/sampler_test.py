"""Tests of sampling methods: exact distributions, and never outside."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference import sampler

VOCAB = 293


def logits():
  return np.random.default_rng(0).normal(size=VOCAB).astype(np.float32) * 2


def softmax(x):
  weights = np.exp(x.astype(np.float64) - x.max())
  return weights / weights.sum()


@functools.partial(jax.jit, static_argnames="method")
def sample(method, x, seeds, temperatures):
  rows = jnp.broadcast_to(x, (len(seeds), len(x)))
  uniforms = sampler.uniform_at(seeds, jnp.zeros(len(seeds), jnp.int32))
  return method(rows, temperatures, uniforms)


def draw(method, x, count, temperature=1.0):
  """Returns `count` samples, each of a seed of its own."""
  seeds = np.arange(count, dtype=np.uint32)
  temperatures = np.broadcast_to(np.float32(temperature), count)
  return np.asarray(sample(method, x, seeds, temperatures))


class SamplerTest(parameterized.TestCase):
  @parameterized.parameters(1.0, 0.7, 2.5)
  def test_frequencies_match_softmax(self, temperature):
    count = 20_011
    picked = draw(sampler.Method(), logits(), count, temperature)
    self.check_frequencies(picked, temperature)

  def test_each_row_has_its_temperature(self):
    count = 5_003
    three = np.array([2.0, 0.0, 0.5], np.float32)
    warm = three[np.arange(3 * count) % 3]
    picked = draw(sampler.Method(), logits(), 3 * count, warm)
    self.check_frequencies(picked[::3], 2.0)
    self.assertEqual(set(picked[1::3].tolist()), {int(logits().argmax())})
    self.check_frequencies(picked[2::3], 0.5)
    # None of them depends on the others.
    for column, temperature in enumerate(three):
      alone = draw(sampler.Method(), logits(), 3 * count, temperature)
      np.testing.assert_array_equal(picked[column::3], alone[column::3])

  def check_frequencies(self, picked, temperature):
    """Fails unless samples are those of softmax(logits / temperature)."""
    count = len(picked)
    expected = softmax(logits() / temperature) * count
    observed = np.bincount(picked, minlength=VOCAB)
    # Chi-square over the entries that are expected 5 times or more, the rest
    # in one: mean its number of cells, standard deviation sqrt(2 x cells).
    often = expected >= 5
    pair = [np.append(x[often], x[~often].sum()) for x in (observed, expected)]
    statistic = ((pair[0] - pair[1]) ** 2 / np.maximum(pair[1], 1)).sum()
    cells = often.sum()
    self.assertLess(statistic, cells + 4 * np.sqrt(2 * cells))
    self.assertGreater(statistic, cells - 4 * np.sqrt(2 * cells))

  @parameterized.parameters(0.3, 0.7, 1.0, 1.4, 2.0)
  def test_the_bits_of_a_temperature_that_is_a_constant(self, temperature):
    """Runs have been made with programs that had theirs built in."""
    rows = np.random.default_rng(1).normal(size=(499, VOCAB)) * 5
    rows = rows.astype(np.float32)

    @jax.jit
    def constant(rows):
      warm = rows / temperature
      return jnp.exp(warm - jnp.max(warm, axis=-1, keepdims=True))

    # Where the share of a token ends, one bit more or less is another token.
    weights = constant(rows)
    sums = jnp.pad(weights, [(0, 0), (0, 384 - VOCAB)])
    sums = jnp.cumsum(sums.reshape(-1, 3, 128).sum(-1), axis=-1)
    uniforms = sums[:, 0] / sums[:, 2]
    want = jax.jit(sampler.inverse_cdf)(weights, uniforms)
    warm = jnp.full(len(rows), temperature)
    got = jax.jit(sampler.Method())(jnp.asarray(rows), warm, uniforms)
    np.testing.assert_array_equal(got, want)

  @parameterized.parameters(
    dict(top_k=1),
    dict(top_k=7),
    dict(top_p=0.3),
    dict(top_k=11, top_p=0.8),
    dict(min_p=0.2),
    dict(top_k=23, min_p=0.1),
  )
  def test_never_outside(self, top_k=0, top_p=1.0, min_p=0.0):
    method = sampler.Method(top_k, top_p, min_p)
    picked = set(draw(method, logits(), 3001, 0.9).tolist())
    order = np.argsort(-logits())[: top_k or VOCAB]
    share = softmax(logits()[order] / 0.9)
    kept = (
      1 + int((np.cumsum(share) < top_p).sum()) if top_p < 1 else len(order)
    )
    kept = min(kept, int((share >= min_p * share[0]).sum()))
    allowed = set(order[:kept].tolist())
    self.assertLessEqual(picked, allowed)
    # And what is allowed and likely does come up.
    self.assertGreaterEqual(len(picked), min(kept, 5))

  def test_top_k_of_equals_keeps_k(self):
    picked = draw(sampler.Method(top_k=3), np.zeros(11, np.float32), 301)
    self.assertLen(set(picked.tolist()), 3)

  def test_no_temperature_takes_the_first_of_the_largest(self):
    x = np.array([0, 300, 1, 299, 300], np.float32)
    warm = np.array([0, 1e-38, 9e-5, 0, 0], np.float32)
    np.testing.assert_array_equal(draw(sampler.Method(), x, 5, warm), [1] * 5)

  def test_a_low_temperature_takes_any_of_the_largest(self):
    x = np.array([0, 300, 1, 299, 300], np.float32)
    for warm in (1.01e-4, 1e-2):
      picked = draw(sampler.Method(), x, 99, warm)
      self.assertEqual(set(picked.tolist()), {1, 4})

  @parameterized.parameters(0.0, 0.25, 0.5, 1 - 2**-24, 1.0)
  def test_inverse_cdf_skips_weight_zero(self, uniform):
    weights = np.zeros(VOCAB, np.float32)
    weights[[130, 200, 280]] = [0.1, 0.1, 0.2]
    index = int(sampler.inverse_cdf(jnp.asarray(weights), jnp.float32(uniform)))
    expected = {0.0: 130, 0.25: 200, 0.5: 280}.get(uniform, 280)
    self.assertEqual(index, expected)

  def test_inverse_cdf_skips_weight_zero_at_the_start_of_a_block(self):
    rng = np.random.default_rng(0)
    for _ in range(10):
      weights = rng.exponential(size=128 * 8).astype(np.float32)
      weights[rng.random(weights.size) < 0.97] = 0
      weights[::128], weights[5] = 0, 1
      # Where blocks begin, and the 12 floats before and after.
      begins = np.cumsum(weights.reshape(8, 128).sum(-1).astype(np.float64))
      begins = (begins[:-1] / begins[-1] * 2**23).astype(int)
      uniforms = (begins[:, None] + np.arange(-12, 13)).ravel() / 2**23
      rows = jnp.broadcast_to(weights, (uniforms.size, weights.size))
      index = jax.jit(sampler.inverse_cdf)(rows, uniforms.astype(np.float32))
      self.assertGreater(weights[np.asarray(index)].min(), 0)

  def test_rounding_gives_no_interval_to_weight_zero(self):
    # A long cumulative sum is not summed from left to right.
    rng = np.random.default_rng(0)
    weights = rng.exponential(size=(32, 1188)).astype(np.float32)
    weights[rng.random(weights.shape) < 0.5] = 0
    weights[:, 0] = 1
    ends = np.asarray(jax.jit(lambda x: jnp.cumsum(x, axis=-1))(weights))
    row, at = np.nonzero(weights == 0)
    targets = ends[row, at - 1]
    index, _ = jax.jit(sampler._invert)(weights[row], targets)
    self.assertGreater(weights[row, index].min(), 0)
    # The index's interval has the target, but for the rounding of sums.
    exact = np.cumsum(weights, axis=-1, dtype=np.float64)[row, index]
    self.assertTrue((exact >= targets * (1 - 1e-5)).all())
    starts = exact - weights[row, index]
    self.assertTrue((starts <= targets * (1 + 1e-5)).all())

  def test_inverse_cdf_matches_searchsorted(self):
    weights = np.random.default_rng(1).integers(0, 5, VOCAB).astype(np.float32)
    total = int(weights.sum())
    targets = (np.arange(total) + 0.5) / total
    expected = np.searchsorted(np.cumsum(weights), np.arange(total) + 0.5)
    index = sampler.inverse_cdf(
      jnp.broadcast_to(weights, (total, VOCAB)),
      jnp.asarray(targets, jnp.float32),
    )
    np.testing.assert_array_equal(index, expected)

  def test_uniforms_are_those_of_jax(self):
    seeds = np.array([0, 5, 2**31, 2**32 - 1], np.uint32)
    with jax.threefry_partitionable(True):
      rows = [jax.random.uniform(jax.random.key(s), (300,)) for s in seeds]
    for count in (1, 7, 300):
      indices = np.arange(300 - count, 300, dtype=np.int32)
      for seed, row in zip(seeds, rows, strict=True):
        many = np.full(count, seed)
        got = sampler.uniform_at(many, indices)
        np.testing.assert_array_equal(got, row[indices])
        # Seeds may come as the bits of a signed integer.
        got = jax.jit(sampler.uniform_at)(many.view(np.int32), indices)
        np.testing.assert_array_equal(got, row[indices])
    everything = np.concatenate(rows)
    self.assertBetween(everything.mean(), 0.45, 0.55)
    self.assertBetween(everything.min(), 0, 0.01)
    self.assertBetween(everything.max(), 0.99, 1 - 2**-24)

  def test_method_of_config(self):
    self.assertEqual(
      sampler.method_of(EngineConfig(temperature=0)), sampler.Method()
    )
    self.assertEqual(
      sampler.method_of(EngineConfig(temperature=0.7, top_k=3, top_p=0.9)),
      sampler.Method(3, 0.9),
    )
    self.assertEqual(
      sampler.method_of(EngineConfig(min_p=0.1)), sampler.Method(min_p=0.1)
    )
    for wrong in (
      dict(top_p=0),
      dict(top_k=-1),
      dict(min_p=2),
    ):
      with self.assertRaisesRegex(ValueError, "min_p <= 1"):
        sampler.Method(**wrong)


if __name__ == "__main__":
  absltest.main()
