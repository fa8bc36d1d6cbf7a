"""Tests of the decode loop: it halves its rows, and ends with the last."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.inference import decoding, sampler
from rstar_jax.inference.decoding import _Rows, _unfinished
from rstar_jax.models import branch_attention, cache
from tests.inference.engine_test import STEP, model


@dataclasses.dataclass(frozen=True, eq=False)
class Counting(sampler.Greedy):
  """Greedy that writes down how many rows each call had."""

  seen: list

  def __call__(self, logits, uniforms):
    rows = logits.shape[0]
    jax.debug.callback(lambda: self.seen.append(rows), ordered=True)
    return super().__call__(logits, uniforms)


def run(limits, method, stop_ids=(), least_rows=1, data_shards=1, candidates=3):
  leaves = len(limits)
  paths = cache.empty(model().config, (leaves,), 5)
  lengths = jnp.full(leaves, 5)
  path = cache.PathCache(paths.keys, paths.values, lengths, lengths)
  hidden = jax.random.normal(jax.random.key(0), (leaves, 24))
  options = decoding.Options(
    method=method,
    stop_ids=stop_ids,
    max_new_tokens=STEP,
    pad_id=0,
    least_rows=least_rows,
  )

  @jax.jit
  def go(limits):
    return decoding.decode(
      model(),
      path,
      hidden,
      jnp.arange(leaves * candidates, dtype=jnp.uint32).reshape(leaves, -1),
      limits,
      options,
      data_shards,
    )[0]

  out = jax.device_get(go(jnp.array(limits)))
  jax.effects_barrier()
  return out


class DecodingTest(parameterized.TestCase):
  def test_decoding_ends_with_the_last_row(self):
    """All rows stop at once, and no later token is computed."""
    seen = []
    free = run([STEP, 0], Counting(seen))
    self.assertLen(seen, STEP)
    stop = int(free.tokens[0, 0, 2])
    first = free.tokens[0, 0].tolist().index(stop)
    seen.clear()
    out = run([STEP, 0], Counting(seen), (stop,))
    self.assertLen(seen, first + 1)
    np.testing.assert_array_equal(out.lengths, [[first + 1] * 3, [0] * 3])
    np.testing.assert_array_equal(out.stops, [[stop] * 3, [-1] * 3])
    np.testing.assert_array_equal(out.tokens[1], np.zeros((3, STEP)))

  @parameterized.parameters(
    # Of 12 rows 3 end with each of four limits.
    (1, 1, [12, 12, 12, 6, 6, 3, 3]),
    (5, 1, [12, 12, 12, 6, 6, 6, 6]),
    (64, 1, [12] * 7),
    (1, 2, [12, 12, 12, 6, 6, 6, 6]),
  )
  def test_half_as_many_rows_when_half_have_ended(
    self, least, data_shards, expected
  ):
    seen = []
    limits = [1, 7, 3, 5]
    out = run(limits, Counting(seen), least_rows=least, data_shards=data_shards)
    self.assertEqual(seen, expected)
    np.testing.assert_array_equal(
      out.lengths, np.repeat(np.array(limits)[:, None], 3, axis=1)
    )
    whole = run(limits, sampler.Greedy(), least_rows=64)
    np.testing.assert_array_equal(out.tokens, whole.tokens)
    np.testing.assert_allclose(out.logprobs, whole.logprobs, atol=1e-5)

  def test_a_step_is_the_same_with_the_kernel(self):
    config, shape, size = model().config, (2, 3), 7
    keys = iter(jax.random.split(jax.random.key(1), 1000))

    def noise(tree):
      draw = lambda x: jax.random.normal(next(keys), x.shape)  # noqa: E731
      return jax.tree.map(draw, tree)

    paths = noise(cache.empty(config, shape[:1], 5))
    lengths = jnp.array([5, 2])
    path = cache.PathCache(paths.keys, paths.values, lengths, lengths + size)
    own = noise(cache.empty(config, shape, size))
    tokens = jnp.array([[1, 2, 3], [4, 5, 6]])
    rows = _Rows(shape, jnp.array([[0, 4]]))
    kernel = branch_attention.attend_of("pallas", interpret=True)

    @jax.jit
    def both(own):
      args = model(), path, own, tokens, jnp.int32(3), rows
      return decoding.decode_step(*args), decoding.decode_step(*args, kernel)

    (plain, cached), (other, same) = both(own)
    np.testing.assert_allclose(other, plain, atol=1e-5)
    for a, b in zip(cached.keys, same.keys, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)

  def test_halvings(self):
    self.assertEqual(decoding.halvings(128, 32), [128, 64, 32])
    self.assertEqual(decoding.halvings(24, 2), [24, 12, 6, 3])
    self.assertEqual(decoding.halvings(24, 1, data_shards=4), [24, 12])
    self.assertEqual(decoding.halvings(7, 1), [7])

  @parameterized.parameters(1, 2, 3)
  def test_rows_are_taken_and_put_back(self, data_shards):
    rng = np.random.default_rng(data_shards)
    done = rng.random((6, 4)) < 0.6
    count = 12
    index = _unfinished(jnp.asarray(done), count, data_shards)
    left = [part[~part].size for part in done.reshape(data_shards, -1)]
    self.assertTrue(all(each <= count // data_shards for each in left))
    rows = _Rows((6, 4), index)
    x = rng.normal(size=(6, 4, 5)).astype(np.float32)
    expected = np.where(done[..., None], 0, x)
    np.testing.assert_array_equal(rows.put(rows.take(jnp.asarray(x))), expected)


if __name__ == "__main__":
  absltest.main()
