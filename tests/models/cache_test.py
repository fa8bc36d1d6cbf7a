"""Tests of attention to shared paths, against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.models import cache
from rstar_jax.testing import tiny_model
from tests.models.layers_test import (
  naive_attention,
  near_scores,
  normal,
)


class CacheTest(parameterized.TestCase):
  def test_branch_attention_matches_loops(self):
    q = normal(0, 2, 3, 5, 6, 4)
    path = normal(1, 2, 2, 7, 4), normal(2, 2, 2, 7, 4)
    own = normal(3, 2, 3, 2, 5, 4), normal(4, 2, 3, 2, 5, 4)
    lengths = np.array([7, 4])
    path_mask = np.arange(7) < lengths[:, None]
    own_mask = np.tril(np.ones((5, 5), bool))
    out = cache.attend_branches(
      jnp.asarray(q),
      path,
      jnp.asarray(path_mask[:, None]),
      own,
      jnp.asarray(own_mask),
    )
    for b in range(2):
      for c in range(3):
        k, v = (
          np.concatenate([on[b], mine[b, c]], axis=1).swapaxes(0, 1)
          for on, mine in zip(path, own, strict=True)
        )
        allowed = np.concatenate(
          [np.broadcast_to(path_mask[b], (5, 7)), own_mask], axis=1
        )
        np.testing.assert_allclose(
          out[b, c], naive_attention(q[b, c], k, v, allowed), atol=2e-6
        )

  def test_softmax_is_float32_inside_bfloat16(self):
    """The last token of each sequence, its keys in two parts."""
    q, k, v, _ = near_scores(9)
    exact = naive_attention(
      *(np.asarray(each[0], np.float64) for each in (q[:, -1:], k, v)),
      np.ones((1, 9), bool),
    )
    keys, values = (jnp.swapaxes(each, 1, 2) for each in (k, v))
    out = cache.attend_branches(
      q[:, None, -1:],
      (keys[:, :, :5], values[:, :, :5]),
      jnp.ones((1, 1, 5), bool),
      (keys[:, None, :, 5:], values[:, None, :, 5:]),
      jnp.ones((1, 4), bool),
    )
    self.assertEqual(out.dtype, jnp.bfloat16)
    np.testing.assert_allclose(
      np.asarray(out[0, 0], np.float64), exact, rtol=0, atol=0.01
    )

  def test_mask_of_paths(self):
    rows = (jnp.zeros((3, 2, 5, 4)),)
    lengths = jnp.array([5, 0, 2])
    path = cache.PathCache(rows, rows, lengths, lengths)
    np.testing.assert_array_equal(
      path.mask(jnp.arange(2)),
      [[[1, 1, 1, 1, 1]], [[0, 0, 0, 0, 0]], [[1, 1, 0, 0, 0]]],
    )
    # The step's tokens are at positions 5 and 7, and see four each.
    np.testing.assert_array_equal(
      path.mask(jnp.array([0, 2]), 4)[0], [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]
    )

  def test_empty(self):
    rows = cache.empty(tiny_model(dtype="bfloat16"), (3, 5), 7)
    self.assertLen(rows.keys, 2)
    self.assertEqual(rows.values[1].shape, (3, 5, 2, 7, 4))
    self.assertEqual(rows.keys[0].dtype, jnp.bfloat16)
    pool = cache.empty_pool(tiny_model(), 3, 11)
    self.assertEqual(pool.keys[0].shape, (3, 2, 11, 4))
    self.assertEqual(pool.hidden.shape, (3, 24))

  @parameterized.product(
    data_shards=(1, 2, 4), dtype=(jnp.float32, jnp.bfloat16)
  )
  def test_rows_are_read_and_written_in_their_shards(self, data_shards, dtype):
    pool = np.asarray(jnp.asarray(normal(0, 12, 2, 11, 3), dtype))
    rows = np.asarray(jnp.asarray(normal(1, 8, 2, 5, 3), dtype))
    rng = np.random.default_rng(data_shards)
    size = 12 // data_shards
    local = np.concatenate(
      [rng.permutation(size)[: 8 // data_shards] for _ in range(data_shards)]
    ).astype(np.int32)
    shard = np.repeat(np.arange(data_shards), 8 // data_shards)
    starts = rng.integers(0, 7, 8).astype(np.int32)
    # One row is of padding.
    kept = np.arange(8) != 5
    written = cache.write(
      jnp.asarray(pool), np.where(kept, local, size), starts, rows, data_shards
    )
    expected = pool.copy()
    for i in np.flatnonzero(kept):
      slot = shard[i] * size + local[i]
      expected[slot, :, starts[i] : starts[i] + 5] = rows[i]
    self.assertEqual(written.dtype, dtype)
    np.testing.assert_array_equal(written, expected)
    read = cache.rows_of(jnp.asarray(pool), local, 7, data_shards)
    self.assertEqual(read.dtype, dtype)
    np.testing.assert_array_equal(read, pool[shard * size + local, :, :7])

  def test_no_pool_is_made_float32_to_move_some_of_it(self):
    pool = jax.ShapeDtypeStruct((7, 2, 11, 3), jnp.bfloat16)
    rows = jax.ShapeDtypeStruct((5, 2, 4, 3), jnp.bfloat16)
    ids = jax.ShapeDtypeStruct((5,), jnp.int32)
    for program, arguments in (
      (cache.write, (pool, ids, ids, rows)),
      (lambda pool, ids: cache.rows_of(pool, ids, 5), (pool, ids)),
    ):
      compiled = jax.jit(program).lower(*arguments).compile().as_text()
      self.assertNotIn("f32[", compiled)


if __name__ == "__main__":
  absltest.main()
